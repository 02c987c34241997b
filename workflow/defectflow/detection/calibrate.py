"""Scores and maps to choose thresholds on in cross-validation, by banks that hold nothing of the images to be judged.

The threshold by which a fold is judged is chosen on the images of the other folds. Their own scores will not do: the
banks behind them hold the good images of the fold to be judged. Here each of these images is scored once more, by a
bank without its own fold and without the fold to be judged. Nested cross-validation: S. Varma, R. Simon, Bias in error
estimation when using cross-validation for model selection, 2006.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.anomaly_maps import grid_map, write_maps
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.device import pick_device
from defectflow.core.files import stage
from defectflow.core.kept_memory import keep_memory
from defectflow.core.parallel import in_forks, in_threads
from defectflow.detection.feature_files import PatchFile, open_patches
from defectflow.detection.training_patches import by_forks, learner, leaving_out, load_good, trainings_beside
from defectflow.methods.detector import Detector, GoodPatches
from defectflow.methods.method_settings import METHODS
from defectflow.methods.registry import detector_class

PROTOCOLS = {"fold": "fold", "group": "group_fold"}  # and their columns in splits.csv
MOST_PAIRS = 12  # folds up to which every pair of them is left out: 66 banks
PARTS = 5  # otherwise: parts that the folds beside the judged one are left out in


def inner_parts(folds: Iterable[str]) -> dict[frozenset[str], list[tuple[str, frozenset[str]]]]:
    """Which banks calibrate which fold.

    Args:
        folds: names of the folds, numbers from 0 as text.

    Returns:
        {folds that a bank is without: [(fold to be judged, folds whose images the bank scores for that)]}. Two folds
        at a time, each pair for both of its folds; with more than MOST_PAIRS folds, one and a fifth of the others.
    """
    names = sorted(set(folds), key=int)
    banks: dict[frozenset[str], list[tuple[str, frozenset[str]]]] = {}
    for judged in names:
        others = [name for name in names if name != judged]
        count = len(others) if len(names) <= MOST_PAIRS else PARTS
        for part in (frozenset(others[k::count]) for k in range(count)):
            banks.setdefault(part | {judged}, []).append((judged, part))
    return banks


class Plan(NamedTuple):
    """A bank to calibrate with.

    Attributes:
        protocol: one of PROTOCOLS.
        kept: bool (images,), the good images that it learns from.
        judged: the images that it scores, each with the folds that its score is for.
    """

    protocol: str
    kept: torch.Tensor
    judged: dict[str, list[str]]


def plan(splits: pd.DataFrame, good: pd.DataFrame) -> list[Plan]:
    """The banks that score every labelled image of cross-validation for every other fold.

    Where two folds hold all good images, leaving out both leaves nothing to learn from: no bank.

    Args:
        splits: columns SPLITS.
        good: `GoodPatches.images`.
    """
    judged_images = splits[splits["detection"] == "fold"]
    plans = []
    for protocol, column in PROTOCOLS.items():
        for without, parts in inner_parts(set(judged_images[column]) - {""}).items():
            kept = torch.tensor(~good[column].isin(without).to_numpy())
            fold_of = zip(judged_images["image_id"], judged_images[column], strict=True)
            folds = {i: [fold for fold, part in parts if own in part] for i, own in fold_of}
            judged = {i: own for i, own in folds.items() if own}
            if kept.any():
                plans.append(Plan(protocol, kept, judged))
    return plans


class Scored(NamedTuple):
    """Score and map of an image, to choose the threshold of ``judged_fold`` on; the first four are CALIBRATION."""

    protocol: str
    judged_fold: str
    image_id: str
    raw_score: float
    grid_map: np.ndarray
    affine: np.ndarray


def score_all(
    plans: Sequence[Plan],
    files: Sequence[PatchFile],
    good: GoodPatches,
    method: type[Detector],
    settings: Any,
    seed: int = 0,
    device: str | torch.device = "cpu",
    trainings: Path | None = None,
) -> Iterator[Scored]:
    """Make each bank and yield what it says of its images.

    Args:
        plans: what :func:`plan` returned.
        files: patch files of all shards.
        good, method, settings, seed, device: as the stages fit and score have them.
        trainings: folder that an interrupted stage goes on from, where the method trains networks.
    """
    device = torch.device(device)
    fit, config = learner(method, good, settings, seed, device, trainings), files[0].config
    wanted = {image_id for own in plans for image_id in own.judged}
    items = ((file, i, item["image_id"]) for file in files for i, item in enumerate(file.items))
    places = {image_id: (file, i) for file, i, image_id in items if image_id in wanted}

    def judge(bank: Plan) -> Iterator[Scored]:
        tensors = fit(bank.kept)
        detector = method(tensors, {**config, **method.metadata(settings)}, settings)

        def score(image_id: str) -> tuple[str, float, np.ndarray, np.ndarray]:
            file, item = places[image_id]
            position = file.position(item)
            value, distances = detector.judge(file.patches(item).to(device), position.to(device))
            own = grid_map(distances.cpu().numpy(), position.numpy(), tuple(config["grid"]))
            return image_id, value, own, file.affine[item]

        for result in in_threads(score, bank.judged) if device.type == "cpu" else map(score, bank.judged):
            yield from (Scored(bank.protocol, fold, *result) for fold in bank.judged[result[0]])

    forked = method.forks and by_forks(good, device, len(plans))
    judged = in_forks(lambda bank: list(judge(bank)), plans) if forked else map(judge, plans)
    for scored in tqdm(judged, total=len(plans), desc="calibrate", unit="bank"):
        yield from scored


def main(args: argparse.Namespace) -> None:
    """Write the table of scores and the file of maps."""
    settings, device = read_settings(args.settings, METHODS, "fit", "score"), pick_device(args.device)
    method = detector_class(settings.name)
    torch.set_num_threads(args.threads)
    keep_memory()
    splits = tables.read_table(args.splits, tables.SPLITS, lambda part: part["detection"] != "unlabelled")
    splits = leaving_out(splits, args.leave_out)
    files = open_patches(args.features)
    config, plans, found = files[0].config, list[Plan](), iter(list[Scored]())
    if (splits["detection"] == "fold").any():
        good = load_good(files, splits, method, settings, args.seed)
        plans = plan(splits, good.images)
        found = score_all(plans, files, good, method, settings, args.seed, device, trainings_beside(args.out))
    banks = [bank.judged for bank in plans if bank.protocol == "fold"]  # no pixel is judged by the other protocol
    names = [f"{fold}/{image_id}" for judged in banks for image_id, folds in judged.items() for fold in folds]
    rows = []
    with write_maps(args.maps, names, config["input_size"], config["grid"], config.get("sigma")) as writer:
        for scored in found:
            rows.append(scored[:4])
            if scored.protocol == "fold":
                writer.add(scored.grid_map, scored.affine)
    table = pd.DataFrame(rows, columns=tables.CALIBRATION).sort_values(tables.CALIBRATION[:3])
    tables.write_table(args.out, table, tables.CALIBRATION)
    shutil.rmtree(trainings_beside(args.out), ignore_errors=True)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.calibrate", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--splits", required=True, help="SPLITS table")
    parser.add_argument("--leave-out", metavar="candidates.csv", help="table of images that are not learned from")
    add_settings(parser, METHODS, "fit", "score")
    add_threads(parser)
    add_device(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="CALIBRATION table to write")
    parser.add_argument("--maps", required=True, help="file of maps to write, named <fold>/<image_id> (.safetensors)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
