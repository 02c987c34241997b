"""Defects drawn on pictures of good parts: what an inspector makes of them is an indicator of its recall, no result.

Scratches; stains in the shape of Perlin noise (V. Zavrtanik et al., DRAEM, 2021); a piece of the part pasted elsewhere
(C.-L. Li et al., CutPaste, 2021); and a piece of the part that is missing at its border.
"""

import cv2
import numpy as np

KINDS = ("scratch", "stain", "paste", "missing")


def drawn(kind: str, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of a picture with one defect on the part.

    Args:
        kind: one of KINDS; "missing" needs pixels outside of the part.
        image: uint8 RGB (height, width, 3).
        mask: bool (height, width), the part, not empty.
        rng: draws place, size and look.
    """
    unit = float(np.sqrt(mask.sum()))  # side of a square as large as the part: sizes are shares of it
    if kind == "paste":
        changed = _pasted(image, mask, unit, rng)
    else:
        cover, colour = {"scratch": _scratch, "stain": _stain, "missing": _missing}[kind](image, mask, unit, rng)
        changed = image + cover[..., None] * (colour - image)
    result: np.ndarray = np.where(mask[..., None], np.clip(np.rint(changed), 0, 255), image).astype(np.uint8)
    return result


def _place(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(x, y) of a pixel of the mask."""
    rows, columns = np.nonzero(mask)
    chosen = rng.integers(len(rows))
    return np.array([columns[chosen], rows[chosen]], float)


def _scratch(
    image: np.ndarray, mask: np.ndarray, unit: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A line of few pixels that bends a little, lighter or darker than the part."""
    length, angle = unit * rng.uniform(0.08, 0.3), rng.uniform(0, 2 * np.pi)
    bends = angle + np.cumsum(rng.normal(0, 0.12, 12))
    steps = length / 12 * np.stack([np.cos(bends), np.sin(bends)], axis=1)
    points = _place(mask, rng) + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    cover = np.zeros(mask.shape, np.uint8)
    width = max(1, round(unit * rng.uniform(0.004, 0.012)))
    cv2.polylines(cover, [np.rint(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)
    return cover / 255 * rng.uniform(0.5, 1), image + rng.choice([-1, 1]) * rng.uniform(25, 80)


def _stain(image: np.ndarray, mask: np.ndarray, unit: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A blot with ragged, soft edges, darker or lighter than the part."""
    radius, (x, y) = unit * rng.uniform(0.03, 0.1), _place(mask, rng)
    rows, columns = np.indices(mask.shape)
    away = np.hypot(columns - x, rows - y) / radius
    cells = [max(2, int(np.ceil(side / radius * octave))) for octave in (1, 2) for side in mask.shape]
    noise = sum(
        cv2.resize(rng.normal(0, 1 / octave, cells[2 * k : 2 * k + 2]), mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
        for k, octave in enumerate((1, 2))
    )
    cover = np.clip((1.2 - away + 0.35 * noise) * 3, 0, 1)
    here = image[int(y), int(x)] * rng.choice([rng.uniform(0.4, 0.75), rng.uniform(1.25, 1.6)])
    return cover * rng.uniform(0.4, 0.8), np.broadcast_to(here + rng.normal(0, 12, 3), image.shape)


def _missing(
    image: np.ndarray, mask: np.ndarray, unit: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A bite out of the border of the part, which shows what lies beside it."""
    border = mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0)
    beside = border & (cv2.dilate((~mask).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    centre, radius = _place(beside if beside.any() else mask, rng), unit * rng.uniform(0.03, 0.09)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    corners = centre + radius * rng.uniform(0.7, 1.2, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cover = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(cover, [np.rint(corners * 16).astype(np.int32)[:, None]], 255, cv2.LINE_AA, 4)
    rows, columns = np.indices(mask.shape)
    near = ~mask & (np.hypot(columns - centre[0], rows - centre[1]) < 3 * radius)
    outside = near if near.any() else ~mask
    colour = np.median(image[outside], axis=0) if outside.any() else np.zeros(3)
    return cover / 255, np.broadcast_to(colour, image.shape)


def _pasted(image: np.ndarray, mask: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of the part, a little lighter or darker, at another place of it."""
    height, width = np.maximum(2, np.rint(unit * rng.uniform(0.04, 0.15, 2))).astype(int)
    height, width = min(height, mask.shape[0]), min(width, mask.shape[1])
    source, target = (
        np.clip(
            _place(mask, rng).astype(int) - (width // 2, height // 2),
            0,
            (mask.shape[1] - width, mask.shape[0] - height),
        )
        for _ in range(2)
    )
    result = image.astype(float)
    piece = image[source[1] : source[1] + height, source[0] : source[0] + width] * rng.uniform(0.85, 1.15)
    result[target[1] : target[1] + height, target[0] : target[0] + width] = piece
    return result
