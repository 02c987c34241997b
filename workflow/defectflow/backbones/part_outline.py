"""The outline of a part at the edges of its picture, from a mask that is near it: for methods that measure outlines.

A path of strong edges around the mask's border, by dynamic programming over offsets along its normals, as in A. Amini,
T. Weymouth, R. Jain, Using dynamic programming for solving variational problems in vision (1990).
"""

from typing import Any

import cv2
import numpy as np

from defectflow.backbones.network_input import Loaded, fit_picture

REACH = 0.02  # share of the shorter side within which the edge is looked for, on both sides of the mask's border
STEP = 0.5  # pixels between the offsets that are compared, and between points of the border
BEND = 0.1  # cost of a step sideways from one point to the next, as a share of a strong edge
AWAY = 0.5  # cost of the farthest offset likewise
SHIFT = 4  # binary digits of a pixel that a polygon is drawn with


def fit_outline(
    image: np.ndarray, mask: np.ndarray, window: Any, size: Any, scales: Any, dilation: int, *more: Any
) -> Loaded:
    """What `fit_picture` gives for an isolated picture and its mask, the part drawn white on black.

    Arguments as there. The cells reach as far from the mask as the outline may.
    """
    wider = dilation + int(np.ceil(REACH * min(size)))
    item = fit_picture(image, mask, window, size, scales, wider, *more)
    white = np.repeat(mask[..., None].view(np.uint8) * 255, 3, axis=2)
    drawn = fit_picture(white, mask, window, size, scales, wider, *more).picture
    assert item.picture is not None and drawn is not None, "taken out only once it is embedded"
    return item._replace(picture=np.repeat(outlined(item.picture, drawn[..., 0])[..., None], 3, axis=2))


def outlined(picture: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The share of each pixel that the part covers, where its outline follows the edges of the picture.

    Where the surroundings are blank because they were cut away, the mask's own border is the strongest edge, and stays.

    Args:
        picture: uint8 RGB (height, width, 3).
        covered: uint8 (height, width), 255 inside of the mask, 0 outside.

    Returns:
        uint8 (height, width): the largest piece of the mask without holes, 0 to 255; all 0 for an empty mask.
    """
    result = np.zeros(covered.shape, np.uint8)
    borders, _ = cv2.findContours((covered >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not borders:
        return result
    border = max(borders, key=cv2.contourArea)[:, 0].astype(float)
    reach = max(2.0, REACH * min(covered.shape))
    if len(border) < 8 * reach:  # too small for a band around it
        cv2.drawContours(result, [border.round().astype(np.int32)[:, None]], -1, 255, cv2.FILLED)
        return result
    points = _evenly(border, STEP)
    points = _averaged(points, reach / 2 / STEP)
    along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    offsets = np.arange(-reach, reach + STEP / 2, STEP)
    places = points[:, None] + normals[:, None] * offsets[None, :, None]
    soft = cv2.GaussianBlur(picture, (0, 0), 0.7)
    x, y = np.moveaxis(places.astype(np.float32), -1, 0)
    band = cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    edges = np.abs(np.gradient(band.astype(np.float32), axis=1)).sum(axis=2)
    edges /= max(float(np.quantile(edges.max(axis=1), 0.5)), 1e-6)
    cost = AWAY * (offsets / reach) ** 2 - np.minimum(edges, 1.5)
    rows = _cheapest(cost)
    found = offsets[rows] + STEP * _between(edges, rows)
    polygon = points + normals * _averaged(found[:, None], 1 / STEP)
    fixed = np.round(polygon * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(result, [fixed[:, None]], 255, cv2.LINE_AA, SHIFT)
    return result


def _evenly(closed: np.ndarray, step: float) -> np.ndarray:
    """Points at equal distances along a closed line (n, 2)."""
    ring = np.vstack([closed, closed[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    at = np.arange(0, length[-1], step)
    return np.stack([np.interp(at, length, ring[:, axis]) for axis in (0, 1)], axis=1)


def _averaged(values: np.ndarray, sigma: float) -> np.ndarray:
    """Values (n, k) around a ring, averaged along it."""
    size = min(len(values) - 1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-size, size + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    ring = np.concatenate([values[-size:], values, values[:size]]) if size else values
    return np.stack([np.convolve(column, kernel, mode="valid") for column in ring.T], axis=1)


def _cheapest(cost: np.ndarray) -> np.ndarray:
    """Column of each row on the cheapest path down ``cost`` (n, k), a column aside at most; it ends where it began."""
    twice = np.concatenate([cost, cost])  # the second round is past where it began
    total, came = twice[0].copy(), np.zeros(twice.shape, np.int8)
    for row in range(1, len(twice)):
        left = np.concatenate([[np.inf], total[:-1]]) + BEND
        right = np.concatenate([total[1:], [np.inf]]) + BEND
        ways = np.stack([left, total, right])
        came[row] = ways.argmin(axis=0) - 1
        total = ways.min(axis=0) + twice[row]
    path = np.empty(len(twice), int)
    path[-1] = total.argmin()
    for row in range(len(twice) - 1, 0, -1):
        path[row - 1] = path[row] + came[row][path[row]]
    half = len(cost) // 2
    middle = path[half : half + len(cost)]
    return np.roll(middle, half)


def _between(edges: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where the peak lies beside the chosen columns, in columns from -0.5 to 0.5: that of the parabola of three."""
    inner, each = np.clip(rows, 1, edges.shape[1] - 2), np.arange(len(rows))
    before, at, after = (edges[each, inner + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = np.where(bend < -1e-6, 0.5 * (before - after) / np.minimum(bend, -1e-6), 0)
    return np.where(inner == rows, np.clip(shift, -0.5, 0.5), 0)
