"""Two runs on the same images: how large the difference of a figure is, and whether it may be due to chance.

Both runs saw the same photographs, so their errors go together; resampling images for both at once keeps that, which
comparing two separate intervals does not. Photographs of one group (burst, session) are drawn together if there are
enough groups.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CELLS = 500_000  # of the table of weights that is in memory at a time

Figure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Difference(NamedTuple):
    """A paired difference ``second - first``.

    Attributes:
        value: of the figure on the images as they are.
        low, high: 95 % percentile interval.
        p: two-sided; how often, were there no difference, one at least as large would be seen. 1 for equal runs.
        n, n_units: images it rests on, and units that were resampled.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    n_units: int


def weighted_auroc(weights: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC for each row of weights; ties count one half.

    Args:
        weights: [R, N], how often each image counts; >= 0.
        labels: [N], 1 bad, 0 good.
        scores: [N], larger = more anomalous.

    Returns:
        float [R] in [0, 1]; NaN where a row holds one class only.
    """
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    good, bad = (np.add.reduceat((weights * (labels == side))[:, order], starts, axis=1) for side in (0, 1))
    won = (bad * (good.cumsum(axis=1) - good / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return won / (good.sum(axis=1) * bad.sum(axis=1))


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

    Units are drawn with replacement among those with the same classes (good only, bad only, both), so that no
    resample of pure units lacks a class; resamples in which the figure is not defined are left out. With few units
    (under about ten of a kind) the interval is too narrow, as every bootstrap is; with one it has no width at all.

    Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), sections 13.3 and 15.4; groups as
    in A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application (1997), section 3.8.

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
    _, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    has_bad, has_good = (np.bincount(unit, labels == side) > 0 for side in (1, 0))
    kinds = has_bad + 2 * has_good
    rng = np.random.default_rng(seed)
    rows = max(1, CELLS // len(labels))
    seen = []
    for start in range(0, resamples, rows):
        drawn = np.empty((min(rows, resamples - start), len(kinds)))
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds == kind)
            drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=len(drawn))
        seen.append(difference(drawn[:, unit]))
    values = np.concatenate(seen)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975])
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(values) + 1))
    return Difference(value, float(low), float(high), p, len(labels), len(kinds))
