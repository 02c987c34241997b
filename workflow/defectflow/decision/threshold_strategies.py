"""The strategies of `threshold:`: what each can be told, and how it chooses.

Strategies that see good and bad images cut midway between two adjacent scores of the calibration set, so that an image
scored like the calibration images falls on the same side whatever the comparison (anomalib chooses with ``>=`` and cuts
with ``>``, which loses one defect on a perfectly separable set). Those that look at good images only call bad what lies
above a limit, and their threshold is the next number above it. docs/verdicts.md says which is for which need.

Standard library only at the top: the Snakefile imports this module. Further ones may lie in modules of their own whose
names contain "strategy".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from defectflow.config.settings import Family, Settings, setting
from defectflow.config.values import ABSENT, REQUIRED
from defectflow.core.files import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SLACK = 1e-9  # of a count of images: 0.1 x 30 is 3, also where binary fractions make it 3.0000000000000004


class Sample(NamedTuple):
    """Calibration scores: good and bad ones (float, ascending), and every way to cut them (see Threshold.table)."""

    good: np.ndarray
    bad: np.ndarray
    cuts: pd.DataFrame


class Promise(NamedTuple):
    """Expected share of new good images called bad; with probability ``confidence`` it lies in ``interval``."""

    rate: float
    interval: tuple[float, float]
    confidence: float
    n_good: int


@dataclass(frozen=True, kw_only=True)
class Strategy(Settings):
    """Base of the strategies; fields are the options in ``threshold_options``.

    Attributes of a class:
        compared: the options with which it stands beside the strategy of a run: five in a hundred where a share has to
            be named, three standard deviations as in control charts. None: nobody but the user can name them.
    """

    section: ClassVar[str] = "threshold_options"
    compared: ClassVar[Mapping[str, float] | None] = {}

    @abstractmethod
    def choose(self, sample: Sample) -> float:
        """The threshold: bad means a score at or above it.

        Raises:
            ValueError: it cannot do with the images there are.
        """

    def settled(self, n_good: int, n_bad: int) -> Strategy:
        """The strategy to use where so many images are labelled in all."""
        return self

    def counting_all(self, good: np.ndarray) -> float | None:
        """The threshold without bad images if no good score (float, ascending) were set aside as outlying.

        None for a strategy that sets none aside.
        """
        return None

    def promise(self, good: np.ndarray) -> Promise | None:
        """What is promised of a threshold chosen on these good scores (float, ascending), if anything is."""
        return None

    def labels_needed(self) -> dict[str, int]:
        """How many {"good": ..., "bad": ...} images it has to be chosen on, beside the one that is judged."""
        return {"good": 0, "bad": 0}

    @classmethod
    def _strange(cls, key: str) -> str:
        takes = f"takes {' and '.join(cls.own_keys())}" if cls.own_keys() else "takes none"
        return f"{key!r} is not an option of {cls.name} (it {takes})"

    @classmethod
    def _missing(cls, field: Field[Any]) -> str:
        return f"{cls.name} needs {field.name} (set threshold_options: {{{field.name}: ...}})"


def share(default: Any, description: str) -> Any:
    """A field that is a share of images."""
    return setting(default, description, minimum=0, maximum=1, stage="evaluate")


@dataclass(frozen=True, kw_only=True)
class F1Adaptive(Strategy):
    """Largest F1, anomalib's ``F1AdaptiveThreshold`` rule placed midway between scores.

    Ties go to the lowest threshold (fewest missed defects), as in anomalib. F1 needs both classes; with good images
    only the threshold is just above the largest score, or where one or two of them stand out from the others, above
    what these reach (`outlying_good.limit`). With bad images only it is the smallest score.
    """

    name: ClassVar[str] = "f1_adaptive"

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        if not len(sample.bad):
            return of_good_only(sample)
        return float(sample.cuts["threshold"][sample.cuts["f1"].idxmax()])

    def counting_all(self, good: np.ndarray) -> float:
        """See `Strategy.counting_all`."""
        return just_above(float(good[-1]))


@dataclass(frozen=True, kw_only=True)
class Youden(Strategy):
    """Largest Youden index (TPR - FPR), among the cuts with FPR <= ``max_fpr`` and FNR <= ``max_fnr`` where given.

    Ties go to the lowest threshold. With one class only as `F1Adaptive`; with ``max_fpr`` and no bad image just above
    the largest score.
    Source: W. J. Youden, Cancer 3 (1950); the caps as in MATLAB's anomalyThreshold.
    """

    name: ClassVar[str] = "youden"

    max_fpr: float | None = share(ABSENT, "largest share of good images called bad")
    max_fnr: float | None = share(ABSENT, "largest share of bad images called good")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`; a ValueError too where no cut meets both caps."""
        allowed = sample.cuts["false_positive"] >= 0
        if self.max_fpr is not None:
            allowed &= fpr_at_most(sample, self.max_fpr)
        if self.max_fnr is not None:
            allowed &= fnr_at_most(sample, self.max_fnr)
        if not len(sample.bad) and self.max_fpr is None:
            return of_good_only(sample)
        cuts = sample.cuts[allowed]
        if cuts.empty:
            raise ValueError(f"no threshold has FPR <= {self.max_fpr:g} and FNR <= {self.max_fnr:g} at once")
        # TPR - FPR times both counts: whole numbers, so that ties are ties.
        gain = cuts["true_positive"] * max(len(sample.good), 1) - cuts["false_positive"] * max(len(sample.bad), 1)
        return float(cuts["threshold"][gain.idxmax()])

    def counting_all(self, good: np.ndarray) -> float | None:
        """See `Strategy.counting_all`; with ``max_fpr`` none is set aside."""
        return just_above(float(good[-1])) if self.max_fpr is None else None

    def labels_needed(self) -> dict[str, int]:
        """One of each class that has a cap."""
        return {"good": int(self.max_fpr is not None), "bad": int(self.max_fnr is not None)}


