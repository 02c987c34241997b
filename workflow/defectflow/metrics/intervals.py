"""Confidence intervals that keep a positive width if the measured figure is 0 or 1.

A bootstrap of a figure that is 0 or 1 has no width, because every resample gives the same value. But all photographs
being right does not mean that all future ones will be. Labels are 1 (bad) or 0 (good).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from defectflow.metrics.metrics import RATES, wilson

Z = 1.959963984540054  # 95 %


def auroc_interval(labels: np.ndarray, scores: np.ndarray, units: Sequence[str], z: float = Z) -> list[float] | None:
    """95 % interval [low, high] of the AUROC, within [0, 1] and of positive width at 0 and 1 too.

    Method 5 of Newcombe: the values that lie within ``z`` standard errors of the measured one, the error being that of
    Hanley and McNeil at the value itself and with half of all images, less one, in place of either class. Where images
    come in groups, the numbers of good and bad images are divided by the design effect: the variance of the AUROC with
    groups as clusters over that with images as independent. The effective number of a class is at least its number of
    groups, and equal to it if the AUROC is 0 or 1, where neither variance can be measured.

    Source: R. G. Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2,
    Statistics in Medicine 25 (2006), 559-573; clusters: N. A. Obuchowski, Biometrics 53 (1997), 567-578.

    Args:
        labels: [N].
        scores: float [N], larger = more anomalous.
        units: [N], name of the group of each image, or a unique name if images are independent.

    Returns:
        [low, high]; None unless both classes occur.
    """
    labels, scores = np.asarray(labels) == 1, np.asarray(scores, np.float64)
    n_good, n_bad = int((~labels).sum()), int(labels.sum())
    if not n_good or not n_bad:
        return None
    _, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    above, below = _placements(scores[labels], scores[~labels])
    value = float(above.mean())
    size = (float(n_good), float(n_bad))
    groups = [len(set(unit[side])) for side in (~labels, labels)]
    if groups != [n_good, n_bad] or len(set(unit)) < n_good + n_bad:
        effect = _design_effect(above - value, below - value, unit[labels], unit[~labels])
        good, bad = (float(g) if effect is None else max(n / effect, g) for n, g in zip(size, groups, strict=True))
        size = (good, bad)
    return [_limit(value, *size, z, bound) for bound in (0.0, 1.0)]


def with_width(
    spread: Mapping[str, list[float] | None],
    labels: np.ndarray,
    predicted: np.ndarray,
    units: Sequence[str],
    auroc: list[float] | None,
) -> dict[str, list[float] | None]:
    """Bootstrap intervals with those of zero width replaced: by ``auroc``, or by Wilson's on the number of units.

    Units are images or groups; only those that a figure refers to are counted. Average precision at 0 or 1 is treated
    as a proportion of the bad ones (K. Boyd, K. H. Eng, C. D. Page, ECML 2013). F1 is 2 J / (1 + J) with the share J of
    true positives among all but the true negatives, a proportion (K. F. Y. Lam, V. Gopal, J. Qian, arXiv:2309.14621,
    2023: "Wilson indirect"). Counts follow from their rates.

    Args:
        spread: what `bootstrap.bootstrap` returned.
        labels, predicted: [N].
        units: [N], as for the bootstrap.
        auroc: its interval, see `auroc_interval`.
    """
    bad, called = np.asarray(labels) == 1, np.asarray(predicted) == 1
    unit = np.asarray(units, dtype=str)

    def share(which: np.ndarray, right: np.ndarray) -> list[float] | None:
        n = len(set(unit[which]))
        return wilson(n * float(right[which].mean()), n) if n else None

    found = share(bad | called, bad & called)
    new: dict[str, list[float] | None] = {
        "auroc": auroc,
        "average_precision": share(bad, bad),
        "accuracy": share(np.ones(len(bad), bool), bad == called),
        "precision": share(called, bad),
        "recall": share(bad, called),
        "f1": found and [2 * end / (1 + end) for end in found],
        "false_positive_rate": share(~bad, called),
        "false_negative_rate": share(bad, ~called),
    }
    n = {"negative": int((~bad).sum()), "positive": int(bad.sum())}
    for name, rate, side in (
        ("false_positive", "false_positive_rate", "negative"),
        ("false_negative", "false_negative_rate", "positive"),
        ("true_positive", "recall", "positive"),
    ):
        span = new[rate]
        new[name] = span and [end * n[side] for end in span]
    alarms = new["false_positive"]
    new["true_negative"] = alarms and [n["negative"] - end for end in reversed(alarms)]
    result = dict(spread)
    for name, interval in spread.items():
        if interval is None or interval[0] != interval[1]:
            continue
        if (name not in RATES or interval[0] in (0.0, 1.0)) and new[name] is not None:
            result[name] = new[name]
    return result


def better_than_chance(auroc: Sequence[float] | None) -> bool:
    """Whether the interval of an AUROC lies above 0.5, also when it is shown with two decimals."""
    return auroc is not None and round(auroc[0], 2) > 0.5


def reversed_order(auroc: Sequence[float] | None) -> bool:
    """Whether the interval lies below 0.5, also with two decimals: good images score higher, and not by chance."""
    return auroc is not None and round(auroc[1], 2) < 0.5


def text(interval: Sequence[float]) -> tuple[str, str]:
    """The ends of an interval in [0, 1] with two decimals; rounded outwards if both would look the same."""
    low, high = interval
    ends = f"{low:.2f}", f"{high:.2f}"
    if low < high and ends[0] == ends[1]:
        return f"{math.floor(100 * low) / 100:.2f}", f"{math.ceil(100 * high) / 100:.2f}"
    return ends


def _placements(bad: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the good ones below each bad one, and of the bad ones above each good one; ties count one half."""
    low, high = np.sort(good), np.sort(bad)
    below = (np.searchsorted(low, bad, "left") + np.searchsorted(low, bad, "right")) / (2 * len(good))
    above = 1 - (np.searchsorted(high, good, "left") + np.searchsorted(high, good, "right")) / (2 * len(bad))
    return below, above


