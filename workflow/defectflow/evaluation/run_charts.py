"""The charts of one run, as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.decision.decisions import (
    is_evaluated,
)
from defectflow.drawing import png_charts
from defectflow.metrics import intervals


def draw(folder: Path, table: pd.DataFrame, new_scores: np.ndarray, result: dict[str, Any]) -> None:
    """Write roc.png, precision_recall.png, score_histogram.png and confusion_matrix.png into ``folder``.

    Args:
        folder: it exists.
        table: judged, of the labelled images.
        new_scores: raw scores of the others.
        result: content of metrics.json.
    """
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    labels, raw, image = known["label"].to_numpy(int), known["raw_score"].to_numpy(float), result["image"]
    area, span = image["auroc"], result["confidence_intervals"]["auroc"]
    name = f"held out: AUROC {area:.3f} [{', '.join(intervals.text(span))}]" if area is not None else ""
    other = {}
    grouped = known[known["group_out_score"].notna()]
    if grouped["label"].nunique() == 2:
        entry = f"whole groups held out: AUROC {image['leave_group_out']['auroc']:.3f}"
        other[entry] = (grouped["label"].to_numpy(int), grouped["group_out_score"].to_numpy(float))
    points = [(image["false_positive_rate"], image["recall"]), (image["recall"], image["precision"])]
    roc_point, pr_point = (None if None in point else point for point in points)
    png_charts.roc(folder / "roc.png", labels, raw, roc_point, name, other)
    precision = f"average precision {image['average_precision']:.3f}" if area is not None else ""
    png_charts.precision_recall(folder / "precision_recall.png", labels, raw, pr_point, precision)
    scored = table[table["raw_score"].notna()]
    kinds = ["good" if row.label == 0 else row.defect_type or "bad" for row in scored.itertuples()]
    folds = result["threshold"]["folds"]
    png_charts.score_histogram(
        folder / "score_histogram.png",
        np.append(scored["raw_score"].to_numpy(float), new_scores),
        [*kinds, *["unlabelled"] * len(new_scores)],
        result["threshold"]["value"],
        (folds["min"], folds["max"]) if folds else None,
        (result["review"]["low"], result["review"]["high"]) if result["review"] else None,
    )
    png_charts.confusion_matrix(folder / "confusion_matrix.png", image["confusion_matrix"])
