"""Stage describe: the differences of each photograph from good ones as one vector, for the classifier of kinds.

A kind of defect is local, and averaged over the part it drowns. So the patches that are most unlike those of good
photographs are taken, and of each what it differs by from the good patches nearest to it. The mean of these differences
says what the defect looks like, their spread how varied it is. How unlike a patch is: its distance to the nearest good
one, over the distance that good patches like it have to each other, since edges and holes differ from one good part to
the next. A photograph is compared with good ones of other folds and other groups only.
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
from defectflow.classification.kind_namer import MEAN_OF, MOST_UNLIKE, NEAREST, RELATIVE, ROWS
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.device import product
from defectflow.core.files import UserError, stage
from defectflow.core.parallel import in_threads
from defectflow.core.tables import read_table
from defectflow.dataset_card.photographs import GOOD
from defectflow.detection.feature_files import PatchFile, open_patches

COLUMNS = ["image_id", "path", "group", "label", "defect_type"]
GOOD_PATCHES = 24000  # of all good photographs together, drawn evenly: patches are compared with these


class GoodPatches(NamedTuple):
    """Patches of good photographs to compare with, in the order of the folds.

    Attributes:
        patches: float32 (m, d).
        half_norms: float32 (m,), half of their squared lengths.
        owners: int (m, 2), group and photograph of each, as numbers.
        starts: of each fold, the row where its patches begin, and m at the end.
        typical: float32 (folds + 1, m), distance of each to the nearest of another group, none of them of the fold;
            in the last row of any fold.
    """

    patches: torch.Tensor
    half_norms: torch.Tensor
    owners: torch.Tensor
    starts: list[int]
    typical: torch.Tensor = torch.empty(0)


class Nearest(NamedTuple):
    """Good patches nearest to each of p patches, of those that may be compared with, in one fold each.

    Attributes:
        closeness: float32 (folds, p, k), half of the squared length of a patch less half of the squared distance;
            -inf where there are fewer.
        rows: int (folds, p, k), of the good patches.
    """

    closeness: torch.Tensor
    rows: torch.Tensor

    def without(self, fold: int | None, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest ``count`` of all folds but one: closeness and rows, (p, count), the nearest first."""
        kept = [number for number in range(len(self.rows)) if number != fold]
        closeness, rows = (torch.cat([part[k] for k in kept], dim=1) for part in self)
        best = closeness.topk(min(count, closeness.shape[1]), dim=1)
        return best.values, rows.gather(1, best.indices)


def good_patches(
    places: Mapping[str, tuple[PatchFile, int]], table: pd.DataFrame, groups: np.ndarray, seed: int
) -> GoodPatches:
    """Draw patches of the good photographs of a sample, as many of each, rounded as half-precision floats.

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
    patches = torch.cat(drawn).half().float()  # as a bundle keeps them
    found = GoodPatches(patches, patches.square().sum(dim=1) / 2, torch.tensor(owners), starts)
    return found._replace(typical=_typical(found))


def _typical(good: GoodPatches) -> torch.Tensor:
    """See `GoodPatches.typical`; 1 where there is nothing to compare with."""
    folds: list[int | None] = [*range(len(good.starts) - 1), None]
    typical = torch.ones(len(folds), len(good.patches))
    for owner in torch.unique(good.owners, dim=0).tolist():
        own = (good.owners == torch.tensor(owner)).all(dim=1)
        patches, squares = good.patches[own], 2 * good.half_norms[own]
        others = [good.owners[:, k] != owner[k] for k in (0, 1)]
        searched: dict[int, Nearest] = {}
        for row, fold in enumerate(folds):
            for level in (k for k in (0, 1) if others[k].any()):
                if level not in searched:
                    searched[level] = nearest(patches, good, others[level], 1)
                closest = searched[level].without(fold, 1)[0][:, 0]
                if closest.isfinite().all():
                    typical[row, own] = (squares - 2 * closest).clamp_min(0).sqrt()
                    break
    return typical.clamp_min(float(typical.median()) * 1e-3 + 1e-12)


def nearest(patches: torch.Tensor, good: GoodPatches, allowed: torch.Tensor, count: int) -> Nearest:
    """Good patches that are nearest to each patch, in every fold.

    Args:
        patches: float32 (p, d).
        good: patches to compare with.
        allowed: bool (m,), which of them; a block that is allowed as a whole is not copied.
        count: how many.
    """
    parts = []
    for some in patches.split(ROWS):
        closeness, of_folds = product(some, good.patches) - good.half_norms, []
        for begin, end in pairwise(good.starts):
            block, use = closeness[:, begin:end], allowed[begin:end]
            block = block if use.all() else block.masked_fill(~use, -torch.inf)
            best = block.topk(min(count, block.shape[1]), dim=1)
            missing = (0, count - best.values.shape[1])
            values = torch.nn.functional.pad(best.values, missing, value=-torch.inf)
            of_folds.append((values, torch.nn.functional.pad(best.indices + begin, missing)))
        parts.append([torch.stack(one) for one in zip(*of_folds, strict=True)])
    closest, rows = (torch.cat(one, dim=1) for one in zip(*parts, strict=True))
    return Nearest(closest, rows)


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
    squares, found = patches.square().sum(dim=1), []
    levels = [*(good.owners[:, k] != owner[k] for k in (0, 1)), torch.ones(len(good.patches), dtype=torch.bool)]
    searched: dict[int, Nearest] = {}
    for fold in folds:
        outside = levels[2].clone()
        if fold is not None:
            outside[good.starts[fold] : good.starts[fold + 1]] = False
        level = next(k for k, one in enumerate(levels) if (outside & one).any())
        if level not in searched:
            searched[level] = nearest(patches, good, levels[level], NEAREST)
        count = min(NEAREST, int((outside & levels[level]).sum()))
        closeness, rows = searched[level].without(fold, count)
        typical = good.typical[-1 if fold is None else fold][rows].mean(dim=1)
        unlike = (squares - 2 * closeness[:, 0]).clamp_min(0).sqrt() / typical**RELATIVE
        most = unlike.topk(min(MOST_UNLIKE, len(patches))).indices
        differences = patches[most] - good.patches[rows[most]].mean(dim=1)
        parts = (differences[:MEAN_OF].mean(dim=0), differences.std(dim=0, correction=0))
        found.append(torch.cat([torch.nn.functional.normalize(part, dim=0) for part in parts]))
    return torch.stack(found)


def describe(
    files: Sequence[PatchFile], manifest: pd.DataFrame, chosen: Sample, seed: int
) -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame, GoodPatches]:
    """Describe the photographs of a sample and those without a label.

    Returns:
        What `Descriptors` has as held_out, every and items, and the good patches that were compared with.

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
    return held_out, torch.stack([vectors[-1] for vectors in found]), items, good


def kept_of(good: GoodPatches) -> tuple[np.ndarray, np.ndarray]:
    """Of `Descriptors` the fields good and typical."""
    return good.patches.half().numpy(), good.typical[-1].contiguous().numpy()


def main(args: argparse.Namespace) -> None:
    """Write the file of descriptors."""
    torch.set_num_threads(args.threads)
    manifest = read_table(args.manifest, COLUMNS)
    chosen = sample(manifest, args.seed)
    files = open_patches(args.features)
    held_out, every, items, good = describe(files, manifest, chosen, args.seed)
    network = files[0].config
    about = {"network": network, "unit": chosen.unit, "left_out": chosen.left_out, "unnamed": chosen.unnamed}
    write_descriptors(args.out, Descriptors(held_out.numpy(), every.numpy(), items, about, *kept_of(good)))


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
