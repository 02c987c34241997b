"""Thresholds on anomaly scores: an image is called bad when ``score >= threshold``.

Strategies that see good and bad images cut midway between two adjacent scores of the calibration set, so that an image
scored like the calibration images falls on the same side whatever the comparison (anomalib chooses with ``>=`` and cuts
with ``>``, which loses one defect on a perfectly separable set). Those that look at good images only call bad what lies
above a limit, and their threshold is the next number above it. docs/verdicts.md says which is for which need.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from defectflow.decision import outlying_good
from defectflow.decision.verdict_rule import DIGITS

SLACK = 1e-9  # of a count of images: 0.1 x 30 is 3, also where binary fractions make it 3.0000000000000004


@dataclass(frozen=True)
class Threshold:
    """A threshold, the scores it was chosen on, and the alternatives.

    Attributes:
        value: bad means ``score >= value``.
        low, high: smallest and largest score of the calibration images.
        n_good, n_bad: number of good and of bad calibration images.
        table: one row for each way to cut the calibration scores in two, lowest first: threshold, false_positive,
            true_positive (counts), false_positive_rate, recall, precision, f1, youden (NaN if the denominator is 0),
            chosen (bool: the row with the verdicts of ``value``).
    """

    value: float
    low: float
    high: float
    n_good: int
    n_bad: int
    table: pd.DataFrame = field(compare=False, repr=False)


class Sample(NamedTuple):
    """Calibration scores: good and bad ones (float, ascending), and every way to cut them (see Threshold.table)."""

    good: np.ndarray
    bad: np.ndarray
    cuts: pd.DataFrame


def f1_adaptive(sample: Sample) -> float:
    """Largest F1, anomalib's ``F1AdaptiveThreshold`` rule placed midway between scores.

    Ties go to the lowest threshold (fewest missed defects), as in anomalib. F1 needs both classes: with good images
    only, the threshold is just above the largest score, without one or two outliers (:func:`outlying_good.limit`); with
    bad images only, it is the smallest score.
    """
    if not len(sample.bad):
        return _of_good_only(sample)
    return float(sample.cuts["threshold"][sample.cuts["f1"].idxmax()])


def youden(sample: Sample, max_fpr: float | None = None, max_fnr: float | None = None) -> float:
    """Largest Youden index (TPR - FPR), among the cuts with FPR <= ``max_fpr`` and FNR <= ``max_fnr`` where given.

    Ties go to the lowest threshold. With one class only as :func:`f1_adaptive`; with ``max_fpr`` and no bad image just
    above the largest score.
    Source: W. J. Youden, Cancer 3 (1950); the caps as in MATLAB's anomalyThreshold.

    Raises:
        ValueError: no cut meets both caps, or a cap on a class without images.
    """
    allowed = pd.Series(True, sample.cuts.index)
    if max_fpr is not None:
        allowed &= _fpr_at_most(sample, max_fpr)
    if max_fnr is not None:
        allowed &= _fnr_at_most(sample, max_fnr)
    if not len(sample.bad) and max_fpr is None:
        return _of_good_only(sample)
    cuts = sample.cuts[allowed]
    if cuts.empty:
        raise ValueError(f"no threshold has FPR <= {max_fpr:g} and FNR <= {max_fnr:g} at once")
    # TPR - FPR times both counts: whole numbers, so that ties are ties.
    gain = cuts["true_positive"] * max(len(sample.good), 1) - cuts["false_positive"] * max(len(sample.bad), 1)
    return float(cuts["threshold"][gain.idxmax()])


def max_fpr(sample: Sample, max_fpr: float) -> float:
    """Largest recall among the cuts with FPR <= ``max_fpr``; among equal ones, the fewest false alarms.

    Without bad images, the lowest threshold that keeps the limit. As MaxFalsePositiveRate of MATLAB's anomalyThreshold.

    Raises:
        ValueError: there is no good image.
    """
    cuts = sample.cuts[_fpr_at_most(sample, max_fpr)]
    if not len(sample.bad):
        return float(cuts["threshold"].iloc[0])
    order = cuts.sort_values(["true_positive", "false_positive"], ascending=[False, True])
    return float(order["threshold"].iloc[0])


def max_fnr(sample: Sample, max_fnr: float) -> float:
    """Fewest false alarms among the cuts with FNR <= ``max_fnr``; among equal ones, the largest recall.

    Without good images, the highest threshold that keeps the limit. As MaxFalseNegativeRate in MATLAB.

    Raises:
        ValueError: there is no bad image.
    """
    cuts = sample.cuts[_fnr_at_most(sample, max_fnr)]
    if not len(sample.good):
        return float(cuts["threshold"].iloc[-1])
    order = cuts.sort_values(["false_positive", "true_positive"], ascending=[True, False])
    return float(order["threshold"].iloc[0])


def target_recall(sample: Sample, recall: float) -> float:
    """Fewest false alarms among the cuts with this recall or more: :func:`max_fnr` of 1 - ``recall``."""
    _check("recall", recall, 0, 1)
    return max_fnr(sample, 1 - recall)


def normal_percentile(sample: Sample, percentile: float) -> float:
    """Just above the smallest score that at least ``percentile`` % of the good images do not exceed.

    With fewer than 100 / (100 - percentile) of them, that is the largest score.

    Raises:
        ValueError: there is no good image, or the percentile is not in (0, 100].
    """
    _check("percentile", percentile, 0, 100, open_low=True)
    _need(sample.good, "good", 1)
    rank = math.ceil(percentile / 100 * len(sample.good) - SLACK)
    return just_above(float(sample.good[max(rank, 1) - 1]))


def normal_sigma(sample: Sample, sigma: float) -> float:
    """Just above mean + ``sigma`` standard deviations (n - 1) of the good images: a control limit, not rank-based.

    Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product (1931).

    Raises:
        ValueError: fewer than two good images, or sigma is not positive.
    """
    _check("sigma", sigma, 0, math.inf, open_low=True, open_high=True)
    _need(sample.good, "good", 2)
    return just_above(float(sample.good.mean() + sigma * sample.good.std(ddof=1)))


def conformal(sample: Sample, alpha: float) -> float:
    """Just above the good score of rank ceil((n + 1)(1 - ``alpha``)): bad where the conformal p-value is <= alpha.

    For a new good image that is exchangeable with the n calibration images the probability of a false alarm is at most
    alpha, for any distribution, on average over draws of the calibration images. Bad images are ignored.
    Source: V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); S. Bates et al., Testing
    for outliers with conformal p-values, Annals of Statistics 51 (2023), section 1.

    Raises:
        ValueError: fewer good images than 1 / alpha - 1, or alpha is not in (0, 1).
    """
    _check("alpha", alpha, 0, 1, open_low=True, open_high=True)
    n = len(sample.good)
    # This many of the n + 1 good images (the new one included) may be called bad: those with the largest scores.
    allowed = math.floor(alpha * (n + 1) + SLACK)
    if allowed < 1:
        _need(sample.good, "good", math.ceil(1 / alpha - SLACK) - 1)
    return just_above(float(sample.good[n - allowed]))


STRATEGIES = {
    rule.__name__: rule
    for rule in (f1_adaptive, youden, max_fpr, max_fnr, target_recall, normal_percentile, normal_sigma, conformal)
}


def calibrate(scores: np.ndarray, labels: np.ndarray, strategy: str = "f1_adaptive", **options: float) -> Threshold:
    """Choose a threshold on labelled scores.

    Args:
        scores: float [N], raw anomaly scores.
        labels: [N], 1 bad, 0 good.
        strategy: name in STRATEGIES; the options of each are the arguments of the function of that name.

    Raises:
        ValueError: no score, a score that is not finite, a label other than 0 and 1; an unknown strategy; an option
            that is missing, unknown or out of range; a strategy that needs other images than there are.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r} (known: {', '.join(STRATEGIES)})")
    rule = STRATEGIES[strategy]
    try:
        inspect.signature(rule).bind(None, **options)
    except TypeError as error:
        raise ValueError(f"{strategy}: {error}") from None
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.size == 0 or scores.shape != labels.shape or not np.isfinite(scores).all():
        raise ValueError("a threshold needs finite scores and one label for each")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (bad)")
    good, bad = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    cuts = _cuts(good, bad)
    value = rule(Sample(good, bad, cuts), **options)
    below = len(np.unique(scores[scores < value]))
    table = cuts.assign(chosen=np.arange(len(cuts)) == below)
    return Threshold(value, float(scores.min()), float(scores.max()), len(good), len(bad), table)


