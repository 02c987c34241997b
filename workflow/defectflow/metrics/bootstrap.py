"""Bootstrap percentile intervals of one run's metrics, and of the difference between two runs.

A unit is an image, or a group (burst, session) of images that are drawn together. Two runs on the same photographs are
resampled together, because their errors are correlated; comparing two separate intervals would ignore that.

Source: A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application (1997), sections 3.2 and 3.8.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from defectflow.metrics.metrics import CURVES, RATES, confusion, rates

CELLS = 500_000  # of the table of weights that is in memory at a time
KINDS_OF_UNIT = ((True, False), (False, True), (True, True))  # holds good images, holds bad ones

Figure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Difference(NamedTuple):
    """A paired difference ``second - first``.

    Attributes:
        value: difference of the figure on all images, without resampling.
        low, high: 95 % percentile interval.
        p: two-sided p-value: how often a difference at least this large would appear by chance; 1 for equal runs.
        n, n_units: number of images, and of units that were resampled.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    n_units: int


def resampled(labels: np.ndarray, units: Sequence[str], seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield how often each image counts in each resample, several resamples at a time: int64 [R, N].

    Units are drawn with replacement. Those of good images only, of bad ones only and of both are drawn apart, so that
    every resample has the classes that the data have.

    Args:
        labels: [N], 1 bad, 0 good.
        units: [N], name of the unit of each image.
        seed: of the draws.
        resamples: how many to draw in total.
    """
    bad = np.asarray(labels) == 1
    _, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    has_good, has_bad = np.bincount(unit, weights=~bad) > 0, np.bincount(unit, weights=bad) > 0
    kinds = [np.flatnonzero((has_good == good) & (has_bad == bad)) for good, bad in KINDS_OF_UNIT]
    rng, rows = np.random.default_rng(seed), max(1, CELLS // len(bad))
    for start in range(0, resamples, rows):
        weights = np.empty((min(rows, resamples - start), len(bad)), np.int64)
        for row in weights:
            drawn = [kind[rng.integers(len(kind), size=len(kind))] for kind in kinds if len(kind)]
            row[:] = np.bincount(np.concatenate(drawn), minlength=len(has_good))[unit]
        yield weights


def bootstrap(
    labels: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    units: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, list[float] | None]:
    """Percentile intervals of every figure, from `resampled` units: images, or groups of them.

    Resamples in which a figure cannot be computed are skipped for it; if there are no others, it is None. The cost is
    O(resamples x N).

    Args:
        labels, predicted: [N], 1 bad, 0 good.
        scores: float [N].
        units: [N], name of the unit of each image.

    Returns:
        [low, high] of auroc, average_precision, accuracy, precision, recall, f1, false_positive_rate,
        false_negative_rate and the four counts of `confusion`.
    """
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    cells = {
        "true_negative": ~labels & ~predicted,
        "false_positive": ~labels & predicted,
        "false_negative": labels & ~predicted,
        "true_positive": labels & predicted,
    }
    draws: dict[str, list[float]] = {key: [] for key in (*CURVES, *RATES, *confusion([], []))}
    for weights in resampled(labels, units, seed, resamples) if len(labels) else ():
        good, bad = _by_rank(weights, labels, scores)
        areas = weighted_auroc(weights, labels, scores)
        table = {key: weights @ cell for key, cell in cells.items()}
        for row, area in enumerate(areas):
            counts = {key: int(values[row]) for key, values in table.items()}
            figures = {**rates(counts), **counts}
            if not np.isnan(area):
                figures |= {"auroc": float(area), "average_precision": _average_precision(good[row], bad[row])}
            for key, value in figures.items():
                if key in draws and value is not None:
                    draws[key].append(value)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {key: [float(v) for v in np.quantile(values, tails)] if values else None for key, values in draws.items()}


def weighted_auroc(weights: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC for each row of weights; ties count one half.

    Args:
        weights: [R, N], how often each image counts; >= 0.
        labels: [N], 1 bad, 0 good.
        scores: [N], larger = more anomalous.

    Returns:
        float [R] in [0, 1]; NaN where a row holds one class only.
    """
    good, bad = _by_rank(weights, labels, scores)
    won = (bad * (good.cumsum(axis=1) - good / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        area: np.ndarray = won / (good.sum(axis=1) * bad.sum(axis=1))
    return area


def weighted_f1(weights: np.ndarray, labels: np.ndarray, verdicts: np.ndarray) -> np.ndarray:
    """F1 of the bad class for each row of weights (arguments as :func:`weighted_auroc`, verdicts 0 or 1).

    Returns:
        float [R] in [0, 1]; NaN where a row holds no bad image.
    """
    bad, called = weights @ (labels == 1), weights @ (verdicts == 1)
    found = weights @ ((labels == 1) & (verdicts == 1))
    with np.errstate(invalid="ignore"):
        return np.where(bad > 0, 2 * found / (bad + called), np.nan)


def paired_bootstrap(
    figure: Figure,
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    units: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
) -> Difference | None:
    """Difference of ``figure`` between two runs, with a bootstrap over units of the images they share.

    Resamples (see `resampled`) in which the figure is not defined are left out. With few units
    (under about ten of a kind) the interval is too narrow, as every bootstrap is; with one it has no width at all.

    Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), sections 13.3 and 15.4.

    Args:
        figure: :func:`weighted_auroc` or :func:`weighted_f1`.
        labels: [N], 1 bad, 0 good.
        first, second: [N], scores or verdicts of the two runs.
        units: [N], name of the unit of each image, see `image_metrics.units_of`.

    Returns:
        None where the figure is not defined on these images.
    """
    labels, first, second = (np.asarray(values) for values in (labels, first, second))
    if not len(labels):
        return None

    def difference(weights: np.ndarray) -> np.ndarray:
        return figure(weights, labels, second) - figure(weights, labels, first)

    value = float(difference(np.ones((1, len(labels))))[0])
    if np.isnan(value):
        return None
    seen = [difference(weights) for weights in resampled(labels, units, seed, resamples)]
    values = np.concatenate(seen)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975])
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(values) + 1))
    return Difference(value, float(low), float(high), p, len(labels), len(set(units)))


def _by_rank(weights: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the good and of the bad images at each distinct score, lowest first: [R, number of scores] each."""
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    good, bad = (np.add.reduceat((weights * (labels == side))[:, order], starts, axis=1) for side in (0, 1))
    return good, bad


def _average_precision(good: np.ndarray, bad: np.ndarray) -> float:
    """Step-wise area under the precision-recall curve from the weights at each score, lowest first, both with some."""
    found, called = bad[::-1].cumsum(), (good + bad)[::-1].cumsum()
    return float(bad[::-1] @ (found / np.maximum(called, 1))) / int(bad.sum())
