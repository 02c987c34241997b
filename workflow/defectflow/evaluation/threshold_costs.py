"""What a threshold, and a review band around it, would do: errors, photographs for a person, and cost per 1,000 parts.

Scores are held out: each photograph is scored by a bank without it. A threshold that a strategy chose on the other
folds is held out too, see `of_strategy`; one that a person chose while looking at these photographs is not, and its
figures are somewhat too good, see `at_threshold`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from defectflow.core.files import UserError
from defectflow.decision.decisions import assign_verdicts, is_evaluated
from defectflow.decision.verdict_rule import decide
from defectflow.evaluation.image_metrics import units_of
from defectflow.metrics import metrics

PARTS = 1000


class Costs(NamedTuple):
    """What decisions cost in production, in any currency.

    Attributes:
        miss: of a bad part called good.
        false_alarm: of a good part called bad.
        look: of a part that a person looks at, who then decides right.
        bad_share: share of bad parts in production, in (0, 1).
    """

    miss: float = 100.0
    false_alarm: float = 5.0
    look: float = 1.0
    bad_share: float = 0.02

    def check(self) -> None:
        """Raise a UserError for costs that are negative, or not finite, and a share that is none."""
        for name in ("miss", "false_alarm", "look"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name}: {value:g} is not a cost (0 or more)")
        if not 0 < self.bad_share < 1:
            raise UserError(f"bad_share: {self.bad_share:g} is not a share of parts (more than 0, less than 1)")


class Known(NamedTuple):
    """The evaluated photographs of a run.

    Attributes:
        bad: bool (n,), the label.
        raw_score: float (n,).
        n_good, n_bad: independent units of either label, images or groups, see `image_metrics.units_of`.
        unit: "images" or "groups".
    """

    bad: np.ndarray
    raw_score: np.ndarray
    n_good: int
    n_bad: int
    unit: str


def known_of(table: pd.DataFrame) -> Known:
    """The evaluated rows of a table with label, raw_score, group, image_id and detection."""
    rows = table[is_evaluated(table)]
    bad = rows["label"].to_numpy(float) == 1
    unit, units = units_of(rows) if len(rows) else ("images", rows["image_id"])
    n_good, n_bad = (int(units[side].nunique()) for side in (~bad, bad))
    return Known(bad, rows["raw_score"].to_numpy(float), n_good, n_bad, unit)


def at_threshold(
    known: Known,
    threshold: float | np.ndarray,
    costs: Costs,
    band: tuple[float | np.ndarray, float | np.ndarray] | None = None,
) -> dict[str, Any]:
    """Errors and costs at a threshold.

    Photographs in the review band go to a person, whatever their verdict: they count as looked at, and neither as
    missed nor as false alarms.

    Args:
        known: what `known_of` returned.
        threshold: bad means a raw score at or above it; or float (n,), one for each photograph.
        costs: of production.
        band: limits of the review band, low <= raw_score < high; or float (n,) each.

    Returns:
        confusion_matrix: of the verdicts of all photographs; missed, false_alarms, good_reviewed, bad_reviewed: counts;
        miss_rate, false_alarm_rate, good_review_rate, bad_review_rate: {value, interval}, of the bad and of the good
        photographs; per_thousand: {missed, false_alarms, looks, cost}, each {value, interval} for 1,000 parts in
        production, None where a label does not occur. Intervals are of 95 %: Wilson's on the number of units; of looks
        and cost by `sum_interval`.
    """
    decision = decide(known.raw_score, threshold, band)
    looked = np.zeros(len(known.bad), bool) if decision.review is None else decision.review
    missed, alarms = known.bad & ~decision.bad & ~looked, ~known.bad & decision.bad & ~looked
    rates = {
        "miss_rate": _rate(missed, known.bad, known.n_bad),
        "false_alarm_rate": _rate(alarms, ~known.bad, known.n_good),
        "good_review_rate": _rate(looked, ~known.bad, known.n_good),
        "bad_review_rate": _rate(looked, known.bad, known.n_bad),
    }
    return {
        "confusion_matrix": metrics.confusion(known.bad, decision.bad),
        "missed": int(missed.sum()),
        "false_alarms": int(alarms.sum()),
        "good_reviewed": int((looked & ~known.bad).sum()),
        "bad_reviewed": int((looked & known.bad).sum()),
        **rates,
        "per_thousand": _per_thousand(rates, costs),
    }


def _rate(which: np.ndarray, among: np.ndarray, units: int) -> dict[str, Any] | None:
    if not among.any():
        return None
    share = float(which[among].mean())
    return {"value": share, "interval": metrics.wilson(units * share, units)}


def _per_thousand(rates: Mapping[str, Any], costs: Costs) -> dict[str, Any]:
    bad, good = PARTS * costs.bad_share, PARTS * (1 - costs.bad_share)
    terms = {
        "missed": [(bad, "miss_rate")],
        "false_alarms": [(good, "false_alarm_rate")],
        "looks": [(good, "good_review_rate"), (bad, "bad_review_rate")],
    }
    each = {"missed": costs.miss, "false_alarms": costs.false_alarm, "looks": costs.look}
    terms["cost"] = [(each[name] * weight, rate) for name, own in terms.items() for weight, rate in own]
    found: dict[str, Any] = {}
    for name, own in terms.items():
        known = [(weight, rates[rate]) for weight, rate in own if rates[rate] is not None]
        if len(known) < len(own):
            found[name] = None
            continue
        value = sum(weight * rate["value"] for weight, rate in known)
        found[name] = {"value": value, "interval": sum_interval(known)}
    return found


def sum_interval(terms: Sequence[tuple[float, Mapping[str, Any]]]) -> list[float]:
    """95 % interval of a weighted sum of rates from the interval of each, for weights of 0 or more.

    The squares of the distances between a rate and the end of its interval are added, as variances are. Shares of
    errors and of looks among the same photographs exclude each other, so that their sum varies less: the interval is
    rather too wide.
    Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27
    (2008), 1693-1702.

    Args:
        terms: (weight, {value, interval}) of each rate.
    """
    value = sum(weight * rate["value"] for weight, rate in terms)
    away = [
        math.sqrt(sum((weight * (rate["interval"][end] - rate["value"])) ** 2 for weight, rate in terms))
        for end in (0, 1)
    ]
    return [max(0.0, value - away[0]), value + away[1]]


def of_strategy(
    table: pd.DataFrame,
    known: Known,
    costs: Costs,
    strategy: str,
    options: Mapping[str, float],
    review: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What a strategy does: each photograph is judged by the threshold that it chooses on the other folds.

    Args:
        table: as `decisions.assign_verdicts` takes it; ``known``: of the same table.
        costs: of production.
        strategy, options, review: of the config.

    Returns:
        threshold and band for new photographs, and the figures of `at_threshold`; or problem: why the strategy cannot
        be applied to these photographs.
    """
    try:
        judged = assign_verdicts(table, strategy, options, review)
    except UserError as error:
        return {"problem": str(error).partition(": ")[2].rpartition(" (")[0]}
    rows = judged.table[is_evaluated(judged.table)]
    # A fold that holds all photographs has no threshold from others; none of its photographs is judged.
    if judged.threshold is None or not len(rows) or rows["threshold"].isna().any():
        return {"problem": "too few photographs have a label"}
    band = (rows["review_low"].to_numpy(float), rows["review_high"].to_numpy(float)) if judged.review else None
    return {
        "threshold": judged.threshold.value,
        "band": list(judged.review) if judged.review else None,
        **at_threshold(known, rows["threshold"].to_numpy(float), costs, band),
    }


def band_shares(known: Known, band: tuple[float, float]) -> dict[str, float]:
    """The review band as limits of errors, {max_fpr, max_fnr} of the config: shares decided wrongly outside of it.

    Raises:
        UserError: no photograph is labelled good, or none bad.
    """
    good, bad = known.raw_score[~known.bad], known.raw_score[known.bad]
    if not len(good) or not len(bad):
        raise UserError("a review band needs photographs that are labelled good and bad (label some)")
    return {"max_fpr": float(np.mean(good >= band[1])), "max_fnr": float(np.mean(bad < band[0]))}
