"""The input of the network: a picture fitted into it, and the grid cells that the part covers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from defectflow.backbones.network_settings import NetworkSettings
from defectflow.images.read_write import letterbox

RIM = 0  # pixels around a long picture that mirror it, at least: zeros next to it would look like a defect
STEPS = (32, 28, 16, 14, 8, 4, 2, 1)  # strides of convolutional networks and patches of transformers, in pixels


class Scale(NamedTuple):
    """A size at which the network sees a picture.

    Attributes:
        reduction: what the sides of the network's input are divided by.
        grid: (height, width) of the grid of patches.
    """

    reduction: int
    grid: tuple[int, int]


def scales_of(network: Mapping[str, Any]) -> list[Scale]:
    """The scales of a network's settings, as patch files, banks and bundles have them; the input as it is first.

    >>> scales_of({"grid": [64, 64], "coarser": [{"reduction": 2, "grid": [32, 32]}]})
    [Scale(reduction=1, grid=(64, 64)), Scale(reduction=2, grid=(32, 32))]
    """
    coarser = [Scale(scale["reduction"], tuple(scale["grid"])) for scale in network.get("coarser", [])]
    return [Scale(1, tuple(network["grid"])), *coarser]


def input_in_words(network: Mapping[str, Any]) -> str:
    """Width and height of the network's input at each scale, of settings as `scales_of` takes them.

    >>> input_in_words({"input_size": [256, 384], "coarser": [{"reduction": 2, "grid": [16, 24]}]})
    '384 x 256 and 192 x 128'
    >>> input_in_words({"input_size": [2048, 4096], "tiles": {"size": 1024, "overlap": 128}})
    '4096 x 2048 (in tiles of 1024)'
    """
    height, width = network["input_size"]
    reductions = [1, *(scale["reduction"] for scale in network.get("coarser", []))]
    tiles = f" (in tiles of {network['tiles']['size']})" if network.get("tiles") else ""
    return " and ".join(f"{width // k} x {height // k}" for k in reductions) + tiles


class Loaded(NamedTuple):
    """An isolated image as the network sees it.

    Attributes:
        picture: uint8 RGB (height, width, 3) of the network's input; None once it is embedded.
        cells: int64 (n,), flat indices of the grid's cells to keep; all that show the picture if the part is absent.
            With several scales the cells of each are counted on from those of the scale before.
        present: whether the part is in the picture.
        affine: float64 (2, 3), from pixel coordinates of the input to those of the original frame.
    """

    picture: np.ndarray | None
    cells: np.ndarray
    present: bool
    affine: np.ndarray


def sizes_of(
    settings: NetworkSettings, shape: Mapping[str, Any] | None = None
) -> tuple[tuple[int, int], tuple[int, int], int | None]:
    """(height, width) that a picture is fitted into, and of what is cut from the middle of that; and the rim.

    Where the pictures of a set are long and nothing is cut, their shorter side gets the side of the square, but they
    are not enlarged for that beyond the area of the square. The sides are multiples of what networks reduce them by.

    Args:
        settings: of the network.
        shape: what the stage picture_shape says of the set; None: nothing.
    """
    side = settings.sizes[0]
    crop = settings.center_crop
    if crop or not (shape and shape["long"] and settings.input_shape == "auto"):
        return (side, side), (crop or side, crop or side), None
    sides = shape["height"], shape["width"]
    scale = min(side / min(sides), max(1.0, side / math.sqrt(sides[0] * sides[1])))
    unit = next(step for step in STEPS if side % step == 0) * (side // settings.sizes[-1])
    height, width = (math.ceil((scale * length + 2 * RIM - 1e-6) / unit) * unit for length in sides)
    return (height, width), (height, width), RIM


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
    scales: Sequence[Scale],
    dilation: int,
    crop: tuple[int, int] | None = None,
    turn: float = 0.0,
    rim: int | None = None,
) -> Loaded:
    """Fit an isolated picture into the network's input.

    Args:
        image: uint8 RGB (height, width, 3), what ``window`` of the photograph shows.
        mask: bool (height, width), the part; None where all cells count that show the picture.
        window: x0, y0, x1, y1 in pixels of the photograph.
        size: (height, width) that the picture is fitted into.
        scales: see `scales_of`.
        dilation: radius by which the part is enlarged, in pixels of the input as a scale has it.
        crop: (height, width) of the network's input, cut out of the middle of that; None: all of it.
        turn: degrees by which the window is turned around its centre, from x to y.
        rim: pixels around the picture that mirror it, at least; None: what it does not fill is black. Cells that
            show nothing but mirrored pixels do not count: a picture of another shape than the set's has many.
    """
    picture, affine = _fit(image, size, crop or size, rim)
    x0, y0, x1, y1 = window
    scale = np.array([(x1 - x0) / image.shape[1], (y1 - y0) / image.shape[0]])
    affine = affine * scale[:, None]
    affine[:, 2] += (scale - 1) / 2 + (x0, y0)
    if turn:
        affine = turned(affine, window, turn)
    fitted = None if mask is None else _fit(mask, size, crop or size, rim)[0] > 0
    present = fitted is None or bool(fitted.any())
    shown = None if rim is None else _fit(np.ones(image.shape[:2], bool), size, crop or size, rim)[0] > 0
    of_each = list[np.ndarray]()
    for reduction, grid in scales:
        cells = np.ones(grid, bool) if shown is None else object_cells(shown, grid, 0)
        if fitted is not None and present:
            cells = cells & object_cells(fitted, grid, dilation * reduction)
        of_each.append(cells)
    return Loaded(picture, np.flatnonzero(np.concatenate([cells.ravel() for cells in of_each])), present, affine)


def turned(affine: np.ndarray, window: tuple[int, int, int, int], turn: float) -> np.ndarray:
    """An affine (2, 3) into a photograph, followed by a turn of ``turn`` degrees around the centre of ``window``."""
    x0, y0, x1, y1 = window
    centre = np.array([x0 + x1 - 1, y0 + y1 - 1]) / 2
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    rotation = np.array([[cos, -sin], [sin, cos]])
    result: np.ndarray = rotation @ affine
    result[:, 2] += centre - rotation @ centre
    return result


def _fit(
    image: np.ndarray, size: tuple[int, int], crop: tuple[int, int], rim: int | None
) -> tuple[np.ndarray, np.ndarray]:
    picture, affine = letterbox(image, size, rim=rim)
    top, left = ((whole - part) // 2 for whole, part in zip(size, crop, strict=True))
    affine[:, 2] += affine[:, :2] @ (left, top)
    return picture[top : top + crop[0], left : left + crop[1]], affine
