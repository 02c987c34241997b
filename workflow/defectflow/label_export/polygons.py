"""Masks to polygons that give the same mask again, holes included."""

import cv2
import numpy as np

FINE = 2  # times the resolution at which outlines are followed: then they run between the centres of pixels
SMALL = 400  # pixels: regions up to this area keep every corner
TOLERANCE = 0.5  # pixels by which the outline of a larger one may be simplified


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] of a bool mask (height, width), in pixels, the corner of the picture being 0, 0.

    A polygon for each connected region; holes are joined to its outline by a cut of no width, so that formats that know
    no holes keep them. Corners differ from those of the mask by TOLERANCE at most.
    """
    if not mask.any():
        return []
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    fine = cv2.resize(window, None, fx=FINE, fy=FINE, interpolation=cv2.INTER_NEAREST)
    contours, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_simplified(contour) / FINE + (columns[0], rows[0]) for contour in contours]
    found = []
    for number, (*_, parent) in enumerate(tree[0]):
        if parent < 0:
            holes = [rings[n] for n, (*_, above) in enumerate(tree[0]) if above == number]
            found.append(_joined(rings[number], holes).round(2).ravel().tolist())
    return found


def _simplified(contour: np.ndarray) -> np.ndarray:
    """Corners float (n, 2) at the fine resolution; at least three."""
    points: np.ndarray = contour[:, 0]
    if cv2.contourArea(contour) > SMALL * FINE**2:
        points = cv2.approxPolyDP(contour, TOLERANCE * FINE, True)[:, 0]
    if len(points) < 3:  # a line of pixels: its box
        (x, y), (right, bottom) = points.min(0), points.max(0)
        points = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
    return points.astype(float) + 0.5


def _joined(ring: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """An outline with its holes: each is entered and left at the corner that is nearest to what is joined already.

    The nearest hole comes first, so that no cut crosses another hole.
    """
    left = list(holes)
    while left:
        nearest = []
        for hole in left:
            away = np.square(ring[:, None] - hole[None]).sum(-1)
            nearest.append((away.min(), *np.unravel_index(away.argmin(), away.shape)))
        which = min(range(len(left)), key=lambda n: nearest[n][0])
        _, at, start = nearest[which]
        hole = np.roll(left.pop(which), -start, axis=0)
        ring = np.concatenate([ring[: at + 1], hole, hole[:1], ring[at:]])
    return ring
