"""Where defects lie and how large they are: from ground-truth masks, or from the regions of a run where there are none.

Masks are laid over each other in the frame of the photograph, each stretched to the same grid.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.core.disk_index import DiskIndex
from defectflow.core.parallel import in_order
from defectflow.evaluation.scored_images import damage_at
from defectflow.images.read_write import read_mask

SIDE = 96  # cells, longer side of the grid


class Places(NamedTuple):
    """Defects of a data set.

    Attributes:
        source: "ground truth", or "regions" of a run.
        bad: how many photographs are labelled bad.
        marked: how many of them have a mask (or region) that is not empty.
        frames: by class, and "" for all: share of the marked photographs whose defect covers a cell, float32
            (rows, columns) from 0 to 1.
        kinds: by class, and "" for all: n, area (smallest, median and largest share of the photograph), spots (median
            number of separate ones in a photograph).
    """

    source: str
    bad: int
    marked: int
    frames: Mapping[str, np.ndarray]
    kinds: Mapping[str, Mapping[str, Any]]


def grid_of(table: pd.DataFrame) -> tuple[int, int]:
    """Rows and columns of the grid: the median proportions of the photographs, SIDE on the longer side."""
    ratio = float((table["width"] / table["height"]).median())
    return (max(1, round(SIDE / ratio)), SIDE) if ratio >= 1 else (SIDE, max(1, round(SIDE * ratio)))


def places(table: pd.DataFrame, regions: DiskIndex | None, threads: int = 1) -> Places | None:
    """Measure the defects of all bad photographs; None if nothing marks any.

    Args:
        table: see `photographs.photographs`; mask is the path of a ground-truth mask, "" for none.
        regions: of a run (see `scored_images.damage_index`), used where no photograph has a mask.
        threads: masks at a time.
    """
    bad = table[table["label"] == 1]
    masked = bad[bad["mask"] != ""]
    if len(masked):
        return _measured("ground truth", masked, len(bad), lambda row: read_mask(row.mask), grid_of(table), threads)
    if regions is None or bad.empty:
        return None
    index = regions

    def found(row: Any) -> np.ndarray:
        damage = damage_at(index, row.image_id, (int(row.height), int(row.width)))
        return np.zeros((1, 1), bool) if damage.mark else damage.pixels

    return _measured("regions", bad, len(bad), found, grid_of(table), threads)


def _measured(
    source: str, rows: pd.DataFrame, bad: int, mask_of: Callable[[Any], np.ndarray], grid: tuple[int, int], threads: int
) -> Places | None:
    def measure(row: Any) -> tuple[str, float, int, np.ndarray]:
        mask = mask_of(row)
        spots = cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
        cells = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
        return row.kind, float(mask.mean()), spots, cells

    cv2.setNumThreads(1)
    sums: dict[str, np.ndarray] = {}
    seen: dict[str, list[tuple[float, int]]] = {}
    wanted = rows.rename(columns={"class": "kind"}).itertuples()
    for kind, area, spots, cells in tqdm(in_order(measure, wanted, threads), desc="defects", total=len(rows)):
        if not area:
            continue
        for key in ("", kind):
            sums[key] = sums.get(key, np.zeros(grid, np.float32)) + cells
            seen.setdefault(key, []).append((area, spots))
    if not seen:
        return None
    kinds = {
        key: {
            "n": len(found),
            "area": [float(v) for v in np.quantile([area for area, _ in found], (0, 0.5, 1))],
            "spots": float(np.median([spots for _, spots in found])),
        }
        for key, found in seen.items()
    }
    frames = {key: total / len(seen[key]) for key, total in sums.items()}
    return Places(source, bad, len(seen[""]), frames, kinds)