@dataclass(frozen=True, kw_only=True)
class MaxFpr(Strategy):
    """Largest recall among the cuts with FPR <= ``max_fpr``, and of those the one with the fewest false alarms.

    Without bad images the lowest threshold that keeps the cap. As MaxFalsePositiveRate of MATLAB's anomalyThreshold.
    """

    name: ClassVar[str] = "max_fpr"
    compared: ClassVar[Mapping[str, float]] = {"max_fpr": 0.05}

    max_fpr: float = share(REQUIRED, "largest share of good images called bad")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        cuts = sample.cuts[fpr_at_most(sample, self.max_fpr)]
        if not len(sample.bad):
            return float(cuts["threshold"].iloc[0])
        order = cuts.sort_values(["true_positive", "false_positive"], ascending=[False, True])
        return float(order["threshold"].iloc[0])

    def labels_needed(self) -> dict[str, int]:
        """A good one."""
        return {"good": 1, "bad": 0}


@dataclass(frozen=True, kw_only=True)
class MaxFnr(Strategy):
    """Fewest false alarms among the cuts with FNR <= ``max_fnr``, and of those the one with the largest recall.

    Without good images the highest threshold that keeps the cap. As MaxFalseNegativeRate in MATLAB.
    """

    name: ClassVar[str] = "max_fnr"
    compared: ClassVar[Mapping[str, float]] = {"max_fnr": 0.05}

    max_fnr: float = share(REQUIRED, "largest share of bad images called good")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        cuts = sample.cuts[fnr_at_most(sample, self.max_fnr)]
        if not len(sample.good):
            return float(cuts["threshold"].iloc[-1])
        order = cuts.sort_values(["false_positive", "true_positive"], ascending=[True, False])
        return float(order["threshold"].iloc[0])

    def labels_needed(self) -> dict[str, int]:
        """A bad one."""
        return {"good": 0, "bad": 1}


@dataclass(frozen=True, kw_only=True)
class TargetRecall(Strategy):
    """Fewest false alarms among the cuts with this recall or more: `MaxFnr` of 1 - ``recall``."""

    name: ClassVar[str] = "target_recall"
    compared: ClassVar[Mapping[str, float]] = {"recall": 0.9}

    recall: float = share(REQUIRED, "smallest share of bad images called bad")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        return MaxFnr(max_fnr=1 - self.recall).choose(sample)

    def labels_needed(self) -> dict[str, int]:
        """A bad one."""
        return {"good": 0, "bad": 1}


