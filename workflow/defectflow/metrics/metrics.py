"""Figures of merit of an inspector's scores and verdicts, and how sure they are.

Labels are 1 (bad) or 0 (good); scores are raw anomaly scores, larger = more anomalous; an image is called bad when
``score >= threshold``. What cannot be computed is None, never NaN.
"""

import math
from collections.abc import Sequence

import numpy as np

CURVES = ("auroc", "average_precision")
RATES = ("accuracy", "precision", "recall", "f1", "false_positive_rate", "false_negative_rate")
KINDS_OF_UNIT = ((True, False), (False, True), (True, True))  # holds good images, holds bad ones


def auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, in [0, 1]; None unless both classes occur. Ties count one half."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, scores))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision (step-wise area under the precision-recall curve); None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    if len(np.unique(labels)) < 2:
        return None
    return float(average_precision_score(labels, scores))


def confusion(labels: np.ndarray, predicted: np.ndarray) -> dict[str, int]:
    """Counts of true negatives, false positives, false negatives, true positives (positive = bad)."""
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    return {
        "true_negative": int((~labels & ~predicted).sum()),
        "false_positive": int((~labels & predicted).sum()),
        "false_negative": int((labels & ~predicted).sum()),
        "true_positive": int((labels & predicted).sum()),
    }


def rates(counts: dict[str, int]) -> dict[str, float | None]:
    """Rates in [0, 1] from :func:`confusion`; a rate whose denominator is zero is None."""
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


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> list[float] | None:
    """Wilson score interval [low, high] of a proportion (95 % by default); None when n is 0.

    Source: E. B. Wilson, JASA 22 (1927).
    """
    if not n:
        return None
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return [0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half]


def bootstrap(
    labels: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    units: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, list[float] | None]:
    """Percentile intervals of every figure, from resampling whole units: images, or groups of them.

    Units of good images only, of bad ones only and of both are resampled apart, so that every resample has the classes
    that the data have. A figure that cannot be computed in a resample is left out there; without any it is None. The
    cost is O(resamples x N). Source: A. C. Davison, D. V. Hinkley, Bootstrap Methods (1997), sections 3.2 and 3.8.

    Args:
        labels, predicted: [N], 1 bad, 0 good.
        scores: float [N].
        units: [N], name of the unit of each image.

    Returns:
        [low, high] of auroc, average_precision, accuracy, precision, recall, f1, false_positive_rate,
        false_negative_rate and the four counts of :func:`confusion`.
    """
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    _, rank = np.unique(np.asarray(scores), return_inverse=True)
    size = int(rank.max(initial=-1)) + 1
    _, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    composition = np.bincount(unit, weights=~labels) > 0, np.bincount(unit, weights=labels) > 0
    strata = [np.flatnonzero((composition[0] == good) & (composition[1] == bad)) for good, bad in KINDS_OF_UNIT]
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {key: [] for key in (*CURVES, *RATES, *confusion([], []))}
    for _ in range(resamples if len(labels) else 0):
        chosen = [stratum[rng.integers(len(stratum), size=len(stratum))] for stratum in strata if len(stratum)]
        weight = np.bincount(np.concatenate(chosen), minlength=len(composition[0]))[unit]
        good, bad = (np.bincount(rank[side], weight[side], size).astype(np.int64) for side in (~labels, labels))
        counts = {
            "true_negative": int(weight[~labels & ~predicted].sum()),
            "false_positive": int(weight[~labels & predicted].sum()),
            "false_negative": int(weight[labels & ~predicted].sum()),
            "true_positive": int(weight[labels & predicted].sum()),
        }
        for key, value in {**_areas(good, bad), **rates(counts), **counts}.items():
            if key in draws and value is not None:
                draws[key].append(value)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {key: [float(v) for v in np.quantile(values, tails)] if values else None for key, values in draws.items()}


def _areas(good: np.ndarray, bad: np.ndarray) -> dict[str, float | None]:
    """AUROC and average precision from the number of good and of bad images at each rank, lowest first."""
    n_good, n_bad = int(good.sum()), int(bad.sum())
    if not n_good or not n_bad:
        return dict.fromkeys(CURVES)
    # Pairs won by the bad image, and half of the tied ones, in halves to stay in integers.
    won = int((bad * (2 * good.cumsum() - good)).sum())
    found, called = bad[::-1].cumsum(), (good + bad)[::-1].cumsum()
    precision = found / np.maximum(called, 1)
    return {"auroc": won / (2 * n_good * n_bad), "average_precision": float(bad[::-1] @ precision) / n_bad}
