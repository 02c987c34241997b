"""Choose a threshold on anomaly scores with one of the `strategies`: bad means ``score >= threshold``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from defectflow.core.files import UserError
from defectflow.decision.threshold_strategies import Sample, just_above, strategy_of
from defectflow.decision.verdict_rule import DIGITS


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


def calibrate(scores: np.ndarray, labels: np.ndarray, strategy: str = "f1_adaptive", **options: float) -> Threshold:
    """Choose a threshold on labelled scores.

    Args:
        scores: float [N], raw anomaly scores.
        labels: [N], 1 bad, 0 good.
        strategy: name of one of `threshold_strategies.STRATEGIES`.
        options: its fields.

    Raises:
        ValueError: no score, a score that is not finite, a label other than 0 and 1; an unknown strategy; an option
            that is missing, unknown or out of range; a strategy that needs other images than there are.
    """
    try:
        rule = strategy_of(strategy, options)
    except UserError as error:
        raise ValueError(str(error)) from None
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.size == 0 or scores.shape != labels.shape or not np.isfinite(scores).all():
        raise ValueError("a threshold needs finite scores and one label for each")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (bad)")
    good, bad = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    cuts = _cuts(good, bad)
    value = rule.choose(Sample(good, bad, cuts))
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
    names = np.asarray(folds, dtype=str)
    result = {}
    for fold in sorted(set(names.tolist())):
        others = names != fold
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