@dataclass(frozen=True, kw_only=True)
class NormalPercentile(Strategy):
    """Just above the smallest score that at least ``percentile`` % of the good images do not exceed.

    With fewer than 100 / (100 - percentile) of them, that is the largest score.
    """

    name: ClassVar[str] = "normal_percentile"
    compared: ClassVar[Mapping[str, float]] = {"percentile": 95}

    percentile: float = setting(REQUIRED, "of the scores of good images", above=0, maximum=100, stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        need(sample.good, "good", 1)
        rank = math.ceil(self.percentile / 100 * len(sample.good) - SLACK)
        return just_above(float(sample.good[max(rank, 1) - 1]))

    def labels_needed(self) -> dict[str, int]:
        """A good one."""
        return {"good": 1, "bad": 0}


@dataclass(frozen=True, kw_only=True)
class NormalSigma(Strategy):
    """Just above mean + ``sigma`` standard deviations (n - 1) of the good images: a control limit, not rank-based.

    Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product (1931).
    """

    name: ClassVar[str] = "normal_sigma"
    compared: ClassVar[Mapping[str, float]] = {"sigma": 3}

    sigma: float = setting(REQUIRED, "standard deviations above the mean of good images", above=0, stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`."""
        need(sample.good, "good", 2)
        return just_above(float(sample.good.mean() + self.sigma * sample.good.std(ddof=1)))

    def labels_needed(self) -> dict[str, int]:
        """Two good ones."""
        return {"good": 2, "bad": 0}


@dataclass(frozen=True, kw_only=True)
class Conformal(Strategy):
    """Just above the good score of rank ceil((n + 1)(1 - ``alpha``)): bad where the conformal p-value is <= alpha.

    For a new good image that is exchangeable with the n calibration images the probability of a false alarm is at most
    alpha, whatever the distribution, on average over draws of the calibration images. Bad images are not looked at.
    Source: V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); S. Bates et al., Testing
    for outliers with conformal p-values, Annals of Statistics 51 (2023), section 1.
    """

    name: ClassVar[str] = "conformal"
    compared: ClassVar[Mapping[str, float]] = {"alpha": 0.05}

    alpha: float = setting(REQUIRED, "promised rate of false alarms", above=0, below=1, stage="evaluate")

    def choose(self, sample: Sample) -> float:
        """See `Strategy.choose`; it needs 1 / alpha - 1 good images."""
        n = len(sample.good)
        # Of the n + 1 good images, the new one among them, so many may be called bad: those with the largest scores.
        allowed = math.floor(self.alpha * (n + 1) + SLACK)
        if allowed < 1:
            need(sample.good, "good", self.labels_needed()["good"])
        return just_above(float(sample.good[n - allowed]))

    def promise(self, good: np.ndarray) -> Promise | None:
        """See `Strategy.promise`: the share above an order statistic has a beta distribution (Vovk 2012)."""
        from scipy.stats import beta

        n, allowed = len(good), math.floor(self.alpha * (len(good) + 1) + SLACK)
        low, high = beta.ppf([0.05, 0.95], allowed, n + 1 - allowed)
        return Promise(self.alpha, (float(low), float(high)), 0.9, n)

    def labels_needed(self) -> dict[str, int]:
        """1 / alpha - 1 good ones."""
        return {"good": math.ceil(1 / self.alpha - SLACK) - 1, "bad": 0}


STRATEGIES = Family("defectflow.decision.*strateg*", Strategy, "threshold")


def strategy_of(name: str, options: Mapping[str, float], where: str = "threshold") -> Strategy:
    """A strategy with its options.

    Raises:
        UserError: there is no such strategy, or an option is missing, unknown or out of its range.
    """
    if name not in STRATEGIES.classes:
        raise UserError(f"{where}: {name!r} is not one of {', '.join(STRATEGIES.classes)}")
    strategy: Strategy = STRATEGIES.classes[name].from_dict(options, f"{where}_options")
    return strategy


# --- Helpers of strategies --------------------------------------------------------------------------------------------
def just_above(value: float) -> float:
    """The next larger number with nine significant digits."""
    from defectflow.decision.verdict_rule import DIGITS

    step = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1) if value else 10.0**-DIGITS
    return float(f"{value + step:.{DIGITS}g}")


def of_good_only(sample: Sample) -> float:
    """The threshold where no image is bad."""
    from defectflow.decision import outlying_good

    return just_above(outlying_good.limit(sample.good).value)


def fpr_at_most(sample: Sample, cap: float) -> pd.Series:
    """bool for each cut: whether at most this share of the good images is called bad."""
    need(sample.good, "good", 1)
    return sample.cuts["false_positive"] <= cap * len(sample.good) + SLACK


def fnr_at_most(sample: Sample, cap: float) -> pd.Series:
    """bool for each cut: whether at most this share of the bad images is called good."""
    need(sample.bad, "bad", 1)
    return len(sample.bad) - sample.cuts["true_positive"] <= cap * len(sample.bad) + SLACK


def need(scores: np.ndarray, kind: str, least: int) -> None:
    """Raise a ValueError where there are fewer scores than a strategy needs."""
    if len(scores) < least:
        raise ValueError(f"needs at least {least} {kind} images to be chosen on, and there are {len(scores)}")
