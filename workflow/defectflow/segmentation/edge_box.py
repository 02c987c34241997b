"""A box around the part of a photograph, from its edges: the prompt if none is drawn."""

import cv2
import numpy as np

SIDE = 512  # pixels, longest side of the analysed picture
BLUR = 2.0  # sigma in these pixels, so that grain does not count as edges
SHARE = 0.05  # of the edge energy outside the box, on each side
BLANK = 2.0  # grey levels per pixel: a picture whose 99.9th percentile of edges is below is blank
WINDOW = 0.5  # share of the width in which the part is searched for first
FULL = 0.85  # share of a window from which the part in it is assumed to extend beyond it
SHIFTS = 20  # at most; it converges in a few

Box = tuple[float, float, float, float]


def small_grey(image: np.ndarray) -> np.ndarray:
    """A photograph, uint8 RGB (height, width, 3), in grey, uint8 (h, w) with a longest side of SIDE pixels."""
    scale = SIDE / max(image.shape[:2])
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def edge_strength(grey: np.ndarray) -> np.ndarray:
    """Edge strength of a picture, uint8 (h, w) of `small_grey`: float32 (h, w), grey levels per pixel."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), BLUR)
    strength: np.ndarray = np.hypot(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1)) / 32
    return strength


def edge_box(image: np.ndarray, recentre: bool = True, padding: float = 0.1) -> Box | None:
    """The box that contains the edge energy of a photograph, except SHARE of it on each side.

    Args:
        image: uint8 RGB (height, width, 3).
        recentre: use only half the width, in a window that moves sideways from the middle of the frame to the mean
            column of its energy until it converges (mean shift, Comaniciu and Meer 2002), and grows if the box fills
            it. A bright window at the side of a photograph can have stronger edges than the part.
        padding: share of width and height of the box that is added on each side, within the frame.

    Returns:
        x0, y0, x1, y1 as shares of width and height, or None for a blank picture.
    """
    strength = edge_strength(small_grey(image))
    if np.quantile(strength, 0.999) < BLANK:
        return None
    energy = strength**2
    height, width = energy.shape
    columns = energy.sum(axis=0)
    x0, x1 = _recentred(columns) if recentre else _span(columns)
    energy = energy[:, x0:x1]
    y0, y1 = _span(energy.sum(axis=1))
    dx, dy = padding * (x1 - x0), padding * (y1 - y0)
    return (
        max(0.0, (x0 - dx) / width),
        max(0.0, (y0 - dy) / height),
        min(1.0, (x1 + dx) / width),
        min(1.0, (y1 + dy) / height),
    )


def _recentred(columns: np.ndarray) -> tuple[int, int]:
    """As `_span`, for the energy in a window that moves from the middle to its own mean; ``columns``: energy."""
    places, middle, half = np.arange(len(columns)) + 0.5, len(columns) / 2, WINDOW * len(columns) / 2
    while half < len(columns):
        inside = np.abs(places - middle) <= half
        for _ in range(SHIFTS):
            if not columns[inside].any():
                break
            before, middle = middle, float(np.average(places[inside], weights=columns[inside]))
            inside = np.abs(places - middle) <= half
            if abs(middle - before) < 0.5:
                break
        if columns[inside].any():
            x0, x1 = _span(columns * inside)
            if x1 - x0 < FULL * np.count_nonzero(inside):
                return x0, x1
        half *= 1.5
    return _span(columns)


def _span(profile: np.ndarray) -> tuple[int, int]:
    """First and last + 1 position of a profile without SHARE of its sum on each side."""
    shares = np.cumsum(profile, dtype=np.float64) / profile.sum(dtype=np.float64)
    first, last = np.searchsorted(shares, (SHARE, 1 - SHARE))
    return int(first), int(min(last, len(profile) - 1)) + 1
