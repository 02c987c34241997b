"""Widths of a part along an axis, from the share of each pixel that its mask covers."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from defectflow.isolation.part_square import axis_turn


class Outline(NamedTuple):
    """What is measured of a part.

    Attributes:
        widths: float64 (stations, 2), in pixels: how far the part reaches to either side of its centre of mass, across
            the axis, at each station along the axis. The middle station is at the centre of mass; 0 beyond the part.
        place: float64 (2, 3), from pixel coordinates of the picture to (across, along) in pixels from that centre.
    """

    widths: np.ndarray
    place: np.ndarray


def outline_of(covered: np.ndarray, axis: str, smooth: float) -> Outline:
    """Measure a part.

    Args:
        covered: float32 (height, width), share of each pixel that the part covers, 0 to 1.
        axis: "vertical" or "horizontal" of the picture; or "own": the long axis of the part, its heavier end down.
        smooth: sigma of the averaging along the axis, in pixels.

    Returns:
        The outline, with as many stations as the picture's diagonal has pixels; all widths are 0 without a part.
    """
    height, width = covered.shape
    count = 2 * (int(np.ceil(np.hypot(height, width))) // 2)
    inside = covered >= 0.5
    if not inside.any():
        return Outline(np.zeros((count, 2)), np.hstack([np.eye(2), np.zeros((2, 1))]))
    solid = _without_holes(covered, inside)
    moments = cv2.moments(solid)
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    turn = np.radians({"vertical": 0.0, "horizontal": 90.0}.get(axis, axis_turn(inside) if axis == "own" else 0.0))
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, sin], [-sin, cos]])  # into the frame whose second axis is that of the part
    place = np.hstack([rotation, (-rotation @ centre)[:, None]])
    middle = (count - 1) / 2  # between two stations, so that a column belongs to one side
    shifted = place + np.array([[0, 0, middle], [0, 0, middle]])
    seen = cv2.warpAffine(solid, shifted, (count, count), flags=cv2.INTER_LINEAR)
    widths = np.stack([seen[:, : count // 2].sum(axis=1), seen[:, count // 2 :].sum(axis=1)], axis=1).astype(float)
    if smooth > 0:
        widths = _averaged(widths, smooth)
    return Outline(widths, place)


def _averaged(widths: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    return np.stack([np.convolve(side, kernel, mode="same") for side in widths.T], axis=1)


def _without_holes(covered: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The largest piece of a part, its holes filled: they are no business of the outline."""
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    filled = cv2.drawContours(np.zeros(inside.shape, np.uint8), [largest], -1, 1, cv2.FILLED)
    border = cv2.morphologyEx(filled, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    result: np.ndarray = np.where(border, covered, filled).astype(np.float32)
    return result