def nested_calibration(
    scores: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[str],
    strategy: str = "f1_adaptive",
    *,
    without: Mapping[str, np.ndarray] | None = None,
    **options: float,
) -> dict[str, Threshold]:
    """For every fold the threshold chosen on the labelled images of all other folds.

    A fold that holds all images has no entry.

    Args:
        scores: float [N], held-out raw scores of labelled images.
        labels: [N], 1 bad, 0 good.
        folds: [N], name of the fold of each image.
        strategy, options: see :func:`calibrate`.
        without: for a fold float [N], the raw scores to choose its threshold on in place of ``scores``: those by
            detectors that have not seen that fold either. Its scores for images of the fold itself are ignored.

    Raises:
        ValueError: as :func:`calibrate`, with the name of the fold.
    """
    folds = np.asarray(folds, dtype=str)
    result = {}
    for fold in sorted(set(folds.tolist())):
        others = folds != fold
        if others.any():
            try:
                of_fold = (without or {}).get(fold, scores)
                result[fold] = calibrate(of_fold[others], labels[others], strategy, **options)
            except ValueError as error:
                raise ValueError(f"fold {fold}, whose threshold comes from the other folds: {error}") from None
    return result


def midpoint(low: float, high: float) -> float:
    """A value in (low, high] near the middle, with nine significant digits if these distinguish the two."""
    middle = float(f"{(low + high) / 2:.{DIGITS}g}")
    return middle if low < middle <= high else high


