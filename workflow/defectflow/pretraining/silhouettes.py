"""Silhouettes of rendered parts: polygons, boxes, blobs, gears and rods, with holes, placed in a frame."""

from __future__ import annotations

import cv2
import numpy as np

from defectflow.pretraining.training_images import noise

CANVAS = 192  # pixels, side of the canvas for drawing silhouettes


def _polygon(rng: np.random.Generator, mask: np.ndarray) -> None:
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 10)))
    radii = CANVAS * rng.uniform(0.2, 0.48, len(angles))
    points = CANVAS / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)


def _ellipse(rng: np.random.Generator, mask: np.ndarray) -> None:
    axes = CANVAS * rng.uniform(0.35, 0.95, 2)
    cv2.ellipse(mask, ((CANVAS / 2, CANVAS / 2), tuple(axes), 0.0), 1, -1)


def _boxes(rng: np.random.Generator, mask: np.ndarray) -> None:
    """Plate or bracket: one to five rectangles, each overlapping the previous one."""
    centre = np.array([CANVAS / 2, CANVAS / 2])
    for i in range(rng.integers(1, 6)):
        extent = CANVAS * rng.uniform((0.3, 0.08)[i > 0], (0.8, 0.5)[i > 0], 2)
        angle = rng.choice([0.0, 90.0]) if rng.random() < 0.7 else rng.uniform(0, 180)
        corners = cv2.boxPoints((tuple(centre), tuple(extent), angle))
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
        centre = corners[rng.integers(4)] * 0.5 + centre * 0.5


def _blob(rng: np.random.Generator, mask: np.ndarray) -> None:
    cells = int(rng.integers(3, 6))
    field = noise(rng, CANVAS, (cells, cells))
    y, x = np.mgrid[:CANVAS, :CANVAS] / (CANVAS / 2) - 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats((field - 0.7 * (x**2 + y**2) > 0.1).astype(np.uint8))
    if len(stats) > 1:
        mask |= (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def _gear(rng: np.random.Generator, mask: np.ndarray) -> None:
    """Wheel, star or flower: a radius that varies with the angle."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    wave = np.cos(angle * rng.integers(3, 24))
    wave = np.tanh(wave * rng.uniform(0.5, 8))
    radius = CANVAS * (0.38 + rng.uniform(0.02, 0.1) * wave)
    points = CANVAS / 2 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)


def _rod(rng: np.random.Generator, mask: np.ndarray) -> None:
    """Wire, hook or frame: a bent line of some width, sometimes closed."""
    points = CANVAS * rng.uniform(0.1, 0.9, (rng.integers(2, 6), 2))
    width = int(CANVAS * np.exp(rng.uniform(np.log(0.025), np.log(0.2))))
    cv2.polylines(mask, [points.astype(np.int32)], rng.random() < 0.3, 1, width)


_SHAPES = (_polygon, _ellipse, _boxes, _boxes, _blob, _gear, _rod)


def silhouette(rng: np.random.Generator) -> np.ndarray:
    """Outline of a part, uint8 (CANVAS, CANVAS) in {0, 1}: one or two shapes, mirrored or not, with holes or not."""
    mask: np.ndarray = np.zeros((CANVAS, CANVAS), np.uint8)
    for _ in range(1 + (rng.random() < 0.3)):
        _SHAPES[rng.integers(len(_SHAPES))](rng, mask)
    if rng.random() < 0.3:
        mask |= mask[:, ::-1]
    if rng.random() < 0.4:
        k = int(rng.integers(2, 12))
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)))
    if rng.random() < 0.4:
        for _ in range(rng.integers(1, 6)):
            centre = CANVAS * rng.uniform(0.25, 0.75, 2)
            axes = CANVAS * np.exp(rng.uniform(np.log(0.04), np.log(0.35), 2))
            if rng.random() < 0.6:
                axes[:] = axes[0]
            cv2.ellipse(mask, (tuple(centre), tuple(axes), rng.uniform(0, 180)), 0, -1)
    return mask


def placed(rng: np.random.Generator, size: int, extent: tuple[float, float]) -> np.ndarray:
    """A silhouette somewhere in the frame, float32 (size, size) in [0, 1]; its canvas spans a share in ``extent``."""
    scale = size * np.exp(rng.uniform(*np.log(extent))) / CANVAS
    angle = rng.uniform(0, 2 * np.pi)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ np.diag([1, np.exp(rng.uniform(-0.5, 0))])
    reach = min(0.5, 0.35 * scale * CANVAS / size)  # a part may leave the frame a little
    centre = rng.uniform(reach, 1 - reach, 2) * size
    affine = np.hstack([linear, (centre - linear @ np.array([CANVAS / 2] * 2))[:, None]])
    shape = cv2.GaussianBlur(silhouette(rng).astype(np.float32), (0, 0), max(0.5, 0.6 / scale))
    return cv2.warpAffine(shape, affine, (size, size), flags=cv2.INTER_LINEAR)
