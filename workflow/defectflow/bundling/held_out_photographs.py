"""What a bundle keeps of the labelled photographs of its run: `held_out.HeldOut`, measured by the inspector itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from defectflow.core.bank_files import BankFile
from defectflow.core.tables import read_table
from defectflow.decision.decisions import is_calibration
from defectflow.evaluation.scored_images import evenly
from defectflow.images.read_write import read_photograph
from defectflow.inspection.held_out import HeldOut, short
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.measures import REFERENCE, measure, shift, small
from defectflow.methods.detector import Detector
from defectflow.methods.numpy_detector import NumpyDetector
from defectflow.methods.numpy_registry import DETECTORS
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.methods.registry import detector_class

MOST = 200  # photographs: as many good and bad ones in proportion as the run has
KEPT = 100  # patches of each, or twice as many as its score averages


def labelled_photographs(predictions: Path, manifest: Path, splits: Path) -> pd.DataFrame:
    """At most MOST of the photographs that thresholds are chosen on: image_id, path, sha256, label, fold, detection."""
    table = read_table(predictions, ["image_id", "label", "split", "raw_score"], lambda part: part["label"].notna())
    table = table[is_calibration(table.assign(detection=table["split"]))]
    folds = read_table(splits, ["image_id", "fold", "detection"])
    files = read_table(manifest, ["image_id", "path", "sha256"])
    table = table.merge(files, on="image_id").merge(folds, on="image_id").sort_values(["label", "image_id"])
    return table.iloc[evenly(len(table), MOST)].reset_index(drop=True)


def used_photographs(manifest: Path, splits: Path) -> np.ndarray:
    """`HeldOut.used` of a run: the photographs that it learns from or is measured on."""
    table = read_table(splits, ["image_id", "detection"], lambda part: part["detection"] != "unlabelled")
    files = read_table(manifest, ["image_id", "sha256"])
    used = files.loc[files["image_id"].isin(table["image_id"]), "sha256"]
    return np.unique(np.array([short(sha256) for sha256 in used], np.uint64))


def held_out(
    inspector: Inspector,
    banks: tuple[Path, Path],
    table: pd.DataFrame,
    settings: Any,
    review: Mapping[str, float] | None,
    used: np.ndarray,
) -> HeldOut:
    """Score each photograph by the bank without it, as the inspector sees it, and measure it.

    Args:
        inspector: of the bundle.
        banks: banks.safetensors and fold_banks.safetensors of the run.
        table: what `labelled_photographs` returned.
        settings: of the detector.
        review: limits of the review band, or None.
        used: what `used_photographs` returned.
    """
    whole = BankFile(banks[0])
    folds = BankFile(banks[1], whole=whole)
    bank_of = np.where(table["detection"] == "fold", "fold/" + table["fold"], "all")
    rows: dict[int, dict[str, Any]] = {}
    for name in sorted(set(bank_of)):
        file = whole if name == "all" else folds
        detector = _detector(file, name, settings)
        for row in np.flatnonzero(bank_of == name).tolist():
            photo = read_photograph(table["path"][row], inspector.settings["depth"])
            ready = inspector.ready(photo)
            patches = inspector.embed(ready.item)
            rows[row] = {
                "score": _score(detector, patches, ready.item.cells),
                **farthest(detector, patches, ready.item.cells, settings),
                "measures": measure(photo, ready.part.mask if ready.part else None),
                "small": small(photo),
            }
    ordered = [rows[row] for row in range(len(table))]
    good = [row["small"] for row, label in zip(ordered, table["label"], strict=True) if label == 0]
    picture = np.mean(good, axis=0) if good else np.zeros((REFERENCE, REFERENCE), np.float32)
    if inspector.settings["segmenter"]["source"] == "none":
        for one in ordered:
            one["measures"] = one["measures"]._replace(**shift(picture, one["small"]))
    return HeldOut(
        photographs=[
            {"name": Path(row.path).name, "sha256": row.sha256, "fold": row.fold, "label": int(row.label)}
            for row in table.itertuples()
        ],
        score=np.array([row["score"] for row in ordered]),
        patches=np.array([row["patches"] for row in ordered], np.int64),
        kept=np.concatenate([row["kept"] for row in ordered]),
        owner=np.repeat(np.arange(len(ordered)), [len(row["kept"]) for row in ordered]),
        distance=np.concatenate([row["distance"] for row in ordered]),
        weight=np.concatenate([row["weight"] for row in ordered]),
        measures=np.array([row["measures"] for row in ordered]),
        picture=picture.astype(np.float32),
        review=dict(review) if review else None,
        position=np.concatenate([row["position"] for row in ordered]) if "position" in ordered[0] else None,
        units=np.array([row["units"] for row in ordered]) if "units" in ordered[0] else None,
        used=used,
    )


def _detector(file: BankFile, name: str, settings: Any) -> NumpyDetector | Detector:
    """A bank as a detector: in numpy, or with torch if the method judges whole pictures."""
    tensors = file.tensors(name)
    if settings.whole_pictures:
        bank = {key: torch.from_numpy(np.asarray(value)) for key, value in tensors.items()}
        return detector_class(settings.name)(bank, file.settings, settings)
    return DETECTORS[settings.name](tensors, file.settings, settings)


def _score(detector: NumpyDetector | Detector, patches: np.ndarray, position: np.ndarray) -> float:
    if isinstance(detector, NumpyDetector):
        return float(detector.judge(patches, position)[0])
    return detector.judge(torch.from_numpy(patches), torch.from_numpy(position))[0]


def farthest(
    detector: NumpyDetector | Detector, patches: np.ndarray, position: np.ndarray, settings: Any
) -> dict[str, Any]:
    """Of `HeldOut` the fields of one photograph's patches; empty for methods that cannot be taught.

    Args:
        detector: without the photograph.
        patches, position: see `Detector.judge`.
        settings: of the detector.
    """
    if not isinstance(detector, PatchCore):
        none = dict.fromkeys(("distance", "weight"), np.empty(0, np.float32))
        return {"patches": len(patches), "kept": np.empty((0, 1), np.float16), **none}
    judged = detector.judged(position)
    averaged = 0 if settings.score == "max" else round(settings.top_fraction * judged)
    of_scales = {}
    if detector.combination:
        found, distance = detector.deciding(patches, position, max(KEPT, 2 * averaged))
        weight = np.ones(len(found), np.float32)
        of_scales = {"position": position[found], "units": detector.combination.units}
    else:
        found, distance, weight = detector.farthest(patches, max(KEPT, 2 * averaged))
    kept = detector.scales[0].unprojected(patches[found]).astype(np.float16)
    return {"patches": judged, "kept": kept, "distance": distance, "weight": weight, **of_scales}
