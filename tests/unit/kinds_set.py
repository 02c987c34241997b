"""Patch files and a manifest of a made-up set of kinds: each kind moves a few patches in its own direction."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from defectflow.classification.describe import describe
from defectflow.classification.descriptor_files import Descriptors
from defectflow.classification.kind_folds import sample
from defectflow.core import tables
from defectflow.detection.feature_files import open_patches, write_patches

GRID, DIMENSIONS = (6, 6), 16


def manifest_of(counts: dict[str, int], unlabelled: int = 0, burst: int = 1) -> pd.DataFrame:
    """So many photographs of each class, in groups of ``burst`` photographs of one class; 1: without groups."""
    rows = []
    for name, count in counts.items():
        for k in range(count):
            group = f"{name} {k // burst}" if burst > 1 else ""
            rows.append((f"{name}-{k:02d}", group, float(name != "good"), "" if name == "good" else name))
    rows += [(f"new-{k:02d}", "", np.nan, "") for k in range(unlabelled)]
    table = pd.DataFrame(rows, columns=["image_id", "group", "label", "defect_type"])
    return table.assign(path="photos/" + table["image_id"] + ".png").reindex(columns=tables.MANIFEST, fill_value="")


def patches_of(image_id: str, strength: float = 3.0) -> torch.Tensor:
    """Patches of a photograph; new ones are like the first kind, a."""
    kind = image_id.split("-")[0].replace("new", "a")
    generator = torch.Generator().manual_seed(sum(ord(c) * 31**i for i, c in enumerate(image_id)) % 2**31)
    patches = torch.randn(GRID[0] * GRID[1], DIMENSIONS, generator=generator)
    if kind != "good":
        direction = torch.randn(DIMENSIONS, generator=torch.Generator().manual_seed(sum(map(ord, kind))))
        at = torch.randperm(len(patches), generator=generator)[:6]
        patches[at] += strength * direction
    return patches


def write_set(folder: Path, manifest: pd.DataFrame, strength: float = 3.0) -> tuple[Path, Path]:
    """Write manifest.csv and a patch file; returns their paths."""
    tables.write_table(folder / "manifest.csv", manifest, tables.MANIFEST)
    items = [{"image_id": name, "copy_of": "", "kind": "", "doubtful": False} for name in manifest["image_id"]]
    config = {
        "backbone": "test", "trained": True, "layers": ["a"], "grid": list(GRID), "input_size": [48, 48],
        "items": [{**item, "window": [0, 0, 48, 48], "frame": [48, 48]} for item in items],
    }  # fmt: skip
    with write_patches(folder / "0.safetensors", config, DIMENSIONS) as writer:
        for name in manifest["image_id"]:
            writer.add(patches_of(name, strength), np.arange(GRID[0] * GRID[1]), np.eye(2, 3), True)
    return folder / "manifest.csv", folder / "0.safetensors"


def described(folder: Path, manifest: pd.DataFrame, strength: float = 3.0) -> Descriptors:
    """The descriptors of a set."""
    folder.mkdir(exist_ok=True, parents=True)
    _, patches = write_set(folder, manifest, strength)
    chosen = sample(manifest, 0)
    held_out, every, items = describe(open_patches([patches]), manifest, chosen, 0)
    about = {
        "network": {"backbone": "test", "trained": True, "layers": ["a"], "input_size": [48, 48]},
        "unit": chosen.unit, "left_out": chosen.left_out, "unnamed": chosen.unnamed,
    }  # fmt: skip
    return Descriptors(held_out.numpy(), every.numpy(), items, about)
