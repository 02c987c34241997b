"""Damaged regions: connected regions above the pixel threshold, with box, area and score.

A photograph that is called bad and has no region gets its peak instead, with a mark that says why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from defectflow.core.records import CocoResult

# Why a photograph that is called bad has no region: its peak is below the pixel threshold, or the options filtered the
# region out.
IMAGE_ONLY = "above the image threshold only"
FILTERED = "left out by size or shape"
NEAR_PEAK = 0.9  # pixels above this share of the way from the map's lowest value to its highest belong to the peak


@dataclass(frozen=True)
class Region:
    """One region of an anomaly map.

    Attributes:
        x, y, width, height: its box in pixels of the map; x and y are the leftmost column and the topmost row.
        area: number of its pixels.
        score: largest value of the map in it.
        pixels: bool (height, width), which pixels of the box belong to it.
        mark: "" for a region above the pixel threshold; IMAGE_ONLY or FILTERED for the peak that stands in for one.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    score: float
    pixels: np.ndarray = field(compare=False, repr=False)
    mark: str = ""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height)."""
        return self.x, self.y, self.width, self.height


def find_damage(
    anomaly_map: np.ndarray, threshold: float | None, mask: np.ndarray | None, bad: bool, **options: Any
) -> list[Region]:
    """Regions of a photograph by `find_regions`, or only the peak if it is called ``bad`` and has none.

    Args:
        anomaly_map, mask: see `find_regions`.
        threshold: that of the pixels, or None.
        bad: the verdict on the photograph.
        options: of `find_regions`.
    """
    found = [] if threshold is None else find_regions(anomaly_map, threshold, mask, **options)
    return found if found or not bad else [find_peak(anomaly_map, threshold, mask)]


def find_peak(anomaly_map: np.ndarray, threshold: float | None, mask: np.ndarray | None = None) -> Region:
    """The largest value of a map and its surroundings, with the mark that says why it is not a region.

    Args:
        anomaly_map: float (H, W).
        threshold: that of the pixels, or None.
        mask: bool (H, W), where to look for the peak; None or an empty mask: everywhere.
    """
    inside = np.ones(anomaly_map.shape, bool) if mask is None or not mask.any() else mask
    low, high, *_ = cv2.minMaxLoc(anomaly_map, inside.view(np.uint8))
    near = inside & (anomaly_map >= low + NEAR_PEAK * (high - low))
    left, top, box = _box(near)
    near = near[box]
    row, column = np.unravel_index(np.where(near, anomaly_map[box], -np.inf).argmax(), near.shape)
    _, label = cv2.connectedComponents(near.view(np.uint8), connectivity=8)
    pixels = label == label[row, column]
    x, y, inner = _box(pixels)
    pixels = pixels[inner]
    mark = FILTERED if threshold is not None and high >= threshold else IMAGE_ONLY
    return Region(left + x, top + y, pixels.shape[1], pixels.shape[0], int(pixels.sum()), high, pixels, mark)


def find_regions(
    anomaly_map: np.ndarray,
    threshold: float,
    mask: np.ndarray | None = None,
    *,
    min_area: float = 0.0001,
    max_area: float = 1.0,
    merge: float = 0.01,
    max_aspect: float | None = None,
) -> list[Region]:
    """Regions where the map is at or above the threshold, the most anomalous first.

    Pixels that touch, by a corner too, are one region; regions with a gap of at most ``merge`` become one, and are then
    filtered by size and shape. Lengths and areas are shares of the picture, so that options fit any resolution.

    Args:
        anomaly_map: float (H, W), at the resolution of the photograph if boxes are to be in its pixels.
        threshold: in units of the map.
        mask: bool (H, W), pixels that may count, e.g. those of the part; None for all.
        min_area, max_area: shares of the H * W pixels that a region may have, at least and at most.
        merge: largest gap that is bridged, as a share of the longer side; 0 bridges none.
        max_aspect: largest length over width of the smallest rectangle around the region, at any angle; None: any.
    """
    found = anomaly_map >= threshold
    if mask is not None:
        found &= mask
    if not found.any():
        return []
    # Nothing outside their box tells regions apart: two that are bridged meet between them.
    size, (left_of_all, top_of_all, box) = found.shape, _box(found)
    found = found[box]
    bridged = _bridged(found, merge * max(size) / 2)
    count, label, boxes, _ = cv2.connectedComponentsWithStats(bridged, connectivity=8)
    regions = []
    for number in range(1, count):
        left, top, width, height = (int(v) for v in boxes[number, :4])
        window = np.s_[top : top + height, left : left + width]
        pixels = found[window] & (label[window] == number)
        x, y, inner = _box(pixels)
        pixels = pixels[inner]
        area = int(pixels.sum())
        if not min_area <= area / (size[0] * size[1]) <= max_area:
            continue
        if max_aspect is not None and _aspect(pixels) > max_aspect:
            continue
        x, y = left_of_all + left + x, top_of_all + top + y
        height, width = pixels.shape
        score = float(anomaly_map[y : y + height, x : x + width][pixels].max())
        regions.append(Region(x, y, width, height, area, score, pixels))
    return sorted(regions, key=lambda region: (-region.score, region.y, region.x))


def region_mask(regions: Iterable[Region], size: tuple[int, int]) -> np.ndarray:
    """The pixels of regions: bool of shape ``size`` (height, width), that of the map they were found in."""
    mask = np.zeros(size, bool)
    for region in regions:
        mask[region.y : region.y + region.height, region.x : region.x + region.width] |= region.pixels
    return mask


def coco_result(region: Region, image_id: int, size: tuple[int, int]) -> CocoResult:
    """The region as an entry of a COCO results file, with its pixels as compressed run lengths.

    The only category is 1, anomaly: an anomaly detector does not distinguish kinds of defect. A peak in place of a
    region has its mark in the additional key ``mark``.

    Args:
        region: in pixels of the photograph.
        image_id: of the photograph in the COCO file that the results are for.
        size: (height, width) of the photograph.
    """
    from defectflow.annotations.coco import encode  # an inspector does not need it

    result: CocoResult = {
        "image_id": image_id,
        "category_id": 1,
        "bbox": list(region.box),
        "score": region.score,
        "segmentation": encode(region_mask([region], size)),
    }
    if region.mark:
        result["mark"] = region.mark
    return result


def _box(pixels: np.ndarray) -> tuple[int, int, tuple[slice, slice]]:
    """x, y, and rows and columns of the box around the pixels of a bool mask that is not empty."""
    x, y, width, height = cv2.boundingRect(pixels.view(np.uint8))
    return x, y, np.s_[y : y + height, x : x + width]


def _bridged(found: np.ndarray, reach: float) -> np.ndarray:
    """uint8 (H, W): the found pixels and those of the gaps between them, bridged up to twice ``reach`` pixels."""
    plain = found.astype(np.uint8)
    if reach < 1 or found.all():
        return plain
    # Two regions are joined where their areas, enlarged by half the gap, meet.
    away = cv2.distanceTransform(1 - plain, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    bridged: np.ndarray = (away <= reach).astype(np.uint8)
    return bridged


def _aspect(pixels: np.ndarray) -> float:
    """Length over width of the smallest rectangle around the pixels, which may be turned."""
    _, (first, second), _ = cv2.minAreaRect(np.argwhere(pixels)[:, ::-1].astype(np.int32))
    # Its sides run through the centres of pixels: half a pixel is missing at either end.
    return (max(first, second) + 1) / (min(first, second) + 1)
