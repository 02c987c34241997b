"""From scores to verdicts: the table of images to judge, and the threshold each of them is judged by."""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from defectflow import metrics, thresholds
from defectflow.files import UserError
from defectflow.naming import image_ids
from defectflow.pred_score import normalise
from defectflow.tables import PREDICTIONS

REVIEW = (
    "Images with low <= raw_score < high go to a person (each labelled one by the limits of its fold, chosen on the "
    "other folds). Errors left are those among the images that do not; rates are of all good and all bad images."
)


# Columns with the scores that a fold's threshold is chosen on: by banks without that fold.
WITHOUT, GROUP_WITHOUT = "without/", "group_without/"


class Judgement(NamedTuple):
    """What :func:`judge` returns.

    Attributes:
        table: the gathered table with the columns threshold, pred_score, predicted_label, review, review_low,
            review_high (NaN where there is nothing to say).
        threshold: chosen on all counted images, for images without a label and for new ones; None without any.
        review: (low, high) of the review band, chosen likewise; None where no band was asked for.
    """

    table: pd.DataFrame
    threshold: thresholds.Threshold | None
    review: tuple[float, float] | None


def file_name(path: str, image_id: str) -> str:
    """Name of an image relative to the image folder: the longest tail of ``path`` that ``image_id`` was made from."""
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
    splits: pd.DataFrame,
    scores: pd.DataFrame,
    masks: pd.DataFrame,
    calibration: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per image to be judged: manifest, split, raw score and mask flags.

    Images of a fixed training side are left out unless they were scored; ``calibration``: see `with_calibration`.

    Raises:
        UserError: a score or split belongs to no image, or an image is scored twice.
    """
    originals = scores[(scores["kind"] == "") & (scores["copy_of"] == "")]
    # Masks are found before ingest has seen all shards: they may be of images that it then left out as copies.
    for name, table in (("scores", originals), ("splits", splits)):
        twice = table["image_id"][table["image_id"].duplicated()]
        if len(twice):
            raise UserError(f"{name}: image {twice.iloc[0]} occurs twice (pass each shard once)")
        strange = sorted(set(table["image_id"]) - set(manifest["image_id"]))
        if strange:
            raise UserError(f"{name}: image {strange[0]} is not in the manifest (run the earlier stages again)")
    if not np.isfinite(originals[["raw_score"]].to_numpy(float)).all():
        raise UserError("scores: a raw_score is missing or not finite (run the score stage again)")
    table = manifest.merge(splits[["image_id", "detection", "fold", "group_fold"]], on="image_id", how="left")
    table = table.merge(originals[["image_id", "raw_score", "group_out_score"]], on="image_id", how="left")
    flags = masks[["image_id", "present", "doubtful", "reason"]].add_prefix("mask_")
    table = table.merge(flags.rename(columns={"mask_image_id": "image_id"}), on="image_id", how="left")
    table[["detection", "fold", "mask_reason"]] = table[["detection", "fold", "mask_reason"]].fillna("")
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
        UserError: they are of another set of images.
    """
    columns = {}
    for (protocol, fold), rows in calibration.groupby(["protocol", "judged_fold"]):
        strange = sorted(set(rows["image_id"]) - set(table["image_id"]))
        if strange:
            raise UserError(f"calibration: image {strange[0]} is not in the manifest (run the earlier stages again)")
        prefix = WITHOUT if protocol == "fold" else GROUP_WITHOUT
        columns[f"{prefix}{fold}"] = table["image_id"].map(rows.set_index("image_id")["raw_score"])
    return table.assign(**columns)


def counted(table: pd.DataFrame) -> pd.Series:
    """bool: labelled and scored by a bank without the image, so that it counts in the metrics."""
    return calibrating(table) & (table["detection"] != "calibration")


def calibrating(table: pd.DataFrame) -> pd.Series:
    """bool: what thresholds are chosen on: the images that count, and those held out for nothing else."""
    held_out = table["detection"].isin(["fold", "test", "calibration"])
    return table["label"].notna() & held_out & table["raw_score"].notna()


