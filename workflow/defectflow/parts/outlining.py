"""From a soft map of patches to the outline of the part by GrabCut, and how well outlines follow edges.

Source: C. Rother et al., GrabCut, 2004. The definite foreground starts one patch inside the soft map; otherwise the
outline could not shrink to a thin part.
"""

import cv2
import numpy as np

from defectflow.parts.registration_frame import iou

SURE = (0.15, 0.9)  # soft values below which a pixel is definite background, above which (after erosion) the part
INSIDE = 13  # pixels, diameter of the disc for that erosion
KEPT, SPECK = 0.1, 0.002  # smallest component kept, as a share of the largest; largest hole filled, of the picture
MARGIN, ITERATIONS = 48, 2  # pixels; of GrabCut
NO_BOX = (0, 0, 1, 1)  # ignored by GrabCut if it starts from a mask
AGREES = 0.5  # IoU with the soft map below which GrabCut's result is rejected


def clean(mask: np.ndarray) -> np.ndarray:
    """A bool mask without small pieces and small holes."""
    m = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, label, stats, _ = cv2.connectedComponentsWithStats(m)
    if count < 2:
        return mask
    kept = np.isin(label, 1 + np.flatnonzero(stats[1:, 4] >= KEPT * stats[1:, 4].max()))
    _, label, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)
    return kept | np.isin(label, 1 + np.flatnonzero(stats[1:, 4] < SPECK * m.size))


def grown(soft: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map of patches, float32 of a picture's size (height, width)."""
    return cv2.resize(soft.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def outline(picture: np.ndarray, soft: np.ndarray) -> tuple[np.ndarray, float]:
    """The part's mask in a uint8 RGB picture (height, width, 3) by GrabCut from ``soft`` (height, width) in [0, 1].

    Returns:
        bool (height, width), and its IoU with the thresholded map; if GrabCut deviates too far or fails, the
        thresholded map.
    """
    guess = soft >= 0.5
    if not guess.any() or guess.all():
        return guess, 0.0
    window = _window(soft >= SURE[0])
    picture, part = np.ascontiguousarray(picture[window]), soft[window]
    whole, guess = np.zeros(soft.shape, bool), part >= 0.5
    state = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (INSIDE, INSIDE))
    state[part < SURE[0]] = cv2.GC_BGD
    state[cv2.erode((part > SURE[1]).astype(np.uint8), disc) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    try:
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(picture, state, NO_BOX, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of one class
        return clean(soft >= 0.5), 0.0
    whole[window] = (state & 1).astype(bool)
    cut, coarse = clean(whole), clean(soft >= 0.5)
    same = iou(cut, coarse)
    return (cut, same) if same > AGREES else (coarse, same)


def thresholded(picture: np.ndarray, soft: np.ndarray) -> tuple[np.ndarray, float]:
    """What `outline` returns where GrabCut changes nothing: the map cut at 0.5, and 1."""
    return clean(soft >= 0.5), 1.0


def _window(inside: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that may contain the part, with MARGIN around it: the input of GrabCut."""
    x, y, width, height = cv2.boundingRect(inside.astype(np.uint8))
    return slice(max(0, y - MARGIN), y + height + MARGIN), slice(max(0, x - MARGIN), x + width + MARGIN)


def edges(picture: np.ndarray) -> np.ndarray:
    """Length of the gradient in Lab of a uint8 RGB picture: float32 (height, width)."""
    lab = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), (0, 0), 1.5).astype(np.float32)
    lengths = [np.hypot(cv2.Sobel(lab[..., i], -1, 1, 0), cv2.Sobel(lab[..., i], -1, 0, 1)) for i in range(3)]
    total: np.ndarray = np.sum(lengths, axis=0)
    return total


def on_edges(mask: np.ndarray, picture: np.ndarray) -> float:
    """Mean edge along the outline of a mask over that of the whole picture: about 1 by chance, 0 without an outline."""
    e = edges(picture)
    ring = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    rim = np.ones(mask.shape, bool)
    rim[4:-4, 4:-4] = False
    ring &= ~rim
    if not ring.any():
        return 0.0
    return float(cv2.dilate(e, np.ones((7, 7)))[ring].mean() / (cv2.dilate(e, np.ones((7, 7))).mean() + 1e-6))
