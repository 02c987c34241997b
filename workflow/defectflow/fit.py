"""Memory banks: one of all good images, and one for each fold without the images of that fold."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from defectflow import tables
from defectflow.coreset import PROJECTIONS, coreset_size, k_center_greedy, project
from defectflow.device import pick_device
from defectflow.files import UserError, atomic, stage, write_json
from defectflow.patch_files import PatchFile, open_patches
from defectflow.patchcore import PIXELS, Subspace
from defectflow.threads import in_threads

BANKS = ("float32", "float16", "pca_float16")  # the last: coordinates along the axes with 99 % of the bank's variance


@dataclass(frozen=True)
class GoodPatches:
    """Patches of the good images and of their augmented copies.

    Attributes:
        patches: float32 (n, d).
        position: int64 (n,), flat index in the grid.
        owner: int64 (n,), row of ``images`` that a patch belongs to.
        images: image_id (of the source, for a copy), fold, group_fold, is_copy.
        absent: number of good pictures left out because the part is not in them.
        available: number of patches before the images were reduced.
    """

    patches: torch.Tensor
    position: torch.Tensor
    owner: torch.Tensor
    images: pd.DataFrame
    absent: int
    available: int


def load_good(
    files: Sequence[PatchFile], splits: pd.DataFrame, max_patches: int | None = None, seed: int = 0
) -> GoodPatches:
    """Read the patches of the images that may be learned from, and of no others.

    If there are more than ``max_patches``, each image is reduced to a coreset of its own first, in proportion. The
    coreset of these coresets then covers all patches within the sum of the two radii (triangle inequality). Images are
    reduced one by one so that none has a say in what is kept of another: folds stay apart.

    Raises:
        UserError: none is good.
    """
    by_id = splits.set_index("image_id")
    chosen = []
    absent = 0
    for file in files:
        for i, item in enumerate(file.items):
            source = item["copy_of"] or item["image_id"]
            if source not in by_id.index:  # left out by ingest, as the second of two equal files
                continue
            row = by_id.loc[source]
            if row["label"] != 0 or row["detection"] not in ("fold", "train") or item["kind"] == "perturbed":
                continue
            if not file.present[i]:
                absent += 1
                continue
            chosen.append((item["image_id"], file, i, source, row["fold"], row["group_fold"], bool(item["copy_of"])))
    if not chosen:
        raise UserError("fit: no good image to learn from (label good images 0 in the labels file)")
    chosen.sort(key=lambda entry: entry[0])  # the banks do not depend on the number of shards
    counts = [file.count(i) for _, file, i, *_ in chosen]
    available = sum(counts)
    if max_patches and available > max_patches and files[0].config["backbone"] != PIXELS:
        counts = [max(1, count * max_patches // available) for count in counts]

    def read(entry: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        (_, file, i, *_), count = entry
        patches, position = file.patches(i), file.position(i)
        if count < len(patches):
            kept = k_center_greedy(patches, count, seed=seed, progress=False)
            patches, position = patches[kept], position[kept]
        return patches, position

    patches = torch.empty(sum(counts), files[0].dimensions)
    position = torch.empty(len(patches), dtype=torch.int64)
    begin = 0
    for part, places in tqdm(in_threads(read, zip(chosen, counts, strict=True)), total=len(chosen), desc="read"):
        patches[begin : begin + len(part)] = part
        position[begin : begin + len(part)] = places
        begin += len(part)
    owner = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
    images = pd.DataFrame([entry[3:] for entry in chosen], columns=["image_id", "fold", "group_fold", "is_copy"])
    return GoodPatches(patches, position, owner, images, absent, available)


def bank_members(images: pd.DataFrame, splits: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of ``images`` that each bank is made of: "all", "fold/<f>" and "group/<g>", bool (images,).

    Raises:
        UserError: nothing is left for a bank.
    """
    scored = splits[splits["detection"] == "fold"]
    members = {"all": np.ones(len(images), dtype=bool)}
    for protocol, column in (("fold", "fold"), ("group", "group_fold")):
        for fold in sorted(set(scored[column]) - {""}):
            kept = (images[column] != fold).to_numpy()
            if not kept.any():
                raise UserError(
                    f"fit: without {protocol} {fold!r} no good image is left to learn from (label more good images, "
                    "or choose folds=leave_one_out)"
                )
            members[f"{protocol}/{fold}"] = kept
    return members