def judge(
    table: pd.DataFrame,
    strategy: str,
    options: Mapping[str, float] | None = None,
    review: Mapping[str, float] | None = None,
) -> Judgement:
    """Judge every row of a gathered table by a threshold that was chosen without it, and say what a person should see.

    An image is decided where its verdict keeps the caps of ``review``: called bad at or above the threshold of max_fpr,
    or good below the threshold of max_fnr. Between the lower and the higher of these and the verdict's own threshold
    lies the review band: ``review`` is 1 where ``review_low <= raw_score < review_high``.

    Args:
        table: what :func:`gather` returned.
        strategy, options: as for :func:`thresholds.calibrate`.
        review: {"max_fpr": share, "max_fnr": share} of the good and of the bad images that may be decided wrongly.

    Raises:
        UserError: the strategy or the band cannot do with the labelled images there are.
    """
    empty = ("threshold", "pred_score", "predicted_label", "review", "review_low", "review_high")
    table = table.assign(**dict.fromkeys(empty, np.nan))
    if not calibrating(table).any():
        return Judgement(table, None, None)
    overall, own = _calibrated(table, "threshold", strategy, options or {})
    cut, low, high = (_column(own, key) for key in ("value", "low", "high"))
    score = table["raw_score"].to_numpy(float)
    judged = ~(np.isnan(score) | np.isnan(cut))
    table["threshold"] = cut
    table["pred_score"] = normalise(score, cut, low, high)
    table["predicted_label"] = np.where(judged, score >= cut, np.nan)
    if review is None:
        return Judgement(table, overall, None)
    (lower, lowers), (upper, uppers) = (
        _calibrated(table, "review", name, {name: review[name]}) for name in ("max_fnr", "max_fpr")
    )
    table["review_low"] = np.minimum(cut, _column(lowers, "value"))
    table["review_high"] = np.maximum(cut, _column(uppers, "value"))
    inside = (score >= table["review_low"]) & (score < table["review_high"])
    table["review"] = np.where(judged, inside, np.nan)
    return Judgement(table, overall, (min(overall.value, lower.value), max(overall.value, upper.value)))


def scores_apart(known: pd.DataFrame) -> dict[str, np.ndarray]:
    """For every fold the scores that its threshold is chosen on, float (rows,); see `with_calibration`.

    A fold has no entry where, without it, no good image was left to score one of the other images by.
    """
    apart = {}
    for fold in sorted(set(known["fold"])):
        scores = known.get(f"{WITHOUT}{fold}", pd.Series(np.nan, known.index))
        if scores[known["fold"] != fold].notna().all():
            apart[fold] = scores.to_numpy(float)
    return apart


def _calibrated(
    table: pd.DataFrame, key: str, strategy: str, options: Mapping[str, float]
) -> tuple[thresholds.Threshold, list[thresholds.Threshold | None]]:
    """The threshold chosen on all labelled images, and the one that each row of ``table`` is judged by (or None).

    An image that thresholds are chosen on is judged by that of its fold, chosen on the other folds, the rest by the
    former.
    """
    held_out = calibrating(table)
    known = table[held_out]
    raw, labels = known["raw_score"].to_numpy(float), known["label"].to_numpy(int)
    try:
        overall = thresholds.calibrate(raw, labels, strategy, **options)
        nested = thresholds.nested_calibration(
            raw, labels, known["fold"].tolist(), strategy, without=scores_apart(known), **options
        )
    except ValueError as error:
        raise UserError(
            f"{key}: {strategy}: {error} (label more images, or change {key} in config.yaml: docs/verdicts.md)"
        ) from None
    rows = zip(table["fold"], held_out, strict=True)
    return overall, [nested.get(fold) if own else overall for fold, own in rows]


def _column(chosen: list[thresholds.Threshold | None], key: str) -> np.ndarray:
    return np.array([getattr(threshold, key) if threshold else np.nan for threshold in chosen])


def review_figures(
    table: pd.DataFrame, band: tuple[float, float] | None, asked: Mapping[str, float] | None
) -> dict[str, Any] | None:
    """How many labelled images of a judged table go to a person and what errors are left; None without a band."""
    if band is None:
        return None
    known = table[counted(table) & table["review"].notna()]
    reviewed = known["review"] == 1
    left = metrics.confusion(known["label"][~reviewed], known["predicted_label"][~reviewed])
    n_good, n_bad = int((known["label"] == 0).sum()), int((known["label"] == 1).sum())
    alarms, missed = left["false_positive"], left["false_negative"]
    return {
        **asked,
        "low": band[0],
        "high": band[1],
        "n_images": len(known),
        "n_reviewed": int(reviewed.sum()),
        "share_reviewed": metrics.ratio(int(reviewed.sum()), len(known)),
        "share_reviewed_interval": metrics.wilson(int(reviewed.sum()), len(known)),
        "good_reviewed": int((reviewed & (known["label"] == 0)).sum()),
        "bad_reviewed": int((reviewed & (known["label"] == 1)).sum()),
        "unlabelled_reviewed": int((table["label"].isna() & (table["review"] == 1)).sum()),
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
