"""Isolate the part: normalise light, fill the background, cut out its window. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from defectflow.isolation.part_square import reach, shown, square_of
from defectflow.isolation.settings import IsolationSettings

if TYPE_CHECKING:  # inspection of new photographs does not import pandas
    import pandas as pd

BACKGROUNDS = ("keep", "zero", "mean")
NORMALISATIONS = ("none", "brightness", "gray_world", "contrast", "clahe")
# Mean grey level of the part after `brightness`: mid-grey leaves head-room for highlights on both kinds of backbone.
BRIGHTNESS_TARGET = 110.0


class Isolated(NamedTuple):
    """The part of one photograph.

    Attributes:
        picture: uint8 RGB (height, width, 3), the content of the window, scaled if the isolation is tight.
        mask: bool (height, width), the part in it, grown by ``dilate``.
        window: x0, y0, x1, y1 in pixels of the photograph, may exceed it.
        turn: degrees by which the window is rotated around its centre, from x to y.
    """

    picture: np.ndarray
    mask: np.ndarray
    window: tuple[int, int, int, int]
    turn: float


def normalise_light(image: np.ndarray, inside: np.ndarray, how: str) -> np.ndarray:
    """Normalise the light of a photograph.

    Args:
        image: uint8 (height, width, 3), RGB.
        inside: bool (height, width), the part; statistics come from here, or from the whole photograph if it is empty.
        how: "none"; "brightness" scales to a fixed mean of the part (gain within 1/8 to 8); "gray_world" scales each
            channel so that the part is grey on average, its mean kept; "contrast" stretches all channels alike so that
            the grey levels of the part, but for 1 % at each end, fill the range from 0 to 255; "clahe" equalises L of
            CIE Lab locally (clip limit 2, 8x8 tiles).

    Returns:
        uint8 (height, width, 3).
    """
    if how == "none":
        return image
    if how == "clahe":
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[..., 0])
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    # Tables of the 256 values: a photograph of 100 megapixels in float64 would take 2.4 GB.
    part = inside.view(np.uint8) if inside.any() else None
    values = np.arange(256)[:, None]
    if how == "contrast":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        shares = cv2.calcHist([grey], [0], part, [256], [0, 256]).cumsum()
        dark, bright = np.searchsorted(shares, shares[-1] * np.array([0.01, 0.99]))
        stretched = (values - dark) * (255 / max(bright - dark, 8))
    else:
        means = np.maximum(cv2.mean(image, mask=part)[:3], 1.0)
        target = BRIGHTNESS_TARGET if how == "brightness" else means.mean()
        stretched = values * np.clip(target / (means.mean() if how == "brightness" else means), 1 / 8, 8)
    # A single column where all channels change alike: OpenCV looks that up in a third of the time.
    table = np.clip(stretched + 0.5, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def fill_background(image: np.ndarray, inside: np.ndarray, how: str) -> np.ndarray:
    """Fill the pixels outside the part: "keep" them, "zero" them, or set them to the part's "mean" colour.

    Args:
        image: uint8 (height, width, 3).
        inside: bool (height, width); if it is empty, the image is returned unchanged (an absent part is never zeroed).
        how: one of BACKGROUNDS.

    Returns:
        uint8 (height, width, 3).
    """
    if how == "keep" or not inside.any():
        return image
    part = inside.view(np.uint8)
    if how == "zero":
        return cv2.copyTo(image, part)
    filled = np.empty_like(image)
    filled[:] = mean_colour(image, inside)
    return cv2.copyTo(image, part, filled)


def mean_colour(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean of the pixels inside, uint8 (3,); black without any."""
    return np.round(image[inside].mean(axis=0)).astype(np.uint8) if inside.any() else np.zeros(3, np.uint8)


