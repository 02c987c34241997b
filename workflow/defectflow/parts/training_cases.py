"""Photographs with true masks for training networks: squares, augmented copies, windows without the part."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

MEAN, STD = (
    np.array([0.485, 0.456, 0.406], np.float32),
    np.array([0.229, 0.224, 0.225], np.float32),
)  # of ImageNet, and of SAM 2's training
GRID = 256  # side of true masks and prior masks in training; that of the mask decoder at 1024 px
CROP_SHARE = 0.01  # largest share of the part in a background crop


@dataclass(frozen=True)
class Case:
    """One photograph as input of the network.

    Attributes:
        image: uint8 (size, size, 3).
        truth: float32 (GRID, GRID) true mask, zeros for a negative.
        soft: float32 (GRID, GRID) the prior's guess from other photographs.
        registered: whether the prior found the part.
        present: False for a photograph without the part.
    """

    image: np.ndarray
    truth: np.ndarray
    soft: np.ndarray
    registered: bool
    present: bool


def grid(mask: np.ndarray) -> np.ndarray:
    """A mask over the whole picture, resized to float32 (GRID, GRID)."""
    return cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)


def to_square(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture or mask (height, width, ...) resized to (side, side, ...), as in SAM 2's training."""
    shrink = max(picture.shape[:2]) > side
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def background_crop(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random window of ``image`` without the part, or None if there is no room for one."""
    height, width = mask.shape
    integral = cv2.integral(mask.astype(np.uint8))
    for _ in range(60):
        side = int(rng.uniform(0.2, 0.7) * min(height, width))
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        inside = integral[y + side, x + side] - integral[y, x + side] - integral[y + side, x] + integral[y, x]
        if inside <= CROP_SHARE * side * side:
            return image[y : y + side, x : x + side]
    return None


def augmented(case: Case, rng: np.random.Generator, turn: float = 5.0) -> Case:
    """``case`` with random gamma, gain, shift up to 5 %, scale up to 8 % and rotation up to ``turn`` degrees."""
    angle = np.radians(rng.uniform(-turn, turn))
    scale = np.exp(rng.uniform(-0.08, 0.08))
    shift = rng.uniform(-0.05, 0.05, 2)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]])

    def move(picture: np.ndarray, border: int) -> np.ndarray:
        side = picture.shape[0]
        centre = np.array([(side - 1) / 2] * 2)
        affine = np.hstack([linear, (centre - linear @ centre + shift * side)[:, None]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, affine, (side, side), flags=flags, borderMode=border)

    gamma, gain = np.exp(rng.uniform(-0.5, 0.5)), np.exp(rng.uniform(-0.9, 0.5))
    curve = (np.clip(gain * (np.arange(256) / 255) ** gamma, 0, 1) * 255).round().astype(np.uint8)
    return replace(
        case,
        image=move(curve[case.image], cv2.BORDER_REFLECT_101),
        truth=move(case.truth, cv2.BORDER_CONSTANT),
        soft=move(case.soft, cv2.BORDER_CONSTANT),
    )
