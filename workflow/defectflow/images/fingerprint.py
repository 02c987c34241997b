"""A fingerprint of a photograph that is similar for all its copies, whatever their format or size."""

import base64
from collections.abc import Iterable

import cv2
import numpy as np

SIDE = 16  # cells
SCALE = 32  # steps in a standard deviation; an int8 holds 4 of them either side
LARGE = 512  # pixels a side
FLAT = 0.5  # grey levels; a picture whose cells differ by less has no usable contrast


def fingerprint(grey: np.ndarray) -> str:
    """Mean brightness of 16x16 cells, in standard deviations from that of the picture.

    Args:
        grey: uint8 (height, width).

    Returns:
        256 int8 in base64; "" for a picture without contrast.
    """
    # OpenCV rounds the means of uint8, and a float copy of a large picture would take four times its memory.
    height, width = (min(side, LARGE) for side in grey.shape)
    smaller = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    cells = cv2.resize(smaller.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    spread = cells.std()
    if spread < FLAT:
        return ""
    steps = np.round((cells - cells.mean()) / spread * SCALE).clip(-127, 127).astype(np.int8)
    return base64.b64encode(steps.tobytes()).decode()


def decoded(fingerprints: Iterable[str]) -> np.ndarray:
    """int8 (number, 256) of fingerprints that are not empty."""
    return np.frombuffer(b"".join(map(base64.b64decode, fingerprints)), np.int8).reshape(-1, SIDE * SIDE)
