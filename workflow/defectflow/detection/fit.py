"""Memory banks: one of all good images, and one for each fold without the images of that fold.

The bank of all is for inspectors too; those of the folds are read by the score stage alone, and may go into a file of
their own.
"""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.bank_files import by_row
from defectflow.core.device import pick_device
from defectflow.core.files import UserError, atomic, stage, write_json
from defectflow.core.kept_memory import keep_memory
from defectflow.core.parallel import in_forks
from defectflow.detection.feature_files import open_patches
from defectflow.detection.training_patches import by_forks, learner, leaving_out, load_good, trainings_beside
from defectflow.methods.method_settings import METHODS
from defectflow.methods.registry import detector_class


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


def main(args: argparse.Namespace) -> None:
    """Write the banks and fit.json."""
    settings, device = read_settings(args.settings, METHODS, "fit"), pick_device(args.device)
    torch.set_num_threads(args.threads)
    keep_memory()
    splits = tables.read_table(args.splits, tables.SPLITS, lambda part: part["detection"] != "unlabelled")
    splits = leaving_out(splits, args.leave_out)
    files = open_patches(args.features)
    method = detector_class(settings.name)
    good = load_good(files, splits, method, settings, args.seed)
    members = bank_members(good.images, splits)
    trainings = trainings_beside(args.out)
    fit = learner(method, good, settings, args.seed, device, trainings)

    def learn(name: str) -> dict[str, np.ndarray]:
        tensors = fit(torch.tensor(members[name]))
        return {key: tensor.numpy() for key, tensor in tensors.items()}

    banks: dict[str, np.ndarray] = {}
    summary: dict[str, dict[str, int]] = {}
    forked = method.forks and by_forks(good, device, len(members))
    learned = in_forks(learn, members) if forked else map(learn, members)
    bar = tqdm(learned, total=len(members), desc="fit", unit="bank")
    for (name, kept), arrays in zip(members.items(), bar, strict=True):
        banks |= {f"{name}/{key}" if key else name: array for key, array in arrays.items()}
        summary[name] = {
            "images": int(kept.sum()),
            "patches": len(good.rows(torch.tensor(kept))),
            "size": method.size(arrays),
            "dimensions": arrays[""].shape[1],
        }

    metadata = {**files[0].config, "method": settings.name, **method.metadata(settings)}
    apart = {key for key in banks if args.fold_banks and not f"{key}/".startswith("all/")}
    for path, keys in ((args.fold_banks, apart), (args.out, banks.keys() - apart)):
        if path:
            with atomic(path) as temporary:
                some, about = {key: banks[key] for key in banks if key in keys}, {"defectflow": json.dumps(metadata)}
                if path == args.fold_banks:
                    some, more = by_row(some, {key: banks[key] for key in banks.keys() - apart})
                    about |= more
                save_file(some, temporary, metadata=about)
    write_json(
        args.report,
        {
            **metadata,
            "dimensions": files[0].dimensions,
            "good_images": int((~good.images["is_copy"]).sum()),
            "augmented_copies": int(good.images["is_copy"].sum()),
            "good_images_without_part": good.absent,
            "good_images_with_doubtful_mask": good.doubtful,
            "patches_available": good.available,
            "patches_read": len(good.patches),
            **settings.read_by("fit"),
            "seed": args.seed,
            "banks": summary,
        },
    )
    shutil.rmtree(trainings, ignore_errors=True)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.fit", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--splits", required=True, help="SPLITS table")
    parser.add_argument("--leave-out", metavar="candidates.csv", help="table of images that are not learned from")
    add_settings(parser, METHODS, "fit")
    add_threads(parser)
    add_device(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="banks (.safetensors)")
    parser.add_argument("--fold-banks", help="file for the banks of the folds (default: with the bank of all)")
    parser.add_argument("--report", required=True, help="fit.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
