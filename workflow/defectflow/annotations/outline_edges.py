"""Edges of a photograph, and outlines laid on them.

Colour gradients at a reduced size, each relative to its surroundings, so that a faint edge in a smooth area counts as
much as a strong one in a textured area. An edge counts for an outline according to its direction (the squared cosine
between gradient and normal). Chamfer matching of oriented edges (Shotton et al. 2008), with means instead of distances.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 256  # pixels, longer side of the reduced picture
BINS = 8  # orientations in 180 degrees
POINTS = 240  # at most, of an outline
BLUR = 1.0  # sigma in pixels of the reduced picture
NEAR = 2  # pixels of the reduced picture by which a correct outline may miss its edge
AROUND = 33  # pixels, side of the window that a gradient is compared with
FAINT = 2.0  # grey levels per pixel: weaker gradients are noise
RIM = 3  # pixels: an outline this close to the rim of the picture is cut off there and not at an edge


@dataclass(frozen=True)
class Outline:
    """Points of outlines in pixels of a reduced picture.

    Attributes:
        points: float32 (n, 2), x and y.
        angles: float32 (n,), direction of the normal in radians; its sign does not count.
        size: (width, height) of the reduced picture.
    """

    points: np.ndarray
    angles: np.ndarray
    size: tuple[int, int]


def reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the reduced picture of one of ``size``; a smaller one keeps its size."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def edge_maps(image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Strength of the edges of a photograph in each direction.

    Args:
        image: uint8 RGB or grey (height, width[, 3]), upright.
        size: (width, height) of the maps; None: `reduced_size` of the image.

    Returns:
        float32 (BINS, height, width) in [0, 1], of the reduced picture: bin k is for normals of k * 180 / BINS degrees;
        each pixel has the strongest edge within NEAR pixels.
    """
    size = size or reduced_size((image.shape[1], image.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small.astype(np.float32), (0, 0), BLUR)
    small = small[..., None] if small.ndim == 2 else small
    dx = np.stack([cv2.Scharr(small[..., c], cv2.CV_32F, 1, 0) for c in range(small.shape[2])]) / 32
    dy = np.stack([cv2.Scharr(small[..., c], cv2.CV_32F, 0, 1) for c in range(small.shape[2])]) / 32
    strongest = (dx**2 + dy**2).argmax(0)[None]
    dx, dy = (np.take_along_axis(d, strongest, 0)[0] for d in (dx, dy))
    magnitude = np.hypot(dx, dy)
    around = cv2.blur(magnitude, (AROUND, AROUND), borderType=cv2.BORDER_REFLECT)
    strength = magnitude / (magnitude + 1.5 * around + FAINT)
    angle = np.arctan2(dy, dx)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR + 1, 2 * NEAR + 1))
    maps = [strength * np.cos(angle - k * np.pi / BINS) ** 2 for k in range(BINS)]
    return np.stack([cv2.dilate(one, kernel) for one in maps])


def outline_of(mask: np.ndarray) -> Outline:
    """Outline of a bool mask (height, width), reduced: at most POINTS points evenly along it, none on the rim."""
    width, height = size = reduced_size((mask.shape[1], mask.shape[0]))
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) >= 128
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    points, angles = [], []
    for contour in contours:
        line = contour[:, 0].astype(np.float32)
        if len(line) < 12:
            continue
        ahead, behind = np.roll(line, -4, 0), np.roll(line, 4, 0)
        tangent = ahead - behind
        points.append(line)
        angles.append(np.arctan2(tangent[:, 0], -tangent[:, 1]))
    if not points:
        return Outline(np.empty((0, 2), np.float32), np.empty(0, np.float32), size)
    xy, angle = np.concatenate(points), np.concatenate(angles)
    inside = (xy >= RIM).all(1) & (xy[:, 0] < width - RIM) & (xy[:, 1] < height - RIM)
    xy, angle = xy[inside], angle[inside]
    chosen = np.linspace(0, len(xy) - 1, min(POINTS, len(xy))).round().astype(int)
    return Outline(xy[chosen], angle[chosen], size)


def moved(outline: Outline, matrix: np.ndarray) -> Outline:
    """The outline transformed by an affine 2x3 ``matrix`` in pixels, normals included."""
    points = outline.points @ matrix[:, :2].T + matrix[:, 2]
    tangent = np.stack([-np.sin(outline.angles), np.cos(outline.angles)], 1) @ matrix[:, :2].T
    return Outline(points.astype(np.float32), np.arctan2(-tangent[:, 0], tangent[:, 1]), outline.size)


def score(maps: np.ndarray, outline: Outline, shifts: np.ndarray) -> np.ndarray:
    """Mean strength of the edges along an outline at each of many shifts.

    Args:
        maps: of the photograph, see `edge_maps`.
        outline: in pixels of these maps.
        shifts: (m, 2), x and y in pixels.

    Returns:
        float32 (m,) in [0, 1]; NaN where less than half of the outline lies within the picture.
    """
    height, width = maps.shape[1:]
    bins = np.round(outline.angles * (BINS / np.pi)).astype(np.int32) % BINS
    x = np.rint(outline.points[:, 0] + shifts[:, :1]).astype(np.int32)
    y = np.rint(outline.points[:, 1] + shifts[:, 1:]).astype(np.int32)
    inside = (x >= RIM) & (x < width - RIM) & (y >= RIM) & (y < height - RIM)
    place = np.where(inside, (bins * height + y) * width + x, 0)
    total = (maps.ravel().take(place) * inside).sum(1)
    count = inside.sum(1)
    return np.where(count * 2 >= max(len(bins), 1), total / np.maximum(count, 1), np.nan).astype(np.float32)
