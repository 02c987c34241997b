"""Patch files, splits and banks of a tiny made-up data set, for the tests of fit and score."""

import numpy as np
import pandas as pd
import torch
from defectflow.core import tables
from defectflow.detection import fit
from defectflow.detection.feature_files import write_patches
from defectflow.methods.method_settings import METHODS
from settings_words import with_settings

GRID = (4, 5)
CELLS = GRID[0] * GRID[1]
DIMENSIONS = 6


def patches_of(name: str, bad: bool, pixels: bool) -> torch.Tensor:
    """All patches of an image; one of a bad image, number 7, is far from all others."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    patches = torch.rand(CELLS, 3 if pixels else DIMENSIONS, generator=generator)
    patches[7] += 5 * bad
    return patches


def write_shard(path, names, *, pixels=False, absent=(), doubtful=(), cells=None, coarser=()):
    """Write a patch file of images (name, copy_of, kind); ``bad`` in a name makes the image bad.

    ``coarser``: (height, width) of the grids of coarser scales, whose patches show no damage.
    """
    config = {
        "backbone": "pixels" if pixels else "test", "trained": False, "layers": ["a"], "precision": "float32",
        "grid": list(GRID), "fitted_size": [32, 40], "input_size": [32, 40], "foreground_only": True, "dilation": 0,
        "items": [
            {"image_id": n, "copy_of": c, "kind": k, "window": [0, 0, 40, 32], "frame": [32, 40]}
            | {"doubtful": n in doubtful}
            for n, c, k in names
        ],
    }  # fmt: skip
    if coarser:
        config["coarser"] = [{"reduction": 2 + k, "grid": list(grid)} for k, grid in enumerate(coarser)]
    kept = np.arange(CELLS) if cells is None else np.asarray(cells)
    more = sum(height * width for height, width in coarser)
    kept = np.concatenate([kept, CELLS + np.arange(more)])
    with write_patches(path, config, 3 if pixels else DIMENSIONS) as writer:
        for i, (name, _, _) in enumerate(names):
            affine = np.array([[1.0, 0, i], [0, 1, 0]])
            patches = torch.cat(
                [patches_of(name, "bad" in name, pixels), patches_of(f"{name} far", False, pixels)[:more]]
            )
            writer.add(patches[kept], kept, affine, name not in absent)
    return path


def write_splits(path, rows):
    """Write a SPLITS table of rows (image_id, label, detection, fold, group_fold)."""
    table = pd.DataFrame(rows, columns=["image_id", "label", "detection", "fold", "group_fold"])
    table["group"] = table["segmentation"] = ""
    tables.write_table(path, table, tables.SPLITS)
    return path


def run_fit(folder, features, splits, *extra, more=()):
    """Run the fit stage; returns the paths of the banks and of fit.json."""
    banks, report = folder / "banks.safetensors", folder / "fit.json"
    fit.main(
        fit.build_parser().parse_args(
            ["--features", *map(str, features), "--splits", str(splits), "--out", str(banks), "--report", str(report),
             "--threads", "2", "--device", "cpu", *more, *with_settings(extra, METHODS, "patchcore")]
        )
    )  # fmt: skip
    return banks, report