def just_above(value: float) -> float:
    """The next larger number with nine significant digits."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1) if value else 10.0**-DIGITS
    return float(f"{value + step:.{DIGITS}g}")


def _cuts(good: np.ndarray, bad: np.ndarray) -> pd.DataFrame:
    """Every way to cut the scores in two; row i calls the i smallest distinct values good. See Threshold.table."""
    values = np.unique(np.concatenate([good, bad]))
    inner = [midpoint(low, high) for low, high in zip(values[:-1].tolist(), values[1:].tolist(), strict=True)]
    fp, tp = (len(side) - np.append(np.searchsorted(side, values), len(side)) for side in (good, bad))
    n_good, n_bad = len(good) or np.nan, len(bad) or np.nan
    with np.errstate(invalid="ignore"):
        precision = tp / (tp + fp)
    return pd.DataFrame(
        {
            "threshold": [float(values[0]), *inner, just_above(float(values[-1]))],
            "false_positive": fp,
            "true_positive": tp,
            "false_positive_rate": fp / n_good,
            "recall": tp / n_bad,
            "precision": precision,
            "f1": 2 * tp / (n_bad + tp + fp),
            "youden": tp / n_bad - fp / n_good,
        }
    )


def _of_good_only(sample: Sample) -> float:
    return just_above(outlying_good.limit(sample.good).value)


def _fpr_at_most(sample: Sample, cap: float) -> pd.Series:
    _check("max_fpr", cap, 0, 1)
    _need(sample.good, "good", 1)
    return sample.cuts["false_positive"] <= cap * len(sample.good) + SLACK


def _fnr_at_most(sample: Sample, cap: float) -> pd.Series:
    _check("max_fnr", cap, 0, 1)
    _need(sample.bad, "bad", 1)
    return len(sample.bad) - sample.cuts["true_positive"] <= cap * len(sample.bad) + SLACK


def _check(name: str, value: float, low: float, high: float, open_low: bool = False, open_high: bool = False) -> None:
    if not low <= value <= high or (open_low and value == low) or (open_high and value == high):
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"{name} is {value:g} and must be in {left}{low:g}, {high:g}{right}")


def _need(scores: np.ndarray, kind: str, least: int) -> None:
    if len(scores) < least:
        raise ValueError(f"needs at least {least} {kind} images to be chosen on, and there are {len(scores)}")
