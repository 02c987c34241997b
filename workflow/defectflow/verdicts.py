"""From scores to verdicts: the table of images to judge, and the threshold each of them is judged by."""

import hashlib
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from defectflow import thresholds
from defectflow.files import UserError
from defectflow.naming import image_ids
from defectflow.tables import PREDICTIONS


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


def gather(manifest: pd.DataFrame, splits: pd.DataFrame, scores: pd.DataFrame, masks: pd.DataFrame) -> pd.DataFrame:
    """One row per image to be judged: manifest, split, raw score and mask flags.

    Images of a fixed training side are left out unless they were scored.

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
    wanted = (table["detection"] != "train") | table["raw_score"].notna()
    return table[wanted].sort_values("filename", kind="stable").reset_index(drop=True)


def counted(table: pd.DataFrame) -> pd.Series:
    """bool: labelled and scored by a bank without the image, so that it counts in the metrics."""
    return table["label"].notna() & table["detection"].isin(["fold", "test"]) & table["raw_score"].notna()


def judge(
    table: pd.DataFrame, strategy: str, max_fpr: float | None
) -> tuple[pd.DataFrame, thresholds.Calibration | None]:
    """Add threshold, pred_score and predicted_label to every row (NaN without labelled scores to calibrate on).

    Returns:
        The table, and the calibration on all counted images (for images without a label, and for new ones).
    """
    table = table.copy()
    known = table[counted(table)]
    if known.empty:
        return table.assign(threshold=np.nan, pred_score=np.nan, predicted_label=np.nan), None
    raw, labels = known["raw_score"].to_numpy(float), known["label"].to_numpy(int)
    overall = thresholds.calibrate(raw, labels, strategy, max_fpr)
    nested = thresholds.nested_calibration(raw, labels, known["fold"].tolist(), strategy, max_fpr)
    own = [
        (nested.get(fold) if is_counted else overall)
        for fold, is_counted in zip(table["fold"], counted(table), strict=True)
    ]
    cut = np.array([c.threshold if c else np.nan for c in own])
    low, high = (np.array([getattr(c, side) if c else np.nan for c in own]) for side in ("low", "high"))
    score = table["raw_score"].to_numpy(float)
    table["threshold"] = cut
    table["pred_score"] = thresholds.normalise(score, cut, low, high)
    table["predicted_label"] = np.where(np.isnan(score) | np.isnan(cut), np.nan, score >= cut)
    return table, overall


def predictions_of(table: pd.DataFrame) -> pd.DataFrame:
    """A judged table in the columns of predictions.csv."""
    table = table.assign(split=table["detection"])
    for column in ("label", "predicted_label", "mask_present", "mask_doubtful"):
        table[column] = table[column].astype("Int64")
    return table[PREDICTIONS]
