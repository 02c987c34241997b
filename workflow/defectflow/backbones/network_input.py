"""The input of the network: a picture fitted into its square, and the grid cells that the part covers."""

from typing import NamedTuple

import cv2
import numpy as np

from defectflow.images.read_write import letterbox


class Loaded(NamedTuple):
    """An isolated image as the network sees it.

    Attributes:
        picture: uint8 RGB (height, width, 3) of the network's input; None once it is embedded.
        cells: int64 (n,), flat indices of the grid's cells to keep; all of them if the part is absent.
        present: whether the part is in the picture.
        affine: float64 (2, 3), from pixel coordinates of the input to those of the original frame.
    """

    picture: np.ndarray | None
    cells: np.ndarray
    present: bool
    affine: np.ndarray


def object_cells(mask: np.ndarray, grid: tuple[int, int], dilation: int) -> np.ndarray:
    """Cells of the grid that the mask, dilated by ``dilation`` pixels, touches.

    Args:
        mask: bool (height, width), of the size of the network's input.
        grid: (height, width) of the grid.
        dilation: radius in pixels.

    Returns:
        bool of shape ``grid``.
    """
    mask = mask.astype(np.float32)
    if dilation:
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1)))
    return cv2.resize(mask, (grid[1], grid[0]), interpolation=cv2.INTER_AREA) > 0


def fit_picture(
    image: np.ndarray,
    mask: np.ndarray | None,
    window: tuple[int, int, int, int],
    size: tuple[int, int],
    grid: tuple[int, int],
    dilation: int,
    crop: tuple[int, int] | None = None,
    turn: float = 0.0,
) -> Loaded:
    """Fit an isolated picture into the network's input.

    Args:
        image: uint8 RGB (height, width, 3), what ``window`` of the photograph shows.
        mask: bool (height, width), the part; None where all cells of the grid count.
        window: x0, y0, x1, y1 in pixels of the photograph.
        size: (height, width) that the picture is fitted into.
        grid: (height, width) of the grid of patches.
        dilation: radius in pixels of the input by which the part is enlarged.
        crop: (height, width) of the network's input, cut out of the middle of that; None: all of it.
        turn: degrees by which the window is turned around its centre, from x to y.
    """
    picture, affine = _fit(image, size, crop or size)
    x0, y0, x1, y1 = window
    scale = np.array([(x1 - x0) / image.shape[1], (y1 - y0) / image.shape[0]])
    affine = affine * scale[:, None]
    affine[:, 2] += (scale - 1) / 2 + (x0, y0)
    if turn:
        affine = turned(affine, window, turn)
    cells = np.ones(grid, dtype=bool)
    present = True
    if mask is not None:
        fitted, _ = _fit(mask, size, crop or size)
        present = bool(fitted.any())
        if present:
            cells = object_cells(fitted > 0, grid, dilation)
    return Loaded(picture, np.flatnonzero(cells), present, affine)


def turned(affine: np.ndarray, window: tuple[int, int, int, int], turn: float) -> np.ndarray:
    """An affine (2, 3) into a photograph, followed by a turn of ``turn`` degrees around the centre of ``window``."""
    x0, y0, x1, y1 = window
    centre = np.array([x0 + x1 - 1, y0 + y1 - 1]) / 2
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    rotation = np.array([[cos, -sin], [sin, cos]])
    result: np.ndarray = rotation @ affine
    result[:, 2] += centre - rotation @ centre
    return result


def _fit(image: np.ndarray, size: tuple[int, int], crop: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    picture, affine = letterbox(image, size)
    top, left = ((whole - part) // 2 for whole, part in zip(size, crop, strict=True))
    affine[:, 2] += affine[:, :2] @ (left, top)
    return picture[top : top + crop[0], left : left + crop[1]], affine
