"""Pixel-level metrics of anomaly maps against ground-truth masks, one image in memory at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow import metrics, thresholds
from defectflow.anomaly_maps import AnomalyMaps, full_resolution, smooth_map
from defectflow.files import UserError
from defectflow.images import read_mask
from defectflow.verdicts import counted

PIXEL_SIDE = 1024  # frames are scaled down so that the longer side is at most this
AU_PRO_LIMIT = 0.3
MEANING = (
    "Defective against defect-free pixels of the labelled images, on frames of at most 1024 pixels, in 65,536 score "
    "bins (areas exact to about 1e-4); f1_max takes its threshold from the same pixels. in_part: only pixels of the "
    "part's mask count, which leaves out the easy background."
)


def pixel_figures(
    table: pd.DataFrame, maps: AnomalyMaps, masks: pd.DataFrame, strategy: str, options: Mapping[str, float]
) -> dict[str, Any]:
    """Pixel metrics where ground-truth masks exist, in the full frame and inside the part, and the map's threshold.

    Raises:
        UserError: a ground-truth or part mask differs in size from its photograph; without ground-truth masks, the
            strategy finds no threshold on the peaks of the maps.
    """
    known = table[counted(table) & table["image_id"].isin(list(maps))]
    part = dict(zip(masks["image_id"], masks["mask"], strict=True))
    part = {i: path for i, path in part.items() if path}
    marked = (known["label"] == 1) & (known["mask"] != "")
    result: dict[str, Any] = {
        "full_frame": None,
        "in_part": None,
        "n_images": 0,
        "n_bad_with_mask": int(marked.sum()),
        "n_bad_without_mask": int(((known["label"] == 1) & ~marked).sum()),
        "components_off_the_part": None,
        "map_threshold": None,
    }
    low, high = map_range(maps, known["image_id"])
    if marked.any():
        off_part = 0
        frame, inside = metrics.PixelCurves(low, high), metrics.PixelCurves(low, high)
        rows = known[(known["label"] == 0) | marked]
        for row in tqdm(rows.itertuples(), total=len(rows), desc="pixel metrics"):
            heat, truth, region = _pixels(row, maps, part.get(row.image_id))
            frame.add(heat, truth)
            if region is not None:
                inside.add(heat, truth, region)
                if truth is not None:
                    off_part += _components_outside(truth, region)
        result["n_images"] = len(rows)
        result["full_frame"] = frame.figures(AU_PRO_LIMIT)
        if part:
            result["in_part"] = inside.figures(AU_PRO_LIMIT)
            result["components_off_the_part"] = off_part
        best = result["in_part"] if part and result["in_part"]["f1_max"] is not None else result["full_frame"]
        if best["f1_max"] is not None:
            result["map_threshold"] = {"value": best["f1_max_threshold"], "rule": "largest pixel F1"}
    elif len(known):
        peaks = [float(_smooth(maps, i).max()) for i in tqdm(known["image_id"], desc="map peaks")]
        try:
            chosen = thresholds.calibrate(np.array(peaks), known["label"].to_numpy(int), strategy, **options)
        except ValueError as error:
            raise UserError(f"threshold: {strategy} on the peaks of the maps: {error} (choose another)") from None
        result["map_threshold"] = {"value": chosen.value, "rule": f"{strategy} on the peaks of the maps"}
    result["meaning"] = MEANING
    return result


def map_range(maps: AnomalyMaps, image_ids: Sequence[str]) -> tuple[float, float]:
    """Smallest and largest value of the grid maps; smoothing and interpolation stay within."""
    bounds = [(float(m.min()), float(m.max())) for m in (maps[i].grid_map for i in image_ids)]
    return (min(b[0] for b in bounds), max(b[1] for b in bounds)) if bounds else (0.0, 1.0)


def _pixels(row: Any, maps: AnomalyMaps, part: str | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Map, defect mask (None: good) and part mask (None: unknown) of one image, at most PIXEL_SIDE pixels long."""
    scale = min(1.0, PIXEL_SIDE / max(row.width, row.height))
    size = (max(1, round(row.height * scale)), max(1, round(row.width * scale)))
    truth = _mask(row.mask, (row.height, row.width), size) if row.label == 1 else None
    region = _mask(part, (row.height, row.width), size) if part else None
    return _frame(maps, row.image_id, (row.height, row.width), size), truth, region


def _mask(path: str, frame: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    mask = read_mask(path)
    if mask.shape != tuple(frame):
        raise UserError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its photograph {frame[1]}x{frame[0]}"
        )
    # Area averaging keeps a defect that is thinner than a pixel of the smaller frame.
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.25


def _components_outside(truth: np.ndarray, region: np.ndarray) -> int:
    count, component = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    return count - len(np.unique(component[region & truth])) - 1


def _smooth(maps: AnomalyMaps, image_id: str) -> np.ndarray:
    """The smoothed map in the frame of the model's input: cheap, with the same peaks as at full resolution."""
    entry = maps[image_id]
    return smooth_map(entry.grid_map, entry.input_size)


def _frame(maps: AnomalyMaps, image_id: str, frame: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The map of ``frame`` (height, width) scaled to ``size``."""
    entry = maps[image_id]
    ratio = np.array([size[1] / frame[1], size[0] / frame[0]])
    affine = entry.affine * ratio[:, None]
    affine[:, 2] += (ratio - 1) / 2  # pixel centres, not corners, keep their place under scaling
    return full_resolution(entry.grid_map, affine, entry.input_size, size)
