"""What stays put while the rest changes: photographs of a fixed camera registered to one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from defectflow.parts.patch_finder import GRID, SIDE
from defectflow.parts.registration import Templates
from defectflow.parts.registration_frame import (
    fit_size,
    gradient_field,
    invert,
    iou,
    log_luminance,
    rotation_of,
    turning,
    warp,
)

FIXED = 0.35  # median correlation of whole pictures above which the camera counts as fixed
FRAME = 256
CENTRE = 0.7  # share of the frame, about its middle, that is registered


@dataclass(frozen=True)
class Poses:
    """How the photographs of a set lie on one of them.

    Attributes:
        score: median correlation of gradients, in [-1, 1].
        scores: of each photograph.
        affines: of each, from the frame of the one to its own.
        frame: (height, width) in pixels.
        steady: float32 (n, GRID, GRID): 1 where all photographs agree, near 0 where they change or are empty.
    """

    score: float
    scores: np.ndarray
    affines: list[np.ndarray]
    frame: tuple[int, int]
    steady: np.ndarray

    @property
    def fixed(self) -> bool:
        """Whether the camera and the part's place are fixed."""
        return self.score > FIXED

    def used(self) -> np.ndarray:
        """Indices of the photographs that lie on the one well enough."""
        return np.flatnonzero(self.scores > 0.5 * np.median(self.scores))


def register_all(squares: Sequence[np.ndarray]) -> Poses:
    """Register uint8 RGB (SIDE, SIDE, 3) pictures to the one of median brightness.

    The map of what stays put is the resultant of the registered gradients over their mean length.
    """
    frame = fit_size(squares[0].shape[:2], FRAME)
    lums = [log_luminance(p, frame) for p in squares]
    fields = [gradient_field(v) for v in lums]
    ref = int(np.argsort([p.mean() for p in squares])[len(squares) // 2])
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    label = (np.abs(y) < CENTRE) & (np.abs(x) < CENTRE)
    templates = Templates(fields[ref][None], label[None])
    matches = [templates.register(v) for v in lums]
    scores, affines = np.array([m.score for m in matches]), [m.affines[0] for m in matches]
    total, length, count = np.zeros((*frame, 2), np.float32), np.zeros(frame, np.float32), 0
    for field, affine, score in zip(fields, affines, scores, strict=True):
        if score > 0.5 * np.median(scores):
            seen = warp(field, affine, frame, border=0) @ turning(rotation_of(affine)[0])
            total, length, count = total + seen, length + np.hypot(seen[..., 0], seen[..., 1]), count + 1
    blur = [cv2.GaussianBlur(v, (0, 0), 5) for v in (np.hypot(total[..., 0], total[..., 1]), length)]
    steady = (blur[0] / (blur[1] + 0.02 * max(count, 1))).astype(np.float32)
    back = [
        cv2.resize(warp(steady, invert(a), frame, border=0), (GRID, GRID), interpolation=cv2.INTER_AREA)
        for a in affines
    ]
    return Poses(float(np.median(scores)), scores, affines, frame, np.stack(back))


def consensus(masks: Sequence[np.ndarray], poses: Poses) -> list[np.ndarray]:
    """Share of the registered photographs that call a pixel the part, back in each: float32 of the masks' size."""
    fine = (2 * poses.frame[0], 2 * poses.frame[1])
    seen = []
    for i in poses.used():
        mask = cv2.resize(masks[i].astype(np.float32), fine[::-1], interpolation=cv2.INTER_AREA)
        seen.append(warp(mask, _twice(poses.affines[i]), fine, border=0))
    total = np.mean(seen, axis=0)
    back = [warp(total, invert(_twice(a)), fine, border=0) for a in poses.affines]
    return [cv2.resize(b, m.shape[::-1]) for b, m in zip(back, masks, strict=True)]


def alike_together(soft: np.ndarray, poses: Poses) -> float:
    """Mean IoU of maps (n, GRID, GRID), cut at 0.5 and laid on each other, with what most of them say; in [0, 1].

    A part is in one place in all photographs of a fixed camera, and what changes behind it is not.
    """
    seen = []
    for i in poses.used():
        own = cv2.resize((soft[i] > 0.5).astype(np.float32), poses.frame[::-1], interpolation=cv2.INTER_LINEAR)
        seen.append(warp(own, poses.affines[i], poses.frame, border=0) >= 0.5)
    most = np.mean(seen, axis=0) >= 0.5
    return float(np.mean([iou(one, most) for one in seen])) if most.any() else 0.0


def _twice(affine: np.ndarray) -> np.ndarray:
    """An affine of pixel centres, in a frame of twice the size."""
    return np.hstack([affine[:, :2], (2 * affine[:, 2] + 0.5 - affine[:, :2] @ [0.5, 0.5])[:, None]])
