"""Image-level metrics of judged tables: figures with intervals, by defect type, and a calibration curve."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from defectflow.core.files import UserError
from defectflow.decision.decisions import GROUP_WITHOUT, WITHOUT, assign_verdicts, calibration_scores, is_evaluated
from defectflow.metrics import metrics
from defectflow.metrics.bootstrap import bootstrap
from defectflow.metrics.intervals import auroc_interval, with_width

ENOUGH_GROUPS = 5  # of either kind of images, from which resampling whole groups says more than that there are few
SCORE_BINS = 10
MEANING = {
    "image": "Every labelled image is scored by a memory bank built without it (see fold in splits.csv); AUROC and "
    "average precision are computed on raw scores, the other figures on verdicts with the fold's own threshold.",
    "intervals": "auroc: method 5 of Newcombe (2006), with the design effect of the groups where these are the unit; "
    "bootstrap: percentile bootstrap, 2000 resamples of whole units (images, or groups where 5 or more hold good "
    "images, 5 or more bad ones, and some several), those with good, bad and both kinds of images apart; where that "
    "has no width, as of a figure that is 0 or 1, Wilson on the number of units; the others: Wilson, images treated as "
    "independent. Where groups are few all of them are too narrow.",
    "leave_group_out": "Neither the bank nor the threshold has seen an image of the same group (session, burst): what "
    "to expect of a new session.",
    "calibration_curve": "Share of bad images among the labelled ones, by pred_score. pred_score is not a probability: "
    "it says how far from the threshold (0.5) a raw score lies, in units of the range of the calibration scores. A "
    "share holds for the labelled mix of good and bad images; a line with fewer defects has fewer in every bin.",
}


def units_of(known: pd.DataFrame) -> tuple[str, pd.Series]:
    """The independent units, "groups" or "images", and the unit of each row.

    A class that lies in one group would be the same in every resample, so its interval would have no width.
    """
    groups = known["group"].where(known["group"] != "", known["image_id"])
    if groups.groupby(known["label"]).nunique().min() >= ENOUGH_GROUPS and groups.nunique() < len(groups):
        return "groups", groups
    return "images", known["image_id"]


def image_figures(table: pd.DataFrame, strategy: str, options: Mapping[str, float] | None, seed: int) -> dict[str, Any]:
    """Image-level metrics, confidence intervals and the baseline, of the evaluated rows of a judged table."""
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    labels, raw = known["label"].to_numpy(int), known["raw_score"].to_numpy(float)
    matrix = metrics.confusion(labels, known["predicted_label"])
    tn, fp, fn, tp = matrix.values()
    unit, units = units_of(known)
    area = auroc_interval(labels, raw, units)
    spread = bootstrap(labels, raw, known["predicted_label"], units, seed)
    spread = with_width(spread, labels, known["predicted_label"], units, area)
    intervals = {
        "level": 0.95,
        "auroc": area,
        "accuracy": metrics.wilson(tn + tp, tn + fp + fn + tp),
        "recall": metrics.wilson(tp, tp + fn),
        "precision": metrics.wilson(tp, tp + fp),
        "false_positive_rate": metrics.wilson(fp, tn + fp),
        "false_negative_rate": metrics.wilson(fn, tp + fn),
        "bootstrap": {
            "unit": unit,
            "n_units": int(units.nunique()),
            **{key: spread[key] for key in (*metrics.CURVES, *metrics.RATES)},
            "confusion_matrix": {key: spread[key] for key in matrix},
        },
        "method": MEANING["intervals"],
    }
    image = {
        "auroc": metrics.auroc(labels, raw),
        "average_precision": metrics.average_precision(labels, raw),
        "n_good": int((labels == 0).sum()),
        "n_bad": int((labels == 1).sum()),
        "n_groups": int(known["group"].where(known["group"] != "", known["image_id"]).nunique()),
        "confusion_matrix": matrix,
        **metrics.rates(matrix),
        "meaning": MEANING["image"],
    }
    if known["group_out_score"].notna().any():
        image["leave_group_out"] = group_out_figures(known, strategy, options)
    majority = max(tn + fp, fn + tp)
    baseline = {
        "majority_class": None if not len(known) else "good" if tn + fp >= fn + tp else "bad",
        "accuracy": metrics.ratio(majority, len(known)),
        "f1_all_called_bad": metrics.ratio(2 * (fn + tp), len(known) + fn + tp) if fn + tp else None,
    }
    return {"image": image, "confidence_intervals": intervals, "baseline": baseline, "n_samples": len(known)}


def group_out_figures(known: pd.DataFrame, strategy: str, options: Mapping[str, float] | None) -> dict[str, Any]:
    """The second protocol: whole groups are left out of the bank and of the choice of the threshold.

    Rates cover the groups without which good images of two other groups remain, one for the bank and one for the
    threshold; None if there are no such groups, or if the strategy cannot be applied to the remaining images.
    """
    apart = known[known["group_out_score"].notna()]
    apart = apart.drop(columns=[name for name in apart if name.startswith(WITHOUT)])
    apart = apart.rename(columns=lambda name: name.removeprefix("group_") if name.startswith(GROUP_WITHOUT) else name)
    apart = apart.assign(raw_score=apart["group_out_score"], fold=apart["group_fold"])
    try:
        judged = assign_verdicts(apart, strategy, options).table
        apart = judged.assign(
            predicted_label=judged["predicted_label"].where(judged["fold"].isin(calibration_scores(judged)))
        )
    except UserError:
        apart = apart.assign(predicted_label=np.nan)
    labels, raw = apart["label"].to_numpy(int), apart["raw_score"].to_numpy(float)
    judged = apart[apart["predicted_label"].notna()]
    matrix = metrics.confusion(judged["label"], judged["predicted_label"])
    return {
        "auroc": metrics.auroc(labels, raw),
        "auroc_interval": auroc_interval(labels, raw, units_of(apart)[1]),
        "confusion_matrix": matrix,
        **metrics.rates(matrix),
        "n_samples": len(apart),
        "meaning": MEANING["leave_group_out"],
    }


class ScoreBin(TypedDict):
    """Images whose pred_score lies from ``low`` to ``high``, and the share of bad ones with its interval."""

    low: float
    high: float
    n: int
    n_bad: int
    share_bad: float | None
    interval: list[float] | None


class CalibrationCurve(TypedDict):
    """``calibration_curve`` in metrics.json."""

    bins: list[ScoreBin]
    meaning: str


class DefectFigures(TypedDict):
    """Figures of one type of defect, ``by_defect`` in metrics.json; recall and scores are means of its images."""

    n: int
    recall: float
    auroc: float | None
    mean_raw_score: float
    mean_pred_score: float


def calibration_curve(table: pd.DataFrame) -> CalibrationCurve:
    """Share of bad images by pred_score, in SCORE_BINS equal bins, each with its Wilson interval."""
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    score = known["pred_score"].to_numpy(float)
    place = np.minimum((score * SCORE_BINS).astype(int), SCORE_BINS - 1)
    bins: list[ScoreBin] = []
    for number in range(SCORE_BINS):
        labels = known["label"].to_numpy(int)[place == number]
        bad = int(labels.sum())
        low, high = number / SCORE_BINS, (number + 1) / SCORE_BINS
        share, interval = metrics.ratio(bad, len(labels)), metrics.wilson(bad, len(labels))
        bins.append(
            {"low": low, "high": high, "n": len(labels), "n_bad": bad, "share_bad": share, "interval": interval}
        )
    return {"bins": bins, "meaning": MEANING["calibration_curve"]}


def defect_figures(table: pd.DataFrame) -> dict[str, DefectFigures]:
    """Per defect type: n, recall, AUROC against all good images, mean scores."""
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    good = known.loc[known["label"] == 0, "raw_score"].to_numpy(float)
    result: dict[str, DefectFigures] = {}
    bad = known[known["label"] == 1]
    for name, rows in sorted(bad.groupby(bad["defect_type"].replace("", "unspecified"))):
        raw = rows["raw_score"].to_numpy(float)
        labels = np.repeat([0, 1], [len(good), len(raw)])
        result[name] = {
            "n": len(rows),
            "recall": float(rows["predicted_label"].mean()),
            "auroc": metrics.auroc(labels, np.concatenate([good, raw])),
            "mean_raw_score": float(raw.mean()),
            "mean_pred_score": float(rows["pred_score"].mean()),
        }
    return result
