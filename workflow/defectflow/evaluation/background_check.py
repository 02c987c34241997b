"""Detect that a run without masks judges the background: the border differs between photographs and has much heat.

Uses small copies and stored maps of some photographs; no network runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import cv2
import numpy as np

from defectflow.core.anomaly_maps import AnomalyMap, full_resolution
from defectflow.evaluation.claims import percent
from defectflow.images.read_write import read_rgb

SIDE = 64  # pixels of a small copy
RIM = 0.08  # share of a side that counts as border, at either end
MOST = 40  # most photographs that are compared
# In units of a photograph's own contrast. With the same background, detail differs by 0.19 to 0.27 (impellers,
# figurines, screws, cookies on one tray), otherwise by 0.34 to 0.55; brightness differs by 0.24 to 0.45 (also if the
# light or the size of the part changes) and by 0.54 to 0.98.
DETAIL, BRIGHTNESS = 0.30, 0.60
HEAT = 0.15  # share of the heat near the border, half of what an even spread gives: 0.08 to 0.11 against 0.25 to 0.32
ALIKE = 0.6  # above this correlation, two photographs show the same thing in the same place and not only texture


class Border(NamedTuple):
    """How far the border of photographs differs, each from the median of the others.

    Attributes:
        detail, brightness: root mean square difference without and with coarse structure, mean over the photographs, in
            units of a photograph's contrast; a uniform shift of the whole border does not count.
        alike: correlation of a photograph with the most similar other one, median over the photographs; the larger of
            that of the whole frame and of its middle.
    """

    detail: float
    brightness: float
    alike: float

    @property
    def differs(self) -> bool:
        """Whether the content of the border differs from picture to picture."""
        return self.detail >= DETAIL or self.brightness >= BRIGHTNESS


def small_copy(photo: np.ndarray) -> np.ndarray:
    """A photograph (uint8 RGB [H, W, 3]) in grey, float32 [SIDE, SIDE], with mean 0 and contrast (deviation) 1."""
    grey = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    copy: np.ndarray = (grey - grey.mean()) / max(float(grey.std()), 8.0)  # of 255 levels: less is noise
    return copy


def compare(copies: np.ndarray) -> Border:
    """Compare small copies, float [N, SIDE, SIDE], N >= 3, see `small_copy`."""
    rim = near_border((SIDE, SIDE))
    fine = np.stack([copy - cv2.GaussianBlur(copy, (0, 0), SIDE / 16) for copy in copies])
    found = []
    for n in range(len(copies)):
        others = np.arange(len(copies)) != n
        apart = [kind[n] - np.median(kind[others], axis=0) for kind in (fine, copies)]
        found.append([float((a[rim] - np.median(a[rim])).std()) for a in apart])
    middle = copies[:, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    alike = [np.corrcoef(pictures.reshape(len(copies), -1)) - 2 * np.eye(len(copies)) for pictures in (copies, middle)]
    detail, brightness = map(float, np.mean(found, axis=0))
    return Border(detail, brightness, max(float(np.median(pairs.max(axis=1))) for pairs in alike))


def near_border(size: tuple[int, int]) -> np.ndarray:
    """bool of this size (height, width): within RIM of the border."""
    ring = np.ones(size, bool)
    rows, columns = (max(1, round(RIM * side)) for side in size)
    ring[rows:-rows, columns:-columns] = False
    return ring


def heat_near_border(maps: Sequence[AnomalyMap], sizes: Sequence[tuple[int, int]]) -> float | None:
    """Share of the heat of some photographs that lies within RIM of their border, in [0, 1]; None without any heat.

    Heat is what exceeds the median of all these maps. ``sizes``: (height, width) of the photographs.
    """
    heats = []
    for anomaly, (height, width) in zip(maps, sizes, strict=True):
        scale = SIDE / max(height, width)
        reduced = max(8, round(height * scale)), max(8, round(width * scale))
        factor = np.array([reduced[1] / width, reduced[0] / height])
        affine = anomaly.affine * factor[:, None]
        affine[:, 2] += (factor - 1) / 2
        heats.append(full_resolution(anomaly.grid_map, affine, anomaly.input_size, reduced, anomaly.sigma))
    level = np.median(np.concatenate([heat.ravel() for heat in heats]))
    excess = [np.clip(heat - level, 0, None) for heat in heats]
    total = sum(float(e.sum()) for e in excess)
    return sum(float(e[near_border(e.shape)].sum()) for e in excess) / total if total > 0 else None


class Background(TypedDict):
    """``background`` in metrics.json; see `Border`, and `heat_near_border` for the shares."""

    n_photographs: int
    border_detail: float
    border_brightness: float
    border_differs: bool
    alike: float
    heat_near_border: float | None
    even_share: float
    warning: str | None


def background_figures(
    photographs: Mapping[str, tuple[Any, ...]], maps: Mapping[str, AnomalyMap], depth: str | None = None
) -> Background | None:
    """Section ``background`` of metrics.json: how much the border differs, and a warning or None.

    Args:
        photographs: path, width and height by image_id.
        maps: by image_id; those of copies, which are not among the photographs, are ignored.
        depth: of the photographs, see `read_rgb`.

    Returns:
        None where there are fewer than three photographs to compare.
    """
    ids = [image_id for image_id in maps if image_id in photographs]
    if len(ids) < 3:
        return None
    ids = [ids[n] for n in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MOST)).astype(int))]
    border = compare(np.stack([small_copy(read_rgb(photographs[image_id][0], depth)) for image_id in ids]))
    sizes = [(int(photographs[image_id][2]), int(photographs[image_id][1])) for image_id in ids]
    share = heat_near_border([maps[image_id] for image_id in ids], sizes)
    even = 1 - (1 - 2 * RIM) ** 2
    text = None
    if border.differs and share is not None and share >= HEAT:
        where = (
            f"no part is masked, their border differs from picture to picture, and {percent(round(share, 2))} of the "
            f"heat lies within {percent(RIM)} of it (spread evenly it would be {percent(round(even, 2))})"
        )
        sure = border.alike >= ALIKE  # photographs filled with texture are never alike
        what = "The background of these photographs is" if sure else "If these photographs show a background, it is"
        text = f"{what} being judged: {where}. With outlines of the part on a dozen photographs (data/README.md) and "
        text += "--config segmenter=template the part alone is judged."
    return {
        "n_photographs": len(ids),
        "border_detail": border.detail,
        "border_brightness": border.brightness,
        "border_differs": border.differs,
        "alike": border.alike,
        "heat_near_border": share,
        "even_share": even,
        "warning": text,
    }
