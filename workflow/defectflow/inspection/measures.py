"""Light, focus, place and grain of the part in a photograph: what drifts when a lamp ages or a camera is moved."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SIDE = 1024  # pixels, longest side of the picture that is measured: noise of larger ones would count as sharpness
REFERENCE = 64  # pixels, side of the picture that a photograph without a mask is laid on
MARGIN = 10  # pixels of these that it may be shifted by


class Measures(NamedTuple):
    """What is measured in a photograph; NaN where it cannot be.

    Attributes:
        exposure: mean grey value of the part (of the photograph, without a mask) in [0, 1].
        sharpness: mean square of the Laplacian there, divided by that of the grey value: darker pictures are not less
            sharp.
        area: share of the photograph that the part covers.
        x, y: centre of the part, as a share of width and height; without a mask 0.5 plus the shift against the mean
            good photograph.
        grain: mean distance of grey values there from the median of the 3 x 3 around, divided by their mean. Edges
            and contours are their own median: what is left is the finish of the surface, dust, and noise.
    """

    exposure: float
    sharpness: float
    area: float
    x: float
    y: float
    grain: float


def measure(photo: np.ndarray, part: np.ndarray | None = None, reference: np.ndarray | None = None) -> Measures:
    """Measure an upright photograph.

    Args:
        photo: uint8 RGB (height, width, 3).
        part: bool (height, width), its mask; None where nothing is masked. An empty one gives NaN.
        reference: float32 (REFERENCE, REFERENCE), see `small`: the mean of good photographs, in place of a mask.
    """
    scale = min(1.0, SIDE / max(photo.shape[:2]))
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    grey = grey if scale == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    area = x = y = np.nan
    where = np.ones(grey.shape, bool)
    if part is not None:
        where = cv2.resize(part.view(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
        if not where.any():
            return Measures(*[np.nan] * len(Measures._fields))
        rows, columns = np.nonzero(where)
        area, x, y = where.mean(), (columns.mean() + 0.5) / size[0], (rows.mean() + 0.5) / size[1]
    elif reference is not None:
        x, y = shift(reference, small(photo)).values()
    exposure = float(grey[where].mean()) / 255
    inner = cv2.erode(where.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # not the edge of the part itself
    inside, level = inner if inner.any() else where, max(255 * exposure, 1.0)
    sharpness = float(np.square(cv2.Laplacian(grey, cv2.CV_32F)[inside]).mean()) / level**2
    grain = float(cv2.absdiff(grey, cv2.medianBlur(grey, 3))[inside].mean()) / level
    return Measures(exposure, sharpness, float(area), float(x), float(y), grain)


def shift(reference: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    """`Measures` x and y of a photograph without a mask, by correlation of what is coarse; at most MARGIN away.

    Args:
        reference, picture: float32 (REFERENCE, REFERENCE), see `small`; the first is the mean of good photographs.
    """
    coarse, middle = (cv2.GaussianBlur(one, (0, 0), 2) for one in (picture, reference))
    template = middle[MARGIN:-MARGIN, MARGIN:-MARGIN]
    found = cv2.matchTemplate(coarse, template, cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(found.argmax(), found.shape)
    places = (x + _between(found[y], int(x)), y + _between(found[:, x], int(y)))
    return {name: 0.5 + float(place - MARGIN) / REFERENCE for name, place in zip("xy", places, strict=True)}


def _between(line: np.ndarray, top: int) -> float:
    """Where the peak of a line lies between its values, from the largest of them: in [-0.5, 0.5]."""
    if not 0 < top < len(line) - 1:
        return 0.0
    left, middle, right = line[top - 1 : top + 2].astype(float)
    bend = left - 2 * middle + right
    return 0.0 if bend == 0 else float(0.5 * (left - right) / bend)


def small(photo: np.ndarray) -> np.ndarray:
    """A photograph, uint8 RGB (height, width, 3), as grey values float32 (REFERENCE, REFERENCE)."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (REFERENCE, REFERENCE), interpolation=cv2.INTER_AREA).astype(np.float32)