def mean_by_position(patches: torch.Tensor, position: torch.Tensor, cells: int) -> torch.Tensor:
    """Mean patch of each of ``cells`` positions of the grid, float32 (cells, d)."""
    total = torch.zeros(cells, patches.shape[1], dtype=torch.float64).index_add_(0, position, patches.double())
    count = torch.bincount(position, minlength=cells)
    return (total / count[:, None]).float()


def bank_seed(seed: int, name: str) -> int:
    """Seed of one bank, so that a bank does not depend on which others there are."""
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:8], 16)


def main(args: argparse.Namespace) -> None:
    """Write the banks and fit.json."""
    if not 0 < args.coreset_ratio <= 1:
        raise UserError(f"--coreset-ratio {args.coreset_ratio}: must be above 0 and at most 1")
    torch.set_num_threads(args.threads)
    splits = tables.read_table(args.splits, tables.SPLITS)
    files = open_patches(args.features)
    config = {key: value for key, value in files[0].config.items() if key != "items"}
    pixels = config["backbone"] == PIXELS
    good = load_good(files, splits, args.max_patches, args.seed)
    members = bank_members(good.images, splits)
    device = pick_device(args.device)
    projected = None if pixels else project(good.patches.to(device), args.projection, args.seed)

    banks: dict[str, torch.Tensor] = {}
    summary: dict[str, dict[str, int]] = {}
    for name, kept in tqdm(members.items(), desc="fit", unit="bank"):
        own = rows = torch.tensor(kept)[good.owner].nonzero()[:, 0]
        if pixels:
            cells = config["grid"][0] * config["grid"][1]
            banks[name] = mean_by_position(good.patches[rows], good.position[rows], cells)
        else:
            size = coreset_size(len(rows), args.coreset_ratio, args.coreset_max)
            if size < len(rows):
                candidates = projected if len(rows) == len(projected) else projected[rows.to(device)]
                rows = rows[k_center_greedy(candidates, size, seed=bank_seed(args.seed, name))]
            banks[name] = good.patches[rows]
            if args.bank == "pca_float16":
                subspace = Subspace.of(good.patches[own], seed=args.seed)
                banks[name] = subspace.project(banks[name])
                banks[f"{name}/mean"], banks[f"{name}/axes"] = subspace
            if args.bank != "float32":
                banks[name] = banks[name].half()
        patches = int(kept[good.owner.numpy()].sum())
        summary[name] = {"images": int(kept.sum()), "patches": patches, "size": len(banks[name])}
        summary[name]["dimensions"] = banks[name].shape[1]

    metadata = {**config, "method": "pixel_difference" if pixels else "patchcore"}
    with atomic(args.out) as temporary:
        save_file(banks, temporary, metadata={"defectflow": json.dumps(metadata)})
    write_json(
        args.report,
        {
            **metadata,
            "dimensions": files[0].dimensions,
            "good_images": int((~good.images["is_copy"]).sum()),
            "augmented_copies": int(good.images["is_copy"].sum()),
            "good_images_without_part": good.absent,
            "patches_available": good.available,
            "patches_read": len(good.patches),
            "coreset_ratio": args.coreset_ratio,
            "coreset_max": args.coreset_max,
            "projection": args.projection,
            "bank": args.bank,
            "seed": args.seed,
            "banks": summary,
        },
    )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.fit", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--splits", required=True, help="SPLITS table")
    parser.add_argument("--coreset-ratio", type=float, default=1.0, help="share of the patches kept (%(default)s)")
    parser.add_argument("--coreset-max", type=int, default=10000, help="patches kept at most (%(default)s)")
    parser.add_argument(
        "--max-patches", type=int, default=2_000_000, help="reduce each image first if there are more (%(default)s)"
    )
    parser.add_argument("--bank", choices=BANKS, default="float32", help="how banks are stored (default: %(default)s)")
    parser.add_argument("--projection", choices=PROJECTIONS, default="random", help="before selection (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="banks (.safetensors)")
    parser.add_argument("--report", required=True, help="fit.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
