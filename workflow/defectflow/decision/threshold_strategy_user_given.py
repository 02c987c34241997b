"""Thresholds from what a person says: what errors cost, or the threshold itself.

Standard library only at the top: the Snakefile imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from defectflow.config.settings import setting
from defectflow.config.values import REQUIRED
from defectflow.decision.threshold_strategies import Sample, Strategy, need


@dataclass(frozen=True, kw_only=True)
class Cost(Strategy):
    """Smallest expected cost of a part in production, where ``bad_share`` of the parts are bad.

    A bad part called good costs ``miss``, a good one called bad ``false_alarm``, in any currency. Shares of misses and
    of false alarms are those of the calibration images; how many of these are bad does not matter. Ties go to the
    lowest threshold (fewest missed defects).
    Source: N. M. Adams, D. J. Hand, Comparing classifiers when the misallocation costs are uncertain, Pattern
    Recognition 32 (1999), equation 1.
    """

    name: ClassVar[str] = "cost"
    compared: ClassVar[Mapping[str, float] | None] = None

    miss: float = setting(REQUIRED, "cost of a bad part called good", minimum=0, stage="evaluate")
    false_alarm: float = setting(REQUIRED, "cost of a good part called bad", minimum=0, stage="evaluate")
    bad_share: float = setting(REQUIRED, "share of bad parts in production", above=0, below=1, stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`; it needs a good and a bad image."""
        need(sample.good, "good", 1)
        need(sample.bad, "bad", 1)
        cuts, n_bad = sample.cuts, len(sample.bad)
        missed = self.bad_share * self.miss * (n_bad - cuts["true_positive"]) / n_bad
        alarms = (1 - self.bad_share) * self.false_alarm * cuts["false_positive"] / len(sample.good)
        # Rounded, so that ties are ties.
        return float(cuts["threshold"][(missed + alarms).round(12).idxmin()])

    def labels_needed(self) -> dict[str, int]:
        """One of each."""
        return {"good": 1, "bad": 1}


@dataclass(frozen=True, kw_only=True)
class Fixed(Strategy):
    """The threshold that a person has chosen, in units of the raw score; no image is looked at.

    It holds for the scores of one run: others of the same config choose theirs by `auto`.
    """

    name: ClassVar[str] = "fixed"
    compared: ClassVar[Mapping[str, float] | None] = None

    value: float = setting(REQUIRED, "the threshold: bad means a raw score at or above it", stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        return self.value


def of_peaks(strategy: str, options: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """The strategy for the peaks of anomaly maps: a fixed raw score says nothing of them: `auto`."""
    return ("auto", {}) if strategy == Fixed.name else (strategy, dict(options))
