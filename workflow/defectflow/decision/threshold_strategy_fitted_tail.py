"""A threshold from good photographs alone, by a fitted upper tail of their scores; and the default strategy.

Scores above a level u (excesses, here of the upper 30 %) follow a generalised Pareto distribution, whatever the
distribution of all scores, the better the higher u is: S. Coles, An Introduction to Statistical Modeling of Extreme
Values (2001), chapter 4. It is fitted by probability-weighted moments, which suit small samples: J. R. M. Hosking,
J. R. Wallis, Parameter and quantile estimation for the generalized Pareto distribution, Technometrics 29 (1987). A
level taken from a fit to few scores is exceeded more often than the fit says. So the fit is repeated on samples drawn
from it, and the level is placed where these are exceeded at the promised rate on average.

Standard library only at the top: the Snakefile imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from defectflow.config.settings import setting
from defectflow.config.values import REQUIRED
from defectflow.decision.threshold_strategies import F1Adaptive, Promise, Sample, Strategy, just_above, need

if TYPE_CHECKING:
    import numpy as np

FEWEST = 8  # good images that a tail is fitted to
UPPER = 0.3  # share of the scores that the tail is fitted to, but at least LEAST of them
LEAST = 5
SHAPES = -0.5, 0.5  # of the tails that moments can tell: from one that ends to one without variance
SAMPLES, NUMBERS = 1000, 2_000_000  # samples that the fit is repeated on, at most so many numbers in all
CONFIDENCE = 0.9  # of the interval
# As `outlying_good.LEVELS`, but rarer: what is set aside without need makes the rate higher than promised.
OUTLYING = {2: 0.01, 1: 0.03}

FEW_BAD, ENOUGH_GOOD, ALPHA = 5, 12, 0.05  # of the default strategy


class Level(NamedTuple):
    """A level of good scores.

    Attributes:
        value: the score.
        interval: the rate at which further good scores exceed it lies in here with probability CONFIDENCE.
    """

    value: float
    interval: tuple[float, float]


def tail_level(good: np.ndarray, alpha: float) -> Level:
    """The score that a further good image exceeds with probability ``alpha``, averaged over samples like this one.

    Args:
        good: float (n,), n >= FEWEST, ascending.
        alpha: in (0, 0.1].
    """
    import numpy as np

    n = len(good)
    m = min(max(LEAST, round(UPPER * n)), n - 1)
    u, excess = float(good[n - m - 1]), good[n - m :] - good[n - m - 1]
    if excess[-1] <= 0:
        return Level(u, (0.0, 1.0))
    shape, scale = _fitted(excess)
    rng = np.random.default_rng(0)
    samples = max(100, min(SAMPLES, NUMBERS // m))
    shapes, scales = _fitted(np.sort(_quantile(shape, 1.0, rng.random((samples, m))), axis=-1))
    above = rng.beta(m + 1, n - m, samples)  # the true share above the order statistic u
    asked = alpha * np.geomspace(1.25, 0.02, 60)  # rates that the fit is asked for, so that alpha comes out
    levels = _quantile(shapes[:, None], scales[:, None], asked * n / m)
    rates = above[:, None] * np.maximum(1 + shape * levels, 0) ** (-1 / shape)
    means = rates.mean(axis=0)
    at = float(np.interp(-alpha, -means, np.arange(len(asked))))
    rate = float(np.exp(np.interp(at, np.arange(len(asked)), np.log(asked))))
    low, high = np.quantile(rates[:, round(at)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Level(u + float(_quantile(shape, scale, rate * n / m)), (float(low), float(high)))


def _ordinary(good: np.ndarray) -> np.ndarray:
    """Good scores (ascending) without those that stand far out, by OUTLYING."""
    from defectflow.decision import outlying_good

    return good[: len(good) - outlying_good.limit(good, OUTLYING).aside]


def _fitted(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale of generalised Pareto tails, (...,) each; ``excess``: float (..., m), ascending, not negative."""
    import numpy as np

    m = excess.shape[-1]
    mean = excess.mean(axis=-1)
    weighted = (excess * (1 - (np.arange(1, m + 1) - 0.35) / m)).mean(axis=-1)
    shape = np.clip(2 - mean / (mean - 2 * weighted), *SHAPES)
    shape = np.where(np.abs(shape) < 1e-6, 1e-6, shape)  # the exponential tail is the limit at 0
    return shape, mean * (1 - shape)


def _quantile(shape: np.ndarray, scale: np.ndarray | float, probability: np.ndarray | float) -> np.ndarray:
    """The excess that such a tail exceeds with this probability."""
    found: np.ndarray = scale / shape * (probability**-shape - 1)
    return found


@dataclass(frozen=True, kw_only=True)
class Tail(Strategy):
    """Just above the level that a new good image exceeds with probability ``alpha``, from the tail of good scores.

    Where one or two good scores stand far out from the others (OUTLYING), the tail is that of the others: a defect
    among the good images would lift the level above most other defects. Bad images are not looked at. Unlike
    `Conformal` it assumes a smooth tail, and needs fewer images: 8, whatever ``alpha``.
    """

    name: ClassVar[str] = "tail"
    compared: ClassVar[Mapping[str, float]] = {"alpha": ALPHA}

    alpha: float = setting(REQUIRED, "expected rate of false alarms", above=0, maximum=0.1, stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`; it needs 8 good images."""
        need(sample.good, "good", FEWEST)
        return just_above(tail_level(_ordinary(sample.good), self.alpha).value)

    def counting_all(self, good: np.ndarray) -> float:
        """See `Strategy.counting_all`."""
        return just_above(tail_level(good, self.alpha).value)

    def promise(self, good: np.ndarray) -> Promise | None:
        """See `Strategy.promise`."""
        kept = _ordinary(good)
        return Promise(self.alpha, tail_level(kept, self.alpha).interval, CONFIDENCE, len(kept))

    def labels_needed(self) -> dict[str, int]:
        """Eight good ones."""
        return {"good": FEWEST, "bad": 0}


@dataclass(frozen=True, kw_only=True)
class Auto(Strategy):
    """The default: `F1Adaptive`; with fewer than five bad images, and twelve good ones or more, `Tail` at 5 %.

    The largest F1 on one to four bad images depends on which these are. How many images are labelled in all decides,
    for all folds alike.
    """

    name: ClassVar[str] = "auto"

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        return self.settled(len(sample.good), len(sample.bad)).choose(sample)

    def settled(self, n_good: int, n_bad: int) -> Strategy:
        """See `Strategy.settled`."""
        return Tail(alpha=ALPHA) if n_bad < FEW_BAD and n_good >= ENOUGH_GOOD else F1Adaptive()
