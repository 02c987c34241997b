"""Scores to choose thresholds on in cross-validation, by banks that hold nothing of the images to be judged.

The threshold by which a fold is judged is chosen on the images of the other folds. Their own scores will not do: the
banks behind them hold the good images of the fold to be judged. Here each of these images is scored once more, by a
bank without its own fold and without the fold to be judged. Nested cross-validation: S. Varma, R. Simon, Bias in error
estimation when using cross-validation for model selection, 2006.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from tqdm import tqdm

from defectflow import tables
from defectflow.detector import Detector, FitOptions, ScoreOptions, add_score_options, score_options
from defectflow.detectors import METHODS
from defectflow.files import stage
from defectflow.learning import add_options, bank_seed, load_good, options_of
from defectflow.patch_files import PatchFile, open_patches
from defectflow.threads import in_threads

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


def calibration_scores(
    files: Sequence[PatchFile],
    splits: pd.DataFrame,
    method: type[Detector],
    options: FitOptions,
    scoring: ScoreOptions,
) -> pd.DataFrame:
    """Score every labelled image of cross-validation for every other fold.

    Args:
        files: patch files of all shards.
        splits: columns SPLITS.
        method, options, scoring: as the stages fit and score have them.

    Returns:
        Columns CALIBRATION; empty where no labelled image is both learned from and judged. Where two folds hold all
        good images, leaving out both leaves nothing to learn from: no row.
    """
    judged_images = splits[splits["detection"] == "fold"]
    rows: list[tuple[str, str, str, float]] = []
    if len(judged_images):
        device = torch.device(options.device)
        good = load_good(files, splits, method, options)
        fit = method.fit(good, options)
        settings = {**files[0].config, **method.settings(options)}
        places = {item["image_id"]: (file, i) for file in files for i, item in enumerate(file.items)}
        plans = [
            (protocol, column, without, parts)
            for protocol, column in PROTOCOLS.items()
            for without, parts in inner_parts(set(judged_images[column]) - {""}).items()
        ]
        for protocol, column, without, parts in tqdm(plans, desc="calibrate", unit="bank"):
            kept = torch.tensor(~good.images[column].isin(without).to_numpy())
            if not kept.any():
                continue
            name = f"{protocol}/{'+'.join(sorted(without, key=int))}"
            detector = method(fit(kept, bank_seed(options.seed, name)), settings, scoring)

            def score(image_id: str, detector: Detector = detector) -> tuple[str, float]:
                file, item = places[image_id]
                return image_id, detector.judge(file.patches(item).to(device), file.position(item).to(device))[0]

            scored = judged_images[judged_images[column].isin(set().union(*(part for _, part in parts)))]
            fold_of = dict(zip(scored["image_id"], scored[column], strict=True))
            found = in_threads(score, fold_of) if device.type == "cpu" else map(score, fold_of)
            for image_id, value in found:
                rows += [(protocol, judged, image_id, value) for judged, part in parts if fold_of[image_id] in part]
    return pd.DataFrame(rows, columns=tables.CALIBRATION).sort_values(tables.CALIBRATION[:3])


def main(args: argparse.Namespace) -> None:
    """Write the table of scores."""
    options, scoring = options_of(args), score_options(args)
    torch.set_num_threads(args.threads)
    splits = tables.read_table(args.splits, tables.SPLITS)
    table = calibration_scores(open_patches(args.features), splits, METHODS[args.method], options, scoring)
    tables.write_table(args.out, table, tables.CALIBRATION)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.calibrate", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--splits", required=True, help="SPLITS table")
    add_options(parser)
    add_score_options(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="CALIBRATION table to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
