"""From scores to verdicts: the table of images to judge, and the threshold for each."""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from defectflow.core.files import UserError
from defectflow.core.tables import PREDICTIONS
from defectflow.decision import chosen_threshold
from defectflow.decision.pred_score import normalise
from defectflow.decision.threshold_strategies import Promise, Strategy, strategy_of
from defectflow.decision.verdict_rule import decide
from defectflow.listing.image_names import image_ids
from defectflow.metrics import metrics

REVIEW = (
    "Images with low <= raw_score < high go to a person (each labelled one by the limits of its fold, chosen on the "
    "other folds). Errors left are those among the images that do not; rates are of all good and all bad images."
)


# Columns with the scores that a fold's threshold is chosen on: by banks without that fold.
WITHOUT, GROUP_WITHOUT = "without/", "group_without/"
# Columns that :func:`gather` takes from the tables of splits, scores and masks.
SPLIT, SCORE, FLAGS = (
    ["detection", "fold", "group_fold"],
    ["raw_score", "group_out_score"],
    ["present", "doubtful", "reason"],
)
# Columns that :func:`assign_verdicts` adds.
VERDICT_COLUMNS = ("threshold", "pred_score", "predicted_label", "review", "review_low", "review_high")


class Verdicts(NamedTuple):
    """What :func:`assign_verdicts` returns.

    Attributes:
        table: the gathered table with the columns threshold, pred_score, predicted_label, review, review_low,
            review_high (NaN where they do not apply).
        threshold: chosen on all evaluated images, for images without a label and new ones; None without any.
        review: (low, high) of the review band, chosen in the same way; None if no band was requested.
    """

    table: pd.DataFrame
    threshold: chosen_threshold.Threshold | None
    review: tuple[float, float] | None


def file_name(path: str, image_id: str) -> str:
    """Name of an image relative to the image folder: the longest end of ``path`` that gives this ``image_id``."""
    parts = PurePosixPath(path).parts
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        plain = image_ids([name])[name]
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        if image_id in (plain, f"{plain}-{digest}"):
            return name
    return parts[-1]