def _design_effect(bad: np.ndarray, good: np.ndarray, bad_unit: np.ndarray, good_unit: np.ndarray) -> float | None:
    """Variance of the AUROC with units as clusters over that of single images, at least 1; None at 0 and 1.

    Args:
        bad, good: placements less the AUROC.
        bad_unit, good_unit: number of the unit of each.
    """
    m, n = len(bad), len(good)
    size = int(max(bad_unit.max(), good_unit.max())) + 1

    def grown(count: int) -> float:
        return count / (count - 1) if count > 1 else 1.0

    single = grown(m) * (bad**2).sum() / m**2 + grown(n) * (good**2).sum() / n**2
    if single <= 0:
        return None
    sums = [np.bincount(unit, side, size) for unit, side in ((bad_unit, bad), (good_unit, good))]
    counts = [len(set(unit)) for unit in (bad_unit, good_unit)]
    both = len(set(bad_unit) | set(good_unit))
    clustered = grown(counts[0]) * (sums[0] ** 2).sum() / m**2 + grown(counts[1]) * (sums[1] ** 2).sum() / n**2
    clustered += 2 * grown(both) * (sums[0] * sums[1]).sum() / (m * n)
    return max(1.0, float(clustered / single))


def _limit(value: float, n_good: float, n_bad: float, z: float, bound: float) -> float:
    """The end of the interval towards ``bound`` (0 or 1): where the measured value is ``z`` standard errors away."""
    if value == bound:
        return bound
    half = max((n_good + n_bad) / 2 - 1, 0.0)

    def away(at: float) -> float:
        variance = at * (1 - at) * (1 + half * ((1 - at) / (2 - at) + at / (1 + at))) / (n_good * n_bad)
        return abs(value - at) - z * math.sqrt(variance)

    near, far = value, bound
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if away(middle) < 0 else (near, middle)
    return (near + far) / 2
