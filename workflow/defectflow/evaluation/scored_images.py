"""The images of a run that have a score and a map: their rows in predictions.csv, part by part, and their colours."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.core.disk_index import DiskIndex
from defectflow.core.tables import PREDICTIONS, read_parts
from defectflow.drawing.overlay_images import Scale, scale_of

SAMPLE = 400  # images whose maps set the colour scale
BOX = ["x", "y", "width", "height"]


def scored_parts(
    predictions: Path, maps: Mapping[str, AnomalyMap], columns: Sequence[str] = PREDICTIONS
) -> Iterator[pd.DataFrame]:
    """Yield the rows of predictions.csv that have a score and a map, in parts; see `tables.read_parts`."""
    for part in read_parts(predictions, columns):
        part = part[part["raw_score"].notna()]
        yield part[[image_id in maps for image_id in part["image_id"]]]


def evenly(count: int, wanted: int) -> np.ndarray:
    """At most ``wanted`` indices of ``count`` things, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(int))


def run_scale(
    predictions: Path, maps: Mapping[str, AnomalyMap], metrics: Mapping[str, Any], vmax_quantile: float
) -> Scale:
    """Colour scale of a run, from up to SAMPLE images spread evenly over the good ones and as many over all.

    Args:
        predictions: predictions.csv; at least one image has a score and a map.
        maps: by image_id.
        metrics: content of metrics.json, for the pixel threshold.
        vmax_quantile: see `overlay_images.scale_of`.
    """

    def sample(labels: Collection[float]) -> list[str]:
        def ids() -> Iterator[str]:
            for part in scored_parts(predictions, maps, ["image_id", "raw_score", "label"]):
                yield from part["image_id"][part["label"].isin(labels)]

        wanted = set(evenly(sum(1 for _ in ids()), SAMPLE).tolist())
        return [image_id for place, image_id in enumerate(ids()) if place in wanted]

    threshold = (metrics.get("pixel") or {}).get("map_threshold")
    level = threshold["value"] if threshold else None
    return scale_of(maps, sample([0]), sample([0, 1, np.nan]), level, vmax_quantile)


def boxes_of(regions: Path) -> DiskIndex:
    """Boxes and mark of the regions of each image in regions.csv, on disk; for `boxes_at` and `mark_at`."""
    rows = (row for part in read_parts(regions, ["image_id", *BOX, "mark"]) for row in part.itertuples(index=False))
    grouped = groupby(rows, key=lambda row: row.image_id)  # the regions of an image follow each other

    def found() -> Iterator[tuple[str, str, str]]:
        for name, own in grouped:
            those = list(own)
            yield name, json.dumps([[getattr(row, c) for c in BOX] for row in those]), those[0].mark

    return DiskIndex(found(), 2, [regions])


def boxes_at(boxes: DiskIndex, image_id: str) -> tuple[tuple[int, int, int, int], ...]:
    """x, y, width and height of the regions of an image, in pixels."""
    text, _ = boxes.get(image_id, ("[]", ""))
    return tuple(map(tuple, json.loads(text)))


def mark_at(boxes: DiskIndex, image_id: str) -> str:
    """Why the only box of an image is a peak and no region above the pixel threshold; "" where it is one."""
    return boxes.get(image_id, ("", ""))[1]
