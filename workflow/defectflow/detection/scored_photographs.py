"""Photographs of a run with the detector that scored each, for stages that draw what it saw; and the flags for them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from tqdm import tqdm

from defectflow.config.settings_flag import add_settings
from defectflow.core import tables
from defectflow.core.arguments import add_threads
from defectflow.core.bank_files import BankFile
from defectflow.detection.feature_files import PatchFile
from defectflow.methods.detector import Detector
from defectflow.methods.method_settings import METHODS, MethodSettings


class ScoredPhotograph(NamedTuple):
    """A photograph with the detector that scored it.

    Attributes:
        image_id: its name in all tables.
        file, item: where its patches are.
        grid: (rows, columns) of the patches.
        detector: of the bank that scored it.
    """

    image_id: str
    file: PatchFile
    item: int
    grid: tuple[int, int]
    detector: Detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `scored_photographs` reads, and those of the settings, the threads and the output."""
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--scores", nargs="+", required=True, help="their SCORES tables")
    parser.add_argument("--banks", required=True, help="banks of the fit stage")
    parser.add_argument("--fold-banks", required=True, help="its file with the banks of the folds")
    add_settings(parser, METHODS, "score")
    add_threads(parser)
    parser.add_argument("--out", required=True, help="folder to write")


def scored_photographs(
    args: argparse.Namespace, method: type[Detector], settings: MethodSettings
) -> Iterator[ScoredPhotograph]:
    """Every photograph that has a score, without copies; each bank is read once.

    Args:
        args: what `add_arguments` added.
        method, settings: of the detector.
    """
    detectors: dict[str, Detector] = {}
    for features, scores in zip(args.features, args.scores, strict=True):
        file, table = PatchFile(features), tables.read_table(scores, tables.SCORES)
        bank_of = table[table["copy_of"] == ""].set_index("image_id")["bank"]
        grid = tuple(file.config["grid"])
        for item, about in enumerate(tqdm(file.items, desc="draw", unit="image")):
            image_id = about["image_id"]
            if image_id not in bank_of.index:
                continue
            name = bank_of[image_id]
            if name not in detectors:
                banks = BankFile(args.banks, "pt")
                banks = banks if name == "all" else BankFile(args.fold_banks, "pt", banks)
                detectors[name] = method(banks.tensors(name), banks.settings, settings)
            yield ScoredPhotograph(image_id, file, item, grid, detectors[name])
