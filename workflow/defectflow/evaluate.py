"""Stage evaluate: held-out scores in; thresholds, verdicts, metrics with their uncertainty and charts out.

Metrics come from raw scores of labelled images that were scored by a bank without them. The threshold an image is
judged by was chosen on the labelled images of the other folds; images without a label are judged by the threshold
chosen on all of them.

metrics.json (null: cannot be computed; ``meaning`` and ``note`` explain in the file itself):
    accuracy, precision, recall, f1, auroc, n_samples: the main figures, as in ``image``.
    threshold: strategy, options, value (for new images), folds (n, min, max).
    review: the review band and the errors it leaves, see ``verdicts.review_figures``; null without one.
    protocol: how images were held out, see ``protocols.protocol_of``.
    image: auroc, average_precision, counts, confusion_matrix, rates; leave_group_out: the same with whole groups apart.
    calibration_curve: bins of pred_score (low, high, n, n_bad, share_bad, interval).
    pixel: full_frame and in_part (auroc, au_pro, au_pro_0_05, aupimo, precision, recall, f1, f1_max, ...), n_images,
        map_threshold (value, rule, folds): the pixel threshold, see ``pixel_metrics.pixel_figures``.
    segmentation: prior.json or train.json, and which masks are absent or doubtful.
    by_defect: n, recall, auroc and mean scores of each defect type.
    confidence_intervals: Wilson intervals, and under ``bootstrap`` those of every figure, grouped where groups allow.
    baseline: what always giving the same answer reaches.
    robustness: perturbed copies together, and ``table`` by perturbation and strength; null without copies.
    warnings: what a reader has to know, most important first.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow import figures, thresholds
from defectflow.anomaly_maps import AnomalyMap, load_maps
from defectflow.cautions import warnings
from defectflow.files import UserError, atomic_dir, read_json, stage, write_json
from defectflow.image_metrics import calibration_curve, defect_figures, image_figures
from defectflow.pixel_metrics import pixel_figures
from defectflow.protocols import protocol_of
from defectflow.robustness import COLUMNS, robustness_figures, robustness_table
from defectflow.tables import CALIBRATION, MANIFEST, MASKS, PREDICTIONS, SCORES, SPLITS, read_table, write_table
from defectflow.verdicts import counted, gather, judge, predictions_of, review_figures


def segmentation_figures(paths: Sequence[Path], masks: pd.DataFrame) -> dict[str, Any]:
    """What prior.json and train.json say (by file stem, long histories left out), and the counts of flagged masks."""
    result: dict[str, Any] = {Path(path).stem: _without_history(read_json(path)) for path in paths}
    if len(masks):
        result["masks"] = {
            "n": len(masks),
            "sources": {k: int(v) for k, v in masks["source"].value_counts().sort_index().items()},
            "absent": sorted(masks.loc[masks["present"] == 0, "image_id"]),
            "doubtful": sorted(masks.loc[(masks["doubtful"] == 1) & (masks["present"] == 1), "image_id"]),
        }
    return result


def draw(folder: Path, table: pd.DataFrame, result: dict[str, Any]) -> None:
    """Write roc.png, precision_recall.png, score_histogram.png and confusion_matrix.png into ``folder``."""
    known = table[counted(table) & table["predicted_label"].notna()]
    labels, raw, image = known["label"].to_numpy(int), known["raw_score"].to_numpy(float), result["image"]
    area, span = image["auroc"], result["confidence_intervals"]["auroc"]
    name = f"held out: AUROC {area:.3f} [{span[0]:.2f}, {span[1]:.2f}]" if area is not None else ""
    other = {}
    grouped = known[known["group_out_score"].notna()]
    if grouped["label"].nunique() == 2:
        entry = f"whole groups held out: AUROC {image['leave_group_out']['auroc']:.3f}"
        other[entry] = (grouped["label"].to_numpy(int), grouped["group_out_score"].to_numpy(float))
    points = [(image["false_positive_rate"], image["recall"]), (image["recall"], image["precision"])]
    roc_point, pr_point = (None if None in point else point for point in points)
    figures.roc(folder / "roc.png", labels, raw, roc_point, name, other)
    precision = f"average precision {image['average_precision']:.3f}" if area is not None else ""
    figures.precision_recall(folder / "precision_recall.png", labels, raw, pr_point, precision)
    scored = table[table["raw_score"].notna()]
    kinds = [
        "unlabelled" if np.isnan(label) else "good" if label == 0 else kind or "bad"
        for label, kind in zip(scored["label"].to_numpy(float), scored["defect_type"], strict=True)
    ]
    folds = result["threshold"]["folds"]
    figures.score_histogram(
        folder / "score_histogram.png",
        scored["raw_score"].to_numpy(float),
        kinds,
        result["threshold"]["value"],
        (folds["min"], folds["max"]) if folds else None,
        (result["review"]["low"], result["review"]["high"]) if result["review"] else None,
    )
    figures.confusion_matrix(folder / "confusion_matrix.png", image["confusion_matrix"])


def evaluate(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    splits: pd.DataFrame,
    masks: pd.DataFrame,
    maps: Mapping[str, AnomalyMap],
    *,
    calibration_maps: Mapping[str, AnomalyMap] | None = None,
    segmentation: Sequence[Path] = (),
    fit: dict[str, Any] | None = None,
    strategy: str = "f1_adaptive",
    options: Mapping[str, float] | None = None,
    review: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Judge every row of a gathered table and measure; returns the judged table and the content of metrics.json."""
    table, overall, band = judge(table, strategy, options, review)
    pixel = pixel_figures(table, maps, masks, strategy, options or {}, calibration_maps)
    table = table.assign(map_threshold=pixel.thresholds)
    part = image_figures(table, strategy, options, seed)
    cuts = table.loc[counted(table) & table["threshold"].notna(), "threshold"]
    folds = table.loc[cuts.index, "fold"].nunique()
    image = part["image"]
    result = {
        **{key: image[key] for key in ("accuracy", "precision", "recall", "f1", "auroc")},
        "n_samples": part["n_samples"],
        "threshold": {
            "strategy": strategy,
            "options": dict(options or {}),
            "value": overall.value if overall else None,
            "folds": {"n": folds, "min": float(cuts.min()), "max": float(cuts.max())} if len(cuts) else None,
            "note": "value: chosen on all labelled images, for images without a label. Each labelled image is judged "
            "by the threshold chosen on the other folds, scored by banks that hold nothing of its own (folds: smallest "
            "and largest). Bad: raw_score >= threshold; "
            "with a review band, images between its limits go to a person whatever the verdict.",
        },
        "review": review_figures(table, band, review),
        "protocol": protocol_of(splits),
        "image": image,
        "calibration_curve": calibration_curve(table),
        "pixel": pixel.figures,
        "segmentation": segmentation_figures(segmentation, masks),
        "by_defect": defect_figures(table),
        "confidence_intervals": part["confidence_intervals"],
        "baseline": part["baseline"],
        "robustness": robustness_figures(table, scores),
    }
    result["warnings"] = warnings(table, result, fit or {})
    result = rounded(result)
    # What scores are compared with keeps all its digits.
    result["threshold"]["value"] = overall.value if overall else None
    result["pixel"]["map_threshold"] = pixel.figures["map_threshold"]
    if band:
        result["review"] |= {"low": band[0], "high": band[1]}
    return table, result


