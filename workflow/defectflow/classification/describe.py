"""Stage describe: the differences of each photograph from good ones as one vector, for the classifier of kinds.

A defect is local; averaged over the part it would disappear. So the patches farthest from those of good photographs are
used, and for each its difference from the nearest good patches. The mean of these differences describes what the defect
looks like, their spread how varied it is. A photograph is only compared with good ones of other folds and other groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from defectflow.classification.descriptor_files import Descriptors, write_descriptors
from defectflow.classification.kind_folds import Sample, sample
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.device import product
from defectflow.core.files import UserError, stage
from defectflow.core.parallel import in_threads
from defectflow.core.tables import read_table
from defectflow.dataset_card.photographs import GOOD
from defectflow.detection.feature_files import PatchFile, open_patches

COLUMNS = ["image_id", "path", "group", "label", "defect_type"]
GOOD_PATCHES = 8000  # of all good photographs together, drawn evenly, for comparison
MOST_UNLIKE = 20  # patches of a photograph for the spread of differences ...
MEAN_OF = 10  # ... and the first of these for their mean
NEAREST = 5  # good patches whose mean is subtracted from a patch


class GoodPatches(NamedTuple):
    """Patches of good photographs to compare with, in the order of the folds.

    Attributes:
        patches: float32 (m, d).
        half_norms: float32 (m,), half of their squared lengths.
        owners: int (m, 2), numbers of group and photograph of each.
        starts: first row of each fold, and m at the end.
    """

    patches: torch.Tensor
    half_norms: torch.Tensor
    owners: torch.Tensor
    starts: list[int]


def good_patches(
    places: Mapping[str, tuple[PatchFile, int]], table: pd.DataFrame, groups: np.ndarray, seed: int
) -> GoodPatches:
    """Draw patches of the good photographs of a sample, the same number from each.

    Args:
        places: patch file and item of each photograph.
        table: `Sample.table`.
        groups: number of the group of each of its rows.
        seed: of the draw.
    """
    good = np.flatnonzero(table["class"] == GOOD)
    good = good[np.argsort(table["fold"].to_numpy()[good], kind="stable")]
    each = max(1, GOOD_PATCHES // len(good))
    rng, drawn, owners, starts = np.random.default_rng(seed), [], [], [0]
    for fold in range(int(table["fold"].max()) + 1):
        for row in good[table["fold"].to_numpy()[good] == fold]:
            file, item = places[table["image_id"].iloc[row]]
            patches = file.patches(item)
            chosen = np.sort(rng.permutation(len(patches))[:each])
            drawn.append(patches[torch.from_numpy(chosen)])
            owners += [(int(groups[row]), int(row))] * len(chosen)
        starts.append(len(owners))
    patches = torch.cat(drawn)
    return GoodPatches(patches, patches.square().sum(dim=1) / 2, torch.tensor(owners), starts)


def descriptors(
    patches: torch.Tensor, owner: tuple[int, int], good: GoodPatches, folds: Sequence[int | None]
) -> torch.Tensor:
    """Describe one photograph, once for each fold whose good patches are held out.

    Args:
        patches: float32 (p, d), p at least 1.
        owner: numbers of its group, whose patches are excluded, and of the photograph itself, which is excluded if
            there are no other groups.
        good: patches to compare with.
        folds: folds to hold out; None: none.

    Returns:
        float32 (folds, 2 d): mean and standard deviation of the differences, each of length 1.
    """
    closeness = product(patches, good.patches) - good.half_norms
    squares, found = patches.square().sum(dim=1) / 2, []
    groups, photographs = (good.owners[:, k] != owner[k] for k in (0, 1))
    everyone = torch.ones(len(good.patches), dtype=torch.bool)
    highest: dict[int, torch.Tensor] = {}
    for fold in folds:
        outside = everyone.clone()
        if fold is not None:
            outside[good.starts[fold] : good.starts[fold + 1]] = False
        level, allowed = next(
            (k, outside & one) for k, one in enumerate((groups, photographs, everyone)) if (outside & one).any()
        )
        if level not in highest:
            highest[level] = _highest(closeness, (groups, photographs, everyone)[level], good.starts)
        blocks = [block for number, block in enumerate(highest[level]) if number != fold]
        unlike = (squares - torch.stack(blocks).amax(dim=0)).topk(min(MOST_UNLIKE, len(patches))).indices
        rows = closeness[unlike].masked_fill(~allowed, -torch.inf)
        beside = good.patches[rows.topk(min(NEAREST, int(allowed.sum())), dim=1).indices].mean(dim=1)
        differences = patches[unlike] - beside
        parts = (differences[:MEAN_OF].mean(dim=0), differences.std(dim=0, correction=0))
        found.append(torch.cat([torch.nn.functional.normalize(part, dim=0) for part in parts]))
    return torch.stack(found)


def _highest(closeness: torch.Tensor, allowed: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """Highest of the allowed columns in each row for each fold, (folds, p); a fully allowed block is not copied."""
    found = []
    for begin, end in pairwise(starts):
        block, use = closeness[:, begin:end], allowed[begin:end]
        if not use.any():
            found.append(torch.full((len(closeness),), -torch.inf))
        else:
            found.append((block if use.all() else block[:, use]).amax(dim=1))
    return torch.stack(found)


def describe(
    files: Sequence[PatchFile], manifest: pd.DataFrame, chosen: Sample, seed: int
) -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame]:
    """Describe the photographs of a sample and those without a label; see `Descriptors` for what is returned.

    Raises:
        UserError: a photograph of the sample has no patches.
    """
    places = {
        item["image_id"]: (file, number)
        for file in files
        for number, item in enumerate(file.items)
        if not item["copy_of"]
    }
    for image_id, path in zip(chosen.table["image_id"], chosen.table["path"], strict=True):
        if image_id not in places:
            raise UserError(f"{path}: no patches (run the stage features again)")
    new = manifest[manifest["label"].isna() & manifest["image_id"].isin(list(places))].sort_values("image_id")
    items = pd.concat(
        [chosen.table, new[["image_id", "path", "group"]].assign(**{"class": "", "fold": -1})], ignore_index=True
    )
    names = items["group"].where(items["group"] != "", "\0" + items["image_id"])
    groups = pd.factorize(names)[0]
    good = good_patches(places, chosen.table, groups, seed)
    count = len(good.starts) - 1
    everything: list[int | None] = [*range(count), None]

    def one(row: int) -> torch.Tensor:
        file, item = places[items["image_id"].iloc[row]]
        folds = everything if row < len(chosen.table) else [None]
        return descriptors(file.patches(item), (int(groups[row]), row), good, folds)

    found = list(tqdm(in_threads(one, range(len(items))), total=len(items), desc="describe", unit="image"))
    held_out = torch.stack([vectors[:count] for vectors in found[: len(chosen.table)]], dim=1).contiguous()
    return held_out, torch.stack([vectors[-1] for vectors in found]), items


def main(args: argparse.Namespace) -> None:
    """Write the file of descriptors."""
    torch.set_num_threads(args.threads)
    manifest = read_table(args.manifest, COLUMNS)
    chosen = sample(manifest, args.seed)
    files = open_patches(args.features)
    held_out, every, items = describe(files, manifest, chosen, args.seed)
    network = {key: files[0].config[key] for key in ("backbone", "trained", "layers", "input_size")}
    about = {"network": network, "unit": chosen.unit, "left_out": chosen.left_out, "unnamed": chosen.unnamed}
    write_descriptors(args.out, Descriptors(held_out.numpy(), every.numpy(), items, about))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.describe", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--manifest", required=True, help="manifest.csv")
    add_seed(parser, "of the folds and the drawn good patches")
    add_threads(parser)
    parser.add_argument("--out", required=True, help="file of descriptors to write (.safetensors)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
