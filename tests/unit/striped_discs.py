"""Synthetic photographs: a striped disc that moves over a plain table, with patches that tell the two apart."""

import functools

import cv2
import numpy as np
from defectflow.parts.patch_finder import CHANNELS, GRID, SIDE


def disc(x: int, y: int, radius: int = 110) -> np.ndarray:
    """bool (SIDE, SIDE)."""
    return cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (x, y), radius, 1, -1) > 0


@functools.cache
def striped_discs():
    """Squares, features, figures and true masks of five photographs."""
    rng = np.random.default_rng(3)
    kinds = rng.normal(0, 1, (2, CHANNELS))
    squares, features, figures, masks = [], [], [], []
    for x, y in ((200, 230), (260, 250), (300, 280), (240, 300), (280, 220)):
        mask = disc(x, y)
        image = np.full((SIDE, SIDE, 3), (60, 70, 80), np.float32)
        stripes = np.where(np.arange(SIDE) // 12 % 2, 220, 160)[None, :, None] * np.float32([1, 0.8, 0.5])
        image = np.where(mask[..., None], stripes, image) + rng.normal(0, 3, (SIDE, SIDE, 3))
        share = cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
        told = (
            share[..., None] * kinds[1] + (1 - share[..., None]) * kinds[0] + rng.normal(0, 0.3, (GRID, GRID, CHANNELS))
        )
        squares.append(image.clip(0, 255).astype(np.uint8))
        features.append(told.astype(np.float16))
        figures.append((0.1 + 0.8 * cv2.GaussianBlur(share, (0, 0), 2)).astype(np.float32))
        masks.append(mask)
    return squares, features, np.stack(figures), masks