def rounded(value: Any) -> Any:
    """Floats to six significant digits, NaN to None, throughout a JSON value."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def numbers(flag: str, words: Sequence[str]) -> dict[str, float]:
    """{"alpha": 0.05} of ["alpha=0.05"], the options behind ``flag``."""
    result = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            result[name] = float(text)
        except ValueError:
            raise UserError(f"{flag}: {word!r} is not NAME=NUMBER") from None
    return result


def main(args: argparse.Namespace) -> None:
    """Read the tables, evaluate, write metrics.json, predictions.csv and the charts."""
    manifest = read_table(args.manifest, [column for column in MANIFEST if column not in ("sha256", "split")])
    splits = read_table(args.splits, SPLITS)
    scores = pd.concat([read_table(path, SCORES) for path in args.scores], ignore_index=True)
    calibration = read_table(args.calibration, CALIBRATION) if args.calibration else None
    tables = [read_table(path, MASKS) for path in args.masks]
    masks = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MASKS)
    strategy, *options = args.threshold
    review = numbers("--review", args.review) if args.review else None
    if review is not None and sorted(review) != ["max_fnr", "max_fpr"]:
        raise UserError("--review: give max_fpr=SHARE and max_fnr=SHARE")
    table, result = evaluate(
        gather(manifest, splits, scores, masks, calibration),
        scores,
        splits,
        masks,
        load_maps(args.maps),
        calibration_maps=load_maps([args.calibration_maps]) if args.calibration_maps else None,
        segmentation=args.segmentation,
        fit=read_json(args.fit) if args.fit else {},
        strategy=strategy,
        options=numbers("--threshold", options),
        review=review,
        seed=args.seed,
    )
    with atomic_dir(args.figures) as folder:
        draw(folder, table, result)
    write_table(args.predictions, predictions_of(table), PREDICTIONS)
    write_table(args.robustness, robustness_table(table, scores), COLUMNS)
    write_json(args.metrics, result)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.evaluate", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--splits", type=Path, required=True, help="splits.csv")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="tables of the score stage, every shard")
    parser.add_argument("--calibration", type=Path, help="table of the calibrate stage, for cross-validation")
    parser.add_argument("--calibration-maps", type=Path, help="maps of the calibrate stage, for cross-validation")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--segmentation", type=Path, nargs="*", default=[], help="prior.json, train.json")
    parser.add_argument("--fit", type=Path, help="fit.json")
    what = f"one of {', '.join(thresholds.STRATEGIES)}, then its options, e.g. youden max_fpr=0.1"
    parser.add_argument("--threshold", nargs="+", required=True, metavar=("STRATEGY", "OPTION=VALUE"), help=what)
    what = "e.g. max_fpr=0.01 max_fnr=0.02: shares of good and bad images that may be decided wrongly without a person"
    parser.add_argument("--review", nargs=2, metavar="CAP=SHARE", help=what)
    parser.add_argument("--seed", type=int, default=0, help="for the bootstrap")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json to write")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv to write")
    parser.add_argument("--robustness", type=Path, required=True, help="robustness.csv to write")
    parser.add_argument("--figures", type=Path, required=True, help="folder of charts to write")
    return parser


def _without_history(value: dict[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if not (isinstance(entry, list) and len(entry) > 20)}


if __name__ == "__main__":
    stage(main, build_parser())
