"""The charts of one run, for the folder figures/ and for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.decision.decisions import is_evaluated
from defectflow.drawing import histograms_and_curves as charts
from defectflow.drawing.chart_files import save_png
from defectflow.drawing.histograms_and_curves import Chart
from defectflow.metrics import intervals

ALWAYS = {"score_histogram": "no scored image"} | dict.fromkeys(
    ("roc", "precision_recall"), "needs good and bad images"
)


def charts_of(table: pd.DataFrame, new_scores: np.ndarray, metrics: Mapping[str, Any]) -> dict[str, Chart]:
    """The charts of a run by the names of their files; those that cannot be drawn are left out.

    Args:
        table: judged, of the labelled photographs; with ``group_out_score``, also the ROC curve with groups held out.
        new_scores: raw scores of those without a label.
        metrics: content of metrics.json.
    """
    image, threshold, review = metrics["image"], metrics["threshold"], metrics["review"]
    drawn = {"confusion_matrix": charts.confusion_matrix(image["confusion_matrix"])}
    scored = table[table["raw_score"].notna()]
    raw, label, value = scored["raw_score"].to_numpy(float), scored["label"], threshold["value"]
    folds = (threshold["folds"]["min"], threshold["folds"]["max"]) if threshold["folds"] else None
    band = (review["low"], review["high"]) if review else None
    if len(raw) or len(new_scores):
        scores = {"good": raw[label == 0], "bad": raw[label == 1], "no label": new_scores}
        drawn["score_histogram"] = charts.score_histogram(scores, value, folds, band)
    kinds = scored["defect_type"].where(scored["defect_type"] != "", "unspecified")
    bad = sorted(kinds[label == 1].unique())
    if bad:
        rows = [("good", raw[label == 0]), *((kind, raw[(label == 1) & (kinds == kind)]) for kind in bad)]
        drawn["scores_by_kind"] = charts.scores_by_kind([row for row in rows if len(row[1])], value, band)
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    if known["label"].nunique() == 2:
        points = [(image["false_positive_rate"], image["recall"]), (image["recall"], image["precision"])]
        roc, precision = (None if None in point else point for point in points)
        labels, held_out = known["label"].to_numpy(int), known["raw_score"].to_numpy(float)
        span = intervals.text(metrics["confidence_intervals"]["auroc"])
        curves = [(f"AUROC {image['auroc']:.3f} [{', '.join(span)}]", labels, held_out)]
        apart = known[known["group_out_score"].notna()] if "group_out_score" in known else known[:0]
        if apart["label"].nunique() == 2:
            name = f"whole groups held out: {image['leave_group_out']['auroc']:.3f}"
            curves.append((name, apart["label"].to_numpy(int), apart["group_out_score"].to_numpy(float)))
        drawn["roc"] = charts.roc(curves, roc)
        name = f"average precision {image['average_precision']:.3f}"
        drawn["precision_recall"] = charts.precision_recall(labels, held_out, precision, name)
    filled = [entry for entry in metrics.get("calibration_curve", {}).get("bins", []) if entry["n"]]
    if filled:
        drawn["calibration_curve"] = charts.calibration_curve(filled)
    return drawn


def draw(folder: Path, table: pd.DataFrame, new_scores: np.ndarray, metrics: Mapping[str, Any]) -> None:
    """Write the charts into ``folder``, which exists; see `charts_of`. Those of ALWAYS say why they cannot be drawn."""
    absent = {name: charts.notice(name.replace("_", " ").capitalize(), why) for name, why in ALWAYS.items()}
    for name, chart in (absent | charts_of(table, new_scores, metrics)).items():
        save_png(folder / f"{name}.png", chart)
