"""Anomaly scores and maps of the images of one shard."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.anomaly_maps import grid_map, save_maps
from defectflow.core.arguments import add_device, add_threads
from defectflow.core.bank_files import BankFile
from defectflow.core.device import pick_device
from defectflow.core.files import UserError, stage
from defectflow.core.parallel import in_threads
from defectflow.detection.feature_files import PatchFile
from defectflow.methods.detector import Detector
from defectflow.methods.method_settings import METHODS, MethodSettings
from defectflow.methods.registry import detector_class


@dataclass(frozen=True)
class Task:
    """One image to score.

    Attributes:
        item: its index in the patch file.
        bank: name of its bank.
        group_bank: name of the bank of the second protocol, "" where it has none.
    """

    item: int
    bank: str
    group_bank: str


def plan(items: Sequence[Mapping[str, Any]], splits: pd.DataFrame) -> list[Task]:
    """Which image is scored with which bank: never with one that holds the image itself or a copy of it.

    Augmented copies and images of a fixed training side are not scored; a perturbed copy has the bank of its source.

    Args:
        items: of a patch file.
        splits: columns SPLITS; images that are not in it are left out.
    """
    by_id = splits.set_index("image_id")
    tasks = []
    for i, item in enumerate(items):
        source = item["copy_of"] or item["image_id"]
        if source not in by_id.index:  # left out by ingest, as the second of two equal files
            continue
        row = by_id.loc[source]
        if item["kind"] == "augmented" or row["detection"] == "train":
            continue
        if row["detection"] == "fold":
            group_bank = f"group/{row['group_fold']}" if row["group_fold"] else ""
            tasks.append(Task(i, f"fold/{row['fold']}", group_bank))
        else:
            tasks.append(Task(i, "all", ""))
    return tasks


class Banks:
    """The banks of a fit as detectors, each read when it is asked for.

    Raises:
        UserError: the file is absent or is not a bank file, or was fitted by another method or on features made with
            other settings.
    """

    def __init__(
        self,
        path: str | Path,
        config: dict[str, Any],
        settings: MethodSettings,
        device: torch.device,
        fold_banks: str | Path | None = None,
    ) -> None:
        self._all = BankFile(path, "pt")
        self._folds = BankFile(fold_banks, "pt", self._all) if fold_banks else self._all
        metadata = self._all.settings
        if metadata != self._folds.settings:
            raise UserError(f"{fold_banks}: belongs to other banks than {path} (fit again)")
        if metadata["method"] != settings.name:
            raise UserError(f"{path}: fitted by {metadata['method']}, not by {settings.name} (fit again)")
        for key in sorted(config):
            if metadata.get(key) != config[key]:
                raise UserError(
                    f"{path}: fitted with {key} {metadata.get(key)}, the features have {config[key]} (fit again)"
                )
        self._device, self._settings, self._metadata = device, settings, metadata

    def __getitem__(self, name: str) -> Detector:
        file = self._all if name == "all" else self._folds
        tensors = {part: tensor.to(self._device) for part, tensor in file.tensors(name).items()}
        return detector_class(self._settings.name)(tensors, self._metadata, self._settings)


def main(args: argparse.Namespace) -> None:
    """Write the score table and the map file of a shard."""
    settings = read_settings(args.settings, METHODS, "score")
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    file = PatchFile(args.features)
    items, affine = file.items, file.affine
    sources = {item["copy_of"] or item["image_id"] for item in items}
    tasks = plan(items, tables.read_table(args.splits, tables.SPLITS, lambda part: part["image_id"].isin(sources)))
    banks = Banks(args.banks, file.config, settings, device, args.fold_banks)
    grid = tuple(file.config["grid"])

    scores: dict[tuple[int, str], float] = {}
    maps: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    wanted = [(task.bank, task.item) for task in tasks] + [(t.group_bank, t.item) for t in tasks if t.group_bank]
    with tqdm(total=len(wanted), desc="score", unit="image") as bar:
        for name in sorted({name for name, _ in wanted}):
            detector = banks[name]

            def score(item: int, detector: Detector = detector) -> tuple[int, float, torch.Tensor]:
                return item, *detector.judge(file.patches(item).to(device), file.position(item).to(device))

            own = [item for other, item in wanted if other == name]
            for item, value, distances in in_threads(score, own) if device.type == "cpu" else map(score, own):
                scores[item, name] = value
                if not name.startswith("group/") and not items[item]["copy_of"]:
                    heat = grid_map(distances.cpu().numpy(), file.position(item).numpy(), grid)
                    maps[items[item]["image_id"]] = heat, affine[item]
                bar.update()

    rows = []
    for task in tasks:
        judged = items[task.item]
        group_score = scores[task.item, task.group_bank] if task.group_bank else math.nan
        rows.append(
            [judged["image_id"], judged["copy_of"], judged["kind"], task.bank, scores[task.item, task.bank],
             task.group_bank, group_score]
        )  # fmt: skip
    save_maps(args.maps, maps, file.config["input_size"], file.config.get("sigma"))
    tables.write_table(args.scores, pd.DataFrame(rows, columns=tables.SCORES), tables.SCORES)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.score", description=__doc__)
    parser.add_argument("--features", required=True, help="patch file of the shard")
    parser.add_argument("--banks", required=True, help="banks of the fit stage")
    parser.add_argument("--fold-banks", help="its file with the banks of the folds, if they have one of their own")
    parser.add_argument("--splits", required=True, help="SPLITS table")
    add_settings(parser, METHODS, "score")
    add_threads(parser)
    add_device(parser)
    parser.add_argument("--scores", required=True, help="SCORES table to write")
    parser.add_argument("--maps", required=True, help="map file to write (.safetensors)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
