"""Metrics of an inspector's scores and verdicts, and Wilson's interval.

Labels are 1 (bad) or 0 (good); scores are raw anomaly scores, larger = more anomalous; an image is called bad when
``score >= threshold``. What cannot be computed is None, never NaN.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

CURVES = ("auroc", "average_precision")
RATES = ("accuracy", "precision", "recall", "f1", "false_positive_rate", "false_negative_rate")


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Area under the ROC curve, in [0, 1]; None unless both classes occur. Ties count one half.

    Args:
        labels: int [N], 1 bad and 0 good.
        scores: float [N], higher is worse.

    >>> float(auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.9])))
    0.875
    """
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, scores))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Average precision (step-wise area under the precision-recall curve); None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    if len(np.unique(labels)) < 2:
        return None
    return float(average_precision_score(labels, scores))


def confusion(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, int]:
    """Counts of true negatives, false positives, false negatives, true positives (positive = bad)."""
    bad, called = np.asarray(labels) == 1, np.asarray(predicted) == 1
    return {
        "true_negative": int((~bad & ~called).sum()),
        "false_positive": int((~bad & called).sum()),
        "false_negative": int((bad & ~called).sum()),
        "true_positive": int((bad & called).sum()),
    }


def rates(counts: dict[str, int]) -> dict[str, float | None]:
    """Rates in [0, 1] from `confusion`; a rate whose denominator is zero is None."""
    tn, fp, fn, tp = (counts[key] for key in ("true_negative", "false_positive", "false_negative", "true_positive"))
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tn + fp + fn + tp),
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "f1": ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "specificity": specificity,
        "false_positive_rate": ratio(fp, tn + fp),
        "false_negative_rate": ratio(fn, tp + fn),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
    }


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None when whole is 0."""
    return part / whole if whole else None


def wilson(successes: float, n: int, z: float = 1.959963984540054) -> list[float] | None:
    """Wilson score interval [low, high] of a proportion (95 % by default); None when n is 0.

    Source: E. B. Wilson, JASA 22 (1927).
    """
    if not n:
        return None
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return [0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half]


def rounded(value: Any) -> Any:
    """Floats to six significant digits, NaN to None, throughout a JSON value."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
