"""Control charts that need no model of what they watch: EWMA of ranks, with limits from a simulation.

A value is replaced by its rank among the good photographs of the run, as a normal score; the chart is the
exponentially weighted moving average of these (S. W. Roberts, Control Chart Tests Based on Geometric Moving Averages,
Technometrics 1, 1959; of ranks: S. Y. Li, L. C. Tang, S. H. Ng, Nonparametric CUSUM and EWMA control charts, Journal of
Quality Technology 42, 2010). Ranks among n values have the same distribution whatever is measured, so that one
simulation gives the limit for any measure; and a single outlier, a defect say, cannot push the chart over it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import ks_2samp

WEIGHT = 0.1  # of the newest value: for shifts of about a standard deviation
PER_ALARM = 2000  # photographs without a change, to one false alarm of all charts and tests together
BLOCK = 50  # photographs in a test of two samples
FEWEST = 8  # good photographs to compare with: among fewer no rank is unusual
_REFERENCES, _STEPS = 600, 5000  # simulated


class Excursion(NamedTuple):
    """Values on one side of the middle, from the last crossing on, that reach beyond the limit.

    Attributes:
        first: index of the first: the estimate of when the change began (Nishina 1992, the last zero crossing).
        noticed: index of the one that passed the limit.
        last: index of the last.
        up: whether values are larger than before.
    """

    first: int
    noticed: int
    last: int
    up: bool


class Difference(NamedTuple):
    """A block of values that is distributed otherwise than the reference: indices of its first and last value, p."""

    first: int
    last: int
    p: float


def normal_scores(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Ranks of values (m,) among a reference (n,), in the middle of ties, as standard normal quantiles, float (m,).

    >>> normal_scores(np.array([5.0]), np.array([4.0, 6.0])).tolist()
    [0.0]
    """
    order = np.sort(reference)
    low, high = np.searchsorted(order, values, "left"), np.searchsorted(order, values, "right")
    scores: np.ndarray = ndtri(((low + high) / 2 + 0.5) / (len(order) + 1))
    return scores


def ewma(scores: np.ndarray) -> np.ndarray:
    """Moving average of scores (..., m), from 0 on, float of the same shape."""
    result, last = np.empty(scores.shape), np.zeros(scores.shape[:-1])
    for step in range(scores.shape[-1]):
        last = last + WEIGHT * (scores[..., step] - last)
        result[..., step] = last
    return result


@lru_cache
def limit(references: int, charts: int) -> float:
    """Limit of a chart of ranks among so many ``references``, where ``charts`` together have half of the false alarms.

    The other half is for the tests of two samples. The limit is the height that excursions of simulated charts, each
    with a reference of its own, pass once in ``2 * PER_ALARM * charts`` steps, on average over references: so few may
    lie unluckily, and the limit is wider the fewer they are.
    """
    random = np.random.default_rng(0)
    names = np.sort(random.random((_REFERENCES, references)), axis=1)
    values = random.random((_REFERENCES, _STEPS))
    scores = np.array([normal_scores(*pair) for pair in zip(values, names, strict=True)])
    heights = np.concatenate([excursion_heights(path) for path in ewma(scores)])
    allowed = _REFERENCES * _STEPS / (2 * PER_ALARM * charts)
    return float(np.sort(heights)[-max(1, int(allowed))])


def excursion_heights(path: np.ndarray) -> np.ndarray:
    """Largest distance from 0 in each run of one sign, for a path (m,)."""
    return np.maximum.reduceat(np.abs(path), starts(path))


def starts(path: np.ndarray) -> np.ndarray:
    """Indices where runs of one sign begin in a path (m,), int64."""
    positive = path > 0
    return np.concatenate([[0], np.flatnonzero(positive[1:] != positive[:-1]) + 1])


def excursions(path: np.ndarray, height: float) -> list[Excursion]:
    """What passes the limit in a path (m,), in the order of time."""
    begin = starts(path)
    found = []
    for first, end in zip(begin, [*begin[1:], len(path)], strict=True):
        beyond = np.flatnonzero(np.abs(path[first:end]) > height)
        if len(beyond):
            found.append(Excursion(int(first), int(first + beyond[0]), int(end - 1), bool(path[first + beyond[0]] > 0)))
    return found


def differing(values: np.ndarray, reference: np.ndarray, charts: int) -> list[Difference]:
    """Blocks of values (m,) that are distributed otherwise than the reference (Kolmogorov-Smirnov, two samples).

    Each block of BLOCK values is one look. The level of a look, divided by the number of ``charts`` (Bonferroni), is
    such that half a false alarm in PER_ALARM values comes from all looks: however long one goes on looking.
    """
    level = BLOCK / (2 * PER_ALARM) / charts
    found = []
    for first in range(0, len(values) - BLOCK + 1, BLOCK):
        p = float(ks_2samp(values[first : first + BLOCK], reference).pvalue)
        if p < level:
            found.append(Difference(first, first + BLOCK - 1, p))
    return found
