"""The images of a run that have a score and a map: their rows in predictions.csv, part by part, and their colours."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from defectflow.annotations.coco import decode
from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, read_json_list
from defectflow.core.tables import PREDICTIONS, REGIONS, read_parts
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
    """At most ``wanted`` evenly spread indices of ``count`` items, including the first and the last."""
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


class Damage(NamedTuple):
    """The damaged regions of a photograph, as the stage boxes found them.

    Attributes:
        boxes: x, y, width and height of each, in pixels of the upright photograph.
        pixels: bool (height, width), those of all regions.
        mark: "" for regions, or the reason why the only box is a peak, see `damaged_regions.Region`.
    """

    boxes: tuple[tuple[int, int, int, int], ...]
    pixels: np.ndarray
    mark: str


def regions_by_image(table: Path, coco: Path) -> Iterator[tuple[str, list[tuple[Any, dict[str, Any]]]]]:
    """Yield each image that has regions with the rows of them in regions.csv and their entries in regions.json.

    Raises:
        UserError: the two files are not of one run.
    """
    rows = (row for part in read_parts(table, REGIONS) for row in part.itertuples(index=False))
    results = read_json_list(coco)

    def paired() -> Iterator[tuple[Any, dict[str, Any]]]:
        for row, result in zip_longest(rows, results):
            if row is None or result is None or [getattr(row, column) for column in BOX] != result["bbox"]:
                raise UserError(f"{coco}: not the regions of {table} (run the stage boxes again)")
            yield row, result

    for name, own in groupby(paired(), key=lambda pair: pair[0].image_id):  # regions of an image are consecutive
        yield name, list(own)


def damage_index(table: Path, coco: Path) -> DiskIndex:
    """The regions of each image in regions.csv with their pixels from regions.json, on disk; for `damage_at`.

    Raises:
        UserError: the two files are not of one run.
    """

    def found() -> Iterator[tuple[str, str, str]]:
        for name, those in regions_by_image(table, coco):
            boxes = [[getattr(row, column) for column in BOX] for row, _ in those]
            yield name, json.dumps([boxes, [result["segmentation"] for _, result in those]]), those[0][0].mark

    return DiskIndex(found(), 2, [table])


def damage_at(index: DiskIndex, image_id: str, size: tuple[int, int]) -> Damage:
    """The regions of an image whose photograph is of ``size`` (height, width); none for one that has none."""
    text, mark = index.get(image_id, ("[[], []]", ""))
    boxes, runs = json.loads(text)
    pixels = np.zeros(size, bool)
    for segmentation in runs:
        pixels |= decode(segmentation, *size[::-1])
    return Damage(tuple(map(tuple, boxes)), pixels, mark)