def gather(
    manifest: pd.DataFrame,
    splits: Mapping[str, tuple[Any, ...]],
    scores: Mapping[str, tuple[Any, ...]],
    masks: Mapping[str, tuple[Any, ...]],
    calibration: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per image to be judged: manifest, split, raw score and mask flags.

    Images of a fixed training side are left out unless they were scored; ``calibration``: see `with_calibration`.

    Args:
        manifest: rows of it.
        splits, scores, masks: by image_id, the columns SPLIT, SCORE and FLAGS.
        calibration: columns CALIBRATION.
    """
    table = manifest.copy()
    for columns, found in ((SPLIT, splits), (SCORE, scores), (FLAGS, masks)):
        nothing = (None,) * len(columns)
        rows = [found.get(image_id, nothing) for image_id in table["image_id"]]
        names = [f"mask_{column}" for column in columns] if columns is FLAGS else columns
        table[names] = pd.DataFrame(rows, table.index, columns)
    text = ["detection", "fold", "group_fold", "mask_reason"]
    table[text] = table[text].astype(object).fillna("")
    numbers = [*SCORE, "mask_present", "mask_doubtful"]
    table[numbers] = table[numbers].astype(float)
    table["filename"] = [file_name(p, i) for p, i in zip(table["path"], table["image_id"], strict=True)]
    if calibration is not None:
        table = with_calibration(table, calibration)
    wanted = (table["detection"] != "train") | table["raw_score"].notna()
    return table[wanted].sort_values("filename", kind="stable").reset_index(drop=True)


def with_calibration(table: pd.DataFrame, calibration: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the scores that thresholds are chosen on in cross-validation (columns CALIBRATION).

    A column ``without/<fold>`` for every fold holds those for its threshold, NaN in the rows of the fold itself;
    ``group_without/<fold>`` is the same for the second protocol.

    Raises:
        UserError: the scores belong to another set of images.
    """
    columns = {}
    for (protocol, fold), rows in calibration.groupby(["protocol", "judged_fold"]):
        strange = sorted(set(rows["image_id"]) - set(table["image_id"]))
        if strange:
            raise UserError(f"calibration: image {strange[0]} is not in the manifest (run the earlier stages again)")
        prefix = WITHOUT if protocol == "fold" else GROUP_WITHOUT
        columns[f"{prefix}{fold}"] = table["image_id"].map(rows.set_index("image_id")["raw_score"])
    return table.assign(**columns)


def is_evaluated(table: pd.DataFrame) -> pd.Series:
    """bool column: labelled and scored by a bank without the image, so that it is part of the metrics."""
    return is_calibration(table) & (table["detection"] != "calibration")


def is_calibration(table: pd.DataFrame) -> pd.Series:
    """bool column: used to choose thresholds: the evaluated images, and those of a calibration split."""
    held_out = table["detection"].isin(["fold", "test", "calibration"])
    return table["label"].notna() & held_out & table["raw_score"].notna()


def settled(table: pd.DataFrame, strategy: Strategy) -> Strategy:
    """The strategy that ``strategy`` stands for with the labelled images of a gathered table."""
    labels = table.loc[is_calibration(table), "label"]
    return strategy.settled(int((labels == 0).sum()), int((labels == 1).sum()))


def promise_of(table: pd.DataFrame, strategy: str, options: Mapping[str, float]) -> Promise | None:
    """What is promised of the threshold for new images, chosen on the labelled images of a gathered table."""
    good = table.loc[is_calibration(table) & (table["label"] == 0), "raw_score"].to_numpy(float)
    return strategy_of(strategy, options).promise(np.sort(good)) if len(good) else None


def assign_verdicts(
    table: pd.DataFrame,
    strategy: str,
    options: Mapping[str, float] | None = None,
    review: Mapping[str, float] | None = None,
) -> Verdicts:
    """Judge every row of a gathered table by a threshold chosen without it, and mark images for review by a person.

    An image is decided automatically if its verdict keeps the limits of ``review``: called bad at or above the
    threshold of max_fpr, or good below the threshold of max_fnr. The review band lies between the lowest and the
    highest of these two and the verdict's own threshold: ``review`` is 1 if ``review_low <= raw_score < review_high``.

    Args:
        table: what :func:`gather` returned.
        strategy, options: as for :func:`chosen_threshold.calibrate`.
        review: {"max_fpr": share, "max_fnr": share} of the good and of the bad images that may be decided wrongly.

    Raises:
        UserError: the strategy or the band cannot be applied to the available labelled images.
    """
    if not is_calibration(table).any():
        return Verdicts(table.assign(**dict.fromkeys(VERDICT_COLUMNS, np.nan)), None, None)
    overall, own = _calibrated(table, "threshold", strategy, options or {})
    cut, low, high = (_column(own, key) for key in ("value", "low", "high"))
    if review is None:
        return Verdicts(_with_verdicts(table, cut, low, high, None), overall, None)
    (lower, lowers), (upper, uppers) = (
        _calibrated(table, "review", name, {name: review[name]}) for name in ("max_fnr", "max_fpr")
    )
    limits = np.minimum(cut, _column(lowers, "value")), np.maximum(cut, _column(uppers, "value"))
    band = min(overall.value, lower.value), max(overall.value, upper.value)
    return Verdicts(_with_verdicts(table, cut, low, high, limits), overall, band)


def assign_verdicts_to_new(table: pd.DataFrame, verdicts: Verdicts) -> pd.DataFrame:
    """``table``, images without a label, with VERDICT_COLUMNS by the thresholds for new images."""
    overall, band = verdicts.threshold, verdicts.review
    if overall is None:
        return table.assign(**dict.fromkeys(VERDICT_COLUMNS, np.nan))
    cut, low, high = (np.full(len(table), getattr(overall, key)) for key in ("value", "low", "high"))
    limits = (np.full(len(table), band[0]), np.full(len(table), band[1])) if band else None
    return _with_verdicts(table, cut, low, high, limits)


def _with_verdicts(
    table: pd.DataFrame, cut: np.ndarray, low: np.ndarray, high: np.ndarray, band: tuple[np.ndarray, np.ndarray] | None
) -> pd.DataFrame:
    """``table`` with VERDICT_COLUMNS; ``cut``, ``low``, ``high`` of the thresholds and the band, float (rows,)."""
    score = table["raw_score"].to_numpy(float)
    judged = ~(np.isnan(score) | np.isnan(cut))
    decision = decide(score, cut, band)
    table = table.assign(**dict.fromkeys(VERDICT_COLUMNS, np.nan))
    table["threshold"] = cut
    table["pred_score"] = normalise(decision.raw_score, cut, low, high)
    table["predicted_label"] = np.where(judged, decision.bad, np.nan)
    if band is not None and decision.review is not None:
        table["review_low"], table["review_high"] = band
        table["review"] = np.where(judged, decision.review, np.nan)
    return table


def calibration_scores(known: pd.DataFrame) -> dict[str, np.ndarray]:
    """For every fold the scores that its threshold is chosen on, float (rows,); see `with_calibration`.

    A fold has no entry if without it no good image was left to score one of the other images.
    """
    apart = {}
    for fold in sorted(set(known["fold"])):
        scores = known.get(f"{WITHOUT}{fold}", pd.Series(np.nan, known.index))
        if scores[known["fold"] != fold].notna().all():
            apart[fold] = scores.to_numpy(float)
    return apart


def _calibrated(
    table: pd.DataFrame, key: str, strategy: str, options: Mapping[str, float]
) -> tuple[chosen_threshold.Threshold, list[chosen_threshold.Threshold | None]]:
    """The threshold chosen on all labelled images, and the one that each row of ``table`` is judged by (or None).

    An image that is used to choose thresholds is judged by the threshold of its fold, chosen on the other folds; all
    other images are judged by the threshold chosen on all labelled images.
    """
    held_out = is_calibration(table)
    known = table[held_out]
    raw, labels = known["raw_score"].to_numpy(float), known["label"].to_numpy(int)
    try:
        overall = chosen_threshold.calibrate(raw, labels, strategy, **options)
        nested = chosen_threshold.nested_calibration(
            raw, labels, known["fold"].tolist(), strategy, without=calibration_scores(known), **options
        )
    except ValueError as error:
        raise UserError(
            f"{key}: {strategy}: {error} (label more images, or change {key} in config.yaml: docs/verdicts.md)"
        ) from None
    rows = zip(table["fold"], held_out, strict=True)
    return overall, [nested.get(fold) if own else overall for fold, own in rows]


def _column(chosen: list[chosen_threshold.Threshold | None], key: str) -> np.ndarray:
    return np.array([getattr(threshold, key) if threshold else np.nan for threshold in chosen])


def review_figures(
    table: pd.DataFrame, band: tuple[float, float] | None, asked: Mapping[str, float] | None, n_new: int
) -> dict[str, Any] | None:
    """Number of labelled images of a judged table that go to a person, and the errors left; None without a band.

    ``n_new``: how many without a label go to a person.
    """
    if band is None:
        return None
    known = table[is_evaluated(table) & table["review"].notna()]
    reviewed = known["review"] == 1
    left = metrics.confusion(known["label"][~reviewed], known["predicted_label"][~reviewed])
    n_good, n_bad = int((known["label"] == 0).sum()), int((known["label"] == 1).sum())
    alarms, missed = left["false_positive"], left["false_negative"]
    return {
        **(asked or {}),
        "low": band[0],
        "high": band[1],
        "n_images": len(known),
        "n_reviewed": int(reviewed.sum()),
        "share_reviewed": metrics.ratio(int(reviewed.sum()), len(known)),
        "share_reviewed_interval": metrics.wilson(int(reviewed.sum()), len(known)),
        "good_reviewed": int((reviewed & (known["label"] == 0)).sum()),
        "bad_reviewed": int((reviewed & (known["label"] == 1)).sum()),
        "unlabelled_reviewed": n_new,
        "errors_left": alarms + missed,
        "false_alarms_left": alarms,
        "missed_left": missed,
        "false_positive_rate_left": metrics.ratio(alarms, n_good),
        "false_positive_rate_left_interval": metrics.wilson(alarms, n_good),
        "false_negative_rate_left": metrics.ratio(missed, n_bad),
        "false_negative_rate_left_interval": metrics.wilson(missed, n_bad),
        "meaning": REVIEW,
    }


def predictions_of(table: pd.DataFrame) -> pd.DataFrame:
    """A judged table in the columns of predictions.csv."""
    table = table.assign(split=table["detection"])
    for column in ("label", "predicted_label", "mask_present", "mask_doubtful", "review"):
        table[column] = table[column].astype("Int64")
    return table[PREDICTIONS]