def crop_geometry(pairs: pd.DataFrame, margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Size (width, height) of a window that fits every part of a PAIRS table, and (x, y) of their mean centre.

    In units of the photograph's longer side, so the window shows the same area at any resolution.

    Args:
        pairs: columns PAIRS.
        margin: share of the size added on each side, >= 0.
    """
    drawn = pairs[pairs["pair"] != ""]
    boxes = drawn[["bbox_x", "bbox_y", "bbox_width", "bbox_height"]].to_numpy(float)
    boxes = boxes / drawn[["width", "height"]].to_numpy(float).max(axis=1, keepdims=True)
    size = boxes[:, 2:].max(axis=0) * (1 + 2 * margin)
    return tuple(size.tolist()), tuple((boxes[:, :2] + boxes[:, 2:] / 2).mean(axis=0).tolist())


def geometry_of(extent: dict[str, list[float]], margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """As :func:`crop_geometry`, if few photographs are outlined: from the extent of all parts found with them.

    Args:
        extent: "size" (width, height) of the largest and "centre" (x, y), see `prior.extent_of`.
        margin: see :func:`crop_geometry`.
    """
    (width, height), (x, y) = extent["size"], extent["centre"]
    return (width * (1 + 2 * margin), height * (1 + 2 * margin)), (x, y)


def crop_window(inside: np.ndarray, size: tuple[int, int], fallback: tuple[float, float]) -> tuple[int, int, int, int]:
    """Window of constant ``size`` (width, height) around the part: x0, y0, x1, y1 in pixels, may exceed the frame.

    The centre is that of the part's bounding box, or ``fallback`` (x, y) if the part is absent.
    """
    if inside.any():
        x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
        fallback = (x + width / 2, y + height / 2)
    x0, y0 = (int(np.floor(c - side / 2 + 0.5)) for c, side in zip(fallback, size, strict=True))
    return x0, y0, x0 + size[0], y0 + size[1]


def cut(image: np.ndarray, window: tuple[int, int, int, int], fill: np.ndarray | int = 0) -> np.ndarray:
    """Cut ``window`` (x0, y0, x1, y1) out of an image or mask; beyond the frame it is filled with ``fill``, a colour.

    A window within the frame is a view.
    """
    x0, y0, x1, y1 = window
    if 0 <= x0 <= x1 <= image.shape[1] and 0 <= y0 <= y1 <= image.shape[0]:
        return image[y0:y1, x0:x1]
    result = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, image.dtype)
    top, left, bottom, right = max(0, y0), max(0, x0), min(y1, image.shape[0]), min(x1, image.shape[1])
    if top < bottom and left < right:
        result[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return result


def isolate(image: np.ndarray, mask: np.ndarray, background: str, normalise: Sequence[str], dilate: int) -> np.ndarray:
    """Isolate the part of a photograph (uint8 RGB) by its mask (bool, same size); ``dilate`` in pixels."""
    for how in normalise:
        image = normalise_light(image, mask, how)
    return fill_background(image, grow(mask, dilate), background)


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a bool mask by a disc of ``pixels`` radius."""
    if pixels == 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.view(np.uint8), disc).view(bool)


def isolate_part(
    image: np.ndarray,
    mask: np.ndarray,
    settings: IsolationSettings,
    size: tuple[float, float] | None = None,
    centre: tuple[float, float] | None = None,
) -> Isolated:
    """Isolate the part and cut out its window.

    Args:
        image: uint8 RGB (height, width, 3).
        mask: bool (height, width), the part.
        settings: of the isolation.
        size, centre: of the window of a crop, from :func:`crop_geometry`; None: the whole frame.
    """
    frame = (0, 0, image.shape[1], image.shape[0])
    # Only the needed pixels are processed: in a large photograph the part is a small share. Without a part, the
    # statistics come from the whole photograph, and `clahe` uses all tiles.
    background, normalise, dilate = settings.background, settings.normalise, settings.dilate
    whole = "clahe" in normalise or not mask.any()
    box = frame if whole else _around(mask, dilate)
    inside = grow(cut(mask, box), dilate)
    window, turn, tight = frame, 0.0, None
    if size is not None and centre is not None:
        longer = max(image.shape[:2])
        sides = tuple(int(np.ceil(share * longer - 1e-6)) for share in size)  # rounding errors must not add a pixel
        x, y = centre[0] * longer - box[0], centre[1] * longer - box[1]
        window = _moved(crop_window(inside, (sides[0], sides[1]), (x, y)), box[0], box[1])
    elif (tight := settings.tight) is not None:
        window, turn = square_of(inside, settings.margin, settings.upright)
        window = _moved(window, box[0], box[1])
    # With "zero" the surroundings are black anyway; a window that is computed whole is not copied.
    needed = reach(window, turn) if turn else window
    seen = box if whole or (background == "zero" and (window == frame or tight)) else _both(box, needed, frame)
    picture = isolate(cut(image, seen), cut(mask, seen), background, normalise, dilate)
    within, of_mask = _moved(window, -seen[0], -seen[1]), _moved(window, -box[0], -box[1])
    fill = np.zeros(3, np.uint8)
    if background == "mean" and needed != _both(needed, needed, frame):  # beyond the frame there is background too
        fill = mean_colour(picture, grow(cut(mask, seen), dilate))
    if tight is not None:
        return Isolated(shown(picture, within, turn, tight, fill), shown(inside, of_mask, turn, tight), window, turn)
    return Isolated(cut(picture, within, fill), cut(inside, of_mask), window, turn)


def _around(mask: np.ndarray, margin: int) -> tuple[int, int, int, int]:
    """Window around a mask that is not empty, with a margin within the frame."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (
        max(0, x - margin),
        max(0, y - margin),
        min(mask.shape[1], x + width + margin),
        min(mask.shape[0], y + height + margin),
    )


def _both(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int], frame: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Smallest window that contains two others, within the frame."""
    x0, y0, x1, y1 = (*map(min, one[:2], other[:2]), *map(max, one[2:], other[2:]))
    return max(x0, frame[0]), max(y0, frame[1]), min(x1, frame[2]), min(y1, frame[3])


def _moved(window: tuple[int, int, int, int], x: int, y: int) -> tuple[int, int, int, int]:
    return window[0] + x, window[1] + y, window[2] + x, window[3] + y
