"""Windows around damaged regions: what a network sees of a region, what the map says of it there, and the way back."""

from collections.abc import Sequence

import cv2
import numpy as np

CONTEXT = 2.0  # side of a window relative to the longer side of the region's box
LEAST_SIDE = 64  # pixels, of a window
STEEP = 6.0  # logit of the peak of a map; that of the threshold is 0

Window = tuple[slice, slice]


def window_around(box: Sequence[int], size: tuple[int, int]) -> Window:
    """Rows and columns of a square around a box, moved into the photograph, and cut where it is larger than that.

    Args:
        box: x, y, width, height in pixels.
        size: (height, width) of the photograph.
    """
    x, y, width, height = box
    side = max(LEAST_SIDE, round(CONTEXT * max(width, height)))

    def span(start: int, length: int, limit: int) -> slice:
        first = min(max(0, start + length // 2 - side // 2), max(0, limit - side))
        return slice(first, min(limit, first + side))

    return span(y, height, size[0]), span(x, width, size[1])


def belief(heat: np.ndarray, level: float) -> np.ndarray:
    """What an anomaly map says of damage, float32 in (0, 1) of its shape: 0.5 at ``level``, 0.998 at its highest."""
    scale = max(float(heat.max()) - level, 1e-6 * max(abs(level), 1.0))
    logits = np.clip((heat - level) / scale, -1, 1) * STEEP
    result: np.ndarray = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return result


def touching(mask: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The connected components of a mask that touch a region; all bool (height, width)."""
    _, label = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    met = np.unique(label[region & mask])
    found: np.ndarray = np.isin(label, met) & mask
    return found
