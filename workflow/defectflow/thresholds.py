"""Thresholds on anomaly scores: an image is called bad when ``score >= threshold``.

Thresholds lie midway between two adjacent scores of the calibration set, so that an image scored like the calibration
images falls on the same side whatever the comparison (anomalib chooses with ``>=`` and cuts with ``>``, which loses one
defect on a perfectly separable set).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DIGITS = 9  # significant digits that tables keep: thresholds hold no more, so the CSV tells the same verdicts
BELOW_HALF = 0.499999999  # the largest score in [0, 1] that is below 0.5 with DIGITS digits


@dataclass(frozen=True)
class Calibration:
    """A threshold and the range of the scores it was chosen on."""

    threshold: float
    low: float
    high: float
    n_good: int
    n_bad: int


def f1_adaptive(scores: np.ndarray, labels: np.ndarray, max_fpr: float | None = None) -> float:
    """Threshold with the largest F1, anomalib's ``F1AdaptiveThreshold`` rule placed midway between scores.

    Ties go to the lowest threshold (fewest missed defects), as in anomalib. With good images only the threshold is just
    above the largest score; with bad images only it is the smallest score.

    Args:
        scores: float [N], raw anomaly scores.
        labels: [N], 1 bad, 0 good.
        max_fpr: only thresholds whose false positive rate on this set is at most this are considered.
    """

    def f1(tpr: np.ndarray, fpr: np.ndarray, n_bad: int, n_good: int) -> np.ndarray:
        tp, fp = tpr * n_bad, fpr * n_good
        return 2 * tp / np.maximum(n_bad + tp + fp, 1) if n_bad else -fpr

    return _best(scores, labels, f1, max_fpr)


def youden(scores: np.ndarray, labels: np.ndarray, max_fpr: float | None = None) -> float:
    """Threshold with the largest Youden index (TPR - FPR) among those with FPR <= ``max_fpr``.

    Ties go to the lowest threshold. A threshold above every score is always allowed, so one exists for any cap.
    Arguments as in :func:`f1_adaptive`. Source: W. J. Youden, Cancer 3 (1950).
    """
    return _best(scores, labels, lambda tpr, fpr, n_bad, n_good: tpr - fpr, max_fpr)


STRATEGIES = {"f1": f1_adaptive, "youden": youden}


def calibrate(
    scores: np.ndarray, labels: np.ndarray, strategy: str = "f1", max_fpr: float | None = None
) -> Calibration:
    """Threshold by ``strategy`` ("f1" or "youden") with the score range of the same images."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    threshold = STRATEGIES[strategy](scores, labels, max_fpr)
    n_bad = int((labels == 1).sum())
    return Calibration(threshold, float(scores.min()), float(scores.max()), len(labels) - n_bad, n_bad)


def nested_calibration(
    scores: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[str],
    strategy: str = "f1",
    max_fpr: float | None = None,
) -> dict[str, Calibration]:
    """For every fold the threshold chosen on the labelled images of all other folds.

    A fold outside which no image lies has no entry.

    Args:
        scores: float [N], held-out raw scores of labelled images.
        labels: [N], 1 bad, 0 good.
        folds: [N], name of the fold of each image.
    """
    folds = np.asarray(folds, dtype=str)
    result = {}
    for fold in sorted(set(folds.tolist())):
        others = folds != fold
        if others.any():
            result[fold] = calibrate(scores[others], labels[others], strategy, max_fpr)
    return result


def normalise(raw: np.ndarray, threshold: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Scores for people: ``clip((raw - threshold) / (high - low) + 0.5, 0, 1)`` as anomalib's post-processor.

    ``result >= 0.5`` holds exactly when ``raw >= threshold``, also after rounding to nine digits. NaN stays NaN.

    Args:
        raw, threshold: float [N].
        low, high: float [N] or scalar, range of the calibration scores; a range of zero counts as one.
    """
    span = np.asarray(high, np.float64) - low
    score = np.clip((raw - threshold) / np.where(span > 0, span, 1.0) + 0.5, 0.0, 1.0)
    return np.where(raw < threshold, np.minimum(score, BELOW_HALF), score)


def midpoint(low: float, high: float) -> float:
    """A value in (low, high] near the middle, with nine significant digits where that many tell the two apart."""
    middle = float(f"{(low + high) / 2:.{DIGITS}g}")
    return middle if low < middle <= high else high


def just_above(value: float) -> float:
    """The next larger number with nine significant digits."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1) if value else 10.0**-DIGITS
    return float(f"{value + step:.{DIGITS}g}")


def _best(scores: np.ndarray, labels: np.ndarray, objective: Callable, max_fpr: float | None) -> float:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.size == 0 or scores.shape != labels.shape or not np.isfinite(scores).all():
        raise ValueError("a threshold needs finite scores and one label for each")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (bad)")
    values, index = np.unique(scores, return_inverse=True)
    bad = np.bincount(index[labels == 1], minlength=len(values))
    good = np.bincount(index[labels == 0], minlength=len(values))
    n_bad, n_good = int(bad.sum()), int(good.sum())
    # Entry i: everything from values[i] up is called bad; the last entry calls nothing bad.
    tpr = np.append(bad[::-1].cumsum()[::-1], 0) / max(n_bad, 1)
    fpr = np.append(good[::-1].cumsum()[::-1], 0) / max(n_good, 1)
    gain = np.asarray(objective(tpr, fpr, n_bad, n_good), np.float64)
    if max_fpr is not None:
        gain[fpr > max_fpr + 1e-12] = -np.inf
    # Equal gains computed from different counts may differ in the last bit: ties are taken with a tolerance.
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
    if best == 0:
        return float(values[0])
    if best == len(values):
        return just_above(float(values[-1]))
    return midpoint(float(values[best - 1]), float(values[best]))
