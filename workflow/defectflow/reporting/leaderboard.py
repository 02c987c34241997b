"""Stage leaderboard: several runs on the same photographs side by side, best AUROC first, as a table and as a page.

Each run is compared with the best one on the photographs that both have scored held out, which shows differences that
two separate intervals cannot. The page also shows the results of other thresholds on the scores of the main run, the
first.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.core.arguments import add_seed
from defectflow.core.files import UserError, read_json, stage
from defectflow.core.tables import (
    CALIBRATION,
    LEADERBOARD,
    PREDICTIONS,
    RECIPE,
    SPLITS,
    read_table,
    recipe_of,
    write_table,
)
from defectflow.decision.decisions import is_evaluated, with_calibration
from defectflow.evaluation.image_metrics import units_of
from defectflow.evaluation.threshold_comparison import alternatives
from defectflow.metrics.bootstrap import Difference, paired_bootstrap, weighted_auroc, weighted_f1
from defectflow.reporting.html_pages import rule, write_page


def held_out_iou(segmentation: dict[str, Any]) -> float | None:
    """Mean held-out IoU of the segmenter that made most of a run's masks; None if it was not measured."""
    sources = segmentation.get("masks", {}).get("sources", {})
    if not sources:
        return None
    source = max(sorted(sources), key=lambda name: sources[name])
    for report in (segmentation.get("train", {}), segmentation.get("prior", {})):
        if isinstance(entry := report.get(source), dict) and entry.get("iou_mean") is not None:
            iou: float = entry["iou_mean"]
            return iou
    return None


def row_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of one metrics.json in the columns of the leaderboard; pixel figures are those of the full
    frame, the only ones that runs with and without masks have in common.
    """
    pixel, image, spans = metrics["pixel"]["full_frame"] or {}, metrics["image"], metrics["confidence_intervals"]
    threshold, review = metrics["threshold"], metrics["review"] or {}
    row = {
        **{key: metrics[key] for key in ("auroc", "f1", "accuracy", "precision", "recall", "n_samples")},
        **{key: image[key] for key in ("average_precision", "false_positive_rate")},
        **{key: review.get(key) for key in ("share_reviewed", "missed_left", "false_alarms_left")},
        "held_out_iou": held_out_iou(metrics["segmentation"]),
        "group_out_auroc": image.get("leave_group_out", {}).get("auroc"),
        "pixel_auroc": pixel.get("auroc"),
        "au_pro": pixel.get("au_pro"),
        "strategy": rule(threshold["strategy"], threshold["options"]),
        "threshold": threshold["value"],
    }
    for key in ("auroc", "recall", "false_positive_rate"):
        row[f"{key}_low"], row[f"{key}_high"] = spans[key] or (None, None)
    return row


def with_folds(predictions: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Predictions with fold and group for `decisions.assign_verdicts`; an image without a group is its own."""
    table = predictions.merge(splits[["image_id", "group", "fold"]], on="image_id", how="left")
    table[["group", "fold"]] = table[["group", "fold"]].fillna("")
    table["group"] = table["group"].where(table["group"] != "", table["image_id"])
    return table.assign(detection=table["split"])


def compared(best: pd.DataFrame, other: pd.DataFrame, seed: int) -> dict[str, Difference | None]:
    """AUROC and F1 of ``other`` minus those of ``best`` on the images evaluated in both (see :func:`with_folds`)."""
    columns = ["image_id", "raw_score", "predicted_label"]
    shared = best[is_evaluated(best)].merge(
        other.loc[is_evaluated(other), columns], on="image_id", suffixes=("", "_other")
    )
    found = {}
    for name, figure, column in (("auroc", weighted_auroc, "raw_score"), ("f1", weighted_f1, "predicted_label")):
        both = shared.dropna(subset=[column, f"{column}_other"])
        labels, units = both["label"].to_numpy(int), units_of(both)[1]
        found[name] = paired_bootstrap(figure, labels, both[column], both[f"{column}_other"], units, seed)
    return found


def columns_of(differences: dict[str, Difference | None]) -> dict[str, float]:
    """Paired differences in the columns of the leaderboard."""
    return {
        f"{name}_difference{end}": getattr(difference, field)
        for name, difference in differences.items()
        if difference is not None
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high"), ("_p", "p"))
    }


def ranking(runs: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Runs (recipe, metrics, table, main) with row and differences from the best, in order of AUROC, unknown last."""
    for run in runs:
        recipe = dict(zip(RECIPE, run["recipe"], strict=True))
        run["row"] = {**recipe, "main": int(run["main"]), **row_of(run["metrics"])}
    order = sorted(runs, key=lambda run: (run["row"]["auroc"] is None, -(run["row"]["auroc"] or 0), run["recipe"]))
    for run in order[1:]:
        run["differences"] = compared(order[0]["table"], run["table"], seed)
        run["row"] |= columns_of(run["differences"])
    return order


def main(args: argparse.Namespace) -> None:
    """Read every run, compare, write the table and the page."""
    if len(args.metrics) != len(args.predictions):
        raise UserError("--metrics, --predictions: one of each for every run, in the same order")
    splits = read_table(args.splits, SPLITS, lambda part: part["detection"] != "unlabelled")
    runs = []
    for path, predictions in zip(args.metrics, args.predictions, strict=True):
        recipe = recipe_of(path)
        labelled = read_table(predictions, PREDICTIONS, lambda part: part["label"].notna())
        metrics, table = read_json(path), with_folds(labelled, splits)
        runs.append({"recipe": recipe, "metrics": metrics, "table": table, "main": path == args.metrics[0]})
        try:
            row_of(metrics)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a metrics file of the evaluate stage ({error})") from None
    first = runs[0]
    if args.calibration and len(first["table"]):
        first["table"] = with_calibration(first["table"], read_table(args.calibration, CALIBRATION))
    order = ranking(runs, args.seed)
    table = pd.DataFrame([run["row"] for run in order], columns=LEADERBOARD).replace({None: np.nan})
    write_table(args.table, table, LEADERBOARD)
    threshold = first["metrics"]["threshold"]
    # Chosen on photographs without a label, it is none that the labelled ones, which alone are here, can give.
    by_labels = first["metrics"].get("assumed", {}).get("threshold_from", "labels") == "labels"
    others = (
        alternatives(first["table"], threshold["strategy"], threshold["options"], args.seed)
        if threshold["value"] is not None and len(first["table"]) and by_labels
        else []
    )
    write_page(args.page, "leaderboard.html", runs=order, main=first, alternatives=others)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.reporting.leaderboard", description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each run, main first")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="predictions.csv of each run")
    parser.add_argument("--calibration", type=Path, help="table of the calibrate stage of the first run")
    parser.add_argument("--splits", type=Path, required=True, help="splits.csv of the data set: groups and folds")
    add_seed(parser, "for the bootstrap")
    parser.add_argument("--table", type=Path, required=True, help="leaderboard.csv to write")
    parser.add_argument("--page", type=Path, required=True, help="leaderboard.html to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
