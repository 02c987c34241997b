"""Memory banks: one of all good images, and one for each fold without the images of that fold."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from defectflow import tables
from defectflow.coreset import PROJECTIONS
from defectflow.detector import BANKS, DISTANCES, Detector, FitOptions, GoodPatches
from defectflow.detectors import METHODS
from defectflow.device import pick_device
from defectflow.files import UserError, atomic, stage, write_json
from defectflow.patch_files import PatchFile, open_patches
from defectflow.threads import in_threads


def load_good(
    files: Sequence[PatchFile],
    splits: pd.DataFrame,
    method: type[Detector],
    options: FitOptions,
) -> GoodPatches:
    """Read the patches of the images that may be learned from, and of no others, as far as ``method`` keeps them.

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
    available = [file.count(i) for _, file, i, *_ in chosen]
    counts = method.counts(available, options)

    def read(entry: tuple) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (_, file, i, *_), count = entry
        whole = file.patches(i)
        return whole.mean(dim=0), *method.condense(whole, file.position(i), count, options)

    means = []
    patches = torch.empty(sum(counts), files[0].dimensions)
    position = torch.empty(len(patches), dtype=torch.int64)
    begin = 0
    for mean, part, places in tqdm(in_threads(read, zip(chosen, counts, strict=True)), total=len(chosen), desc="read"):
        patches[begin : begin + len(part)] = part
        position[begin : begin + len(part)] = places
        begin += len(part)
        means.append(mean)
    owner = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
    images = pd.DataFrame([entry[3:] for entry in chosen], columns=["image_id", "fold", "group_fold", "is_copy"])
    grid = tuple(files[0].config["grid"])
    return GoodPatches(patches, position, owner, images, absent, sum(available), torch.stack(means), grid)


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
    method = METHODS[args.method]
    options = FitOptions(
        **{field.name: getattr(args, field.name) for field in fields(FitOptions) if field.name != "device"},
        device=pick_device(args.device),
    )
    good = load_good(files, splits, method, options)
    members = bank_members(good.images, splits)
    fit = method.fit(good, options)

    banks: dict[str, torch.Tensor] = {}
    summary: dict[str, dict[str, int]] = {}
    for name, kept in tqdm(members.items(), desc="fit", unit="bank"):
        kept = torch.tensor(kept)
        tensors = fit(kept, bank_seed(args.seed, name))
        banks |= {f"{name}/{key}" if key else name: tensor for key, tensor in tensors.items()}
        size, dimensions = tensors[""].shape
        summary[name] = {
            "images": int(kept.sum()),
            "patches": len(good.rows(kept)),
            "size": size,
            "dimensions": dimensions,
        }

    metadata = {key: value for key, value in files[0].config.items() if key != "items"}
    metadata |= {"method": args.method, **method.settings(options)}
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
    parser.add_argument("--method", choices=METHODS, default="patchcore", help="(default: %(default)s)")
    parser.add_argument("--coreset-ratio", type=float, default=1.0, help="share of the patches kept (%(default)s)")
    parser.add_argument("--coreset-max", type=int, default=10000, help="patches kept at most (%(default)s)")
    parser.add_argument(
        "--max-patches", type=int, default=2_000_000, help="reduce each image first if there are more (%(default)s)"
    )
    parser.add_argument("--bank", choices=BANKS, default="float32", help="how banks are stored (default: %(default)s)")
    parser.add_argument("--distance", choices=DISTANCES, default="euclidean", help="(default: %(default)s)")
    parser.add_argument("--dimensions", type=int, default=100, help="of a patch that PaDiM draws (%(default)s)")
    parser.add_argument("--projection", choices=PROJECTIONS, default="random", help="before selection (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="banks (.safetensors)")
    parser.add_argument("--report", required=True, help="fit.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
