"""Find good photographs with outlying scores, and the limit that follows from the others.

numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FEWEST = 10  # other photographs needed to say which stand out
# Probability that the largest of good scores with an exponential tail is set aside although nothing is wrong with it.
# It is high, because a needless look costs little, while a defect labelled good lets most other defects pass.
# If two are set aside, the second has to stand out more, so that an ordinary one stays. More than
# two are not outliers but normal variation.
LEVELS = {2: 0.1, 1: 0.3}


class Limit(NamedTuple):
    """A limit for good scores.

    Attributes:
        value: the largest score that was not set aside; higher scores are bad.
        aside: how many of the largest scores were set aside, 0 to 2.
    """

    value: float
    aside: int


def tail_level(scores: np.ndarray, probability: float) -> float:
    """The score that a further good photograph exceeds with this probability, from the upper half of ``scores``.

    Excesses over the median are taken as exponential, the tail of bell-shaped and of Gumbel-like scores (a generalised
    Pareto tail of shape 0). With m of them, another one exceeds x with probability (1 + x / (m mean))^-m: a generalised
    Pareto tail of shape 1 / m, so that the fewer there are, the higher is the level.
    Source: S. Coles, An Introduction to Statistical Modeling of Extreme Values (2001), chapter 4.

    Args:
        scores: float (n,).
        probability: in (0, 1).

    Returns:
        the level; infinity if no score lies above the median, the median for a probability of one half or more.
    """
    middle = float(np.median(scores))
    excess = scores[scores > middle] - middle
    if not len(excess):
        return math.inf
    share = min(1.0, probability * len(scores) / len(excess))
    beyond: float = share ** (-1 / len(excess)) - 1
    return middle + float(excess.mean()) * len(excess) * beyond


def limit(good: np.ndarray, levels: Mapping[int, float] = LEVELS) -> Limit:
    """The largest of good scores, without the one or two that stand out from the others, if any do.

    They stand out if the smallest of them exceeds the level that the largest of n good scores exceeds with the
    probability in ``levels``, according to the tail of the others.

    Args:
        good: float (n,), n >= 1, ascending.
        levels: as LEVELS.
    """
    n = len(good)
    for aside, level in levels.items():
        others = good[: n - aside]
        if len(others) >= FEWEST and good[n - aside] > tail_level(others, level / n):
            return Limit(float(others[-1]), aside)
    return Limit(float(good[-1]), 0)
