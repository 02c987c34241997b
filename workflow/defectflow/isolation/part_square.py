"""The square around one part, scaled to a fixed size, and rotated so that the part is upright if requested."""

import cv2
import numpy as np

CLEAR = 1.3  # length over width, by second moments, from which a part has a clear axis
SKEWED = 0.1  # skewness along the axis from which one end is heavier

Window = tuple[int, int, int, int]


def square_of(mask: np.ndarray, margin: float, upright: bool) -> tuple[Window, float]:
    """The square around a part, and the rotation that makes the part upright.

    Args:
        mask: bool (height, width); the square of the whole frame if it is empty.
        margin: share of the longer side of the part's box that is added on each side.
        upright: whether to rotate a part with a clear axis.

    Returns:
        x0, y0, x1, y1 in pixels, which may exceed the frame, and degrees in (-180, 180] by which the window is rotated
        around its centre, from x to y; 0.0 without a clear axis.
    """
    height, width = mask.shape
    if not mask.any():
        return _around((width / 2, height / 2), max(width, height)), 0.0
    turn = axis_turn(mask) if upright else 0.0
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    centre, longer = (x + w / 2, y + h / 2), float(max(w, h))
    if turn:
        outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        points = np.concatenate(outlines)[:, 0] + 0.5
        rotation = _rotation(turn)
        seen = points @ rotation  # its axes are those of the turned picture
        least, most = seen.min(axis=0) - 0.5, seen.max(axis=0) + 0.5
        middle = rotation @ ((least + most) / 2)
        centre, longer = (float(middle[0]), float(middle[1])), float((most - least).max())
    return _around(centre, max(1, int(np.ceil(longer * (1 + 2 * margin) - 1e-6)))), turn


def axis_turn(mask: np.ndarray) -> float:
    """Degrees by which a window is rotated to show a part upright: its long axis vertical, its heavier end down.

    If neither is heavier, the end that points down stays down, or the right end of a horizontal part. 0.0 if no axis is
    clear.

    Args:
        mask: bool (height, width), not empty.
    """
    m = cv2.moments(mask.view(np.uint8), binaryImage=True)
    half, mixed = (m["mu20"] - m["mu02"]) / 2, m["mu11"]
    mean, spread = (m["mu20"] + m["mu02"]) / 2, float(np.hypot(half, mixed))
    if mean + spread < CLEAR**2 * (mean - spread) or spread == 0:
        return 0.0
    angle = 0.5 * float(np.arctan2(mixed, half))
    x, y = np.cos(angle), np.sin(angle)
    third = m["mu30"] * x**3 + 3 * m["mu21"] * x**2 * y + 3 * m["mu12"] * x * y**2 + m["mu03"] * y**3
    skewness = third / m["m00"] / ((mean + spread) / m["m00"]) ** 1.5
    # Positive: a long tail in this direction, the weight at the other end.
    if skewness > SKEWED or (abs(skewness) <= SKEWED and x + 2 * y < 0):
        x, y = -x, -y
    turn = float(np.degrees(np.arctan2(-x, y)))
    return 0.0 if turn == 0 else turn


def reach(window: Window, turn: float) -> Window:
    """The axis-parallel window that contains a rotated one."""
    x0, y0, x1, y1 = window
    middle = np.array([x0 + x1, y0 + y1]) / 2
    half = np.abs(_rotation(turn)) @ np.array([x1 - x0, y1 - y0]) / 2
    least, most = np.floor(middle - half).astype(int) - 1, np.ceil(middle + half).astype(int) + 1
    return int(least[0]), int(least[1]), int(most[0]), int(most[1])


def shown(
    image: np.ndarray, window: Window, turn: float, side: int, fill: np.ndarray | tuple[int, ...] = (0, 0, 0)
) -> np.ndarray:
    """The content of a rotated square window, scaled to ``side`` pixels; ``fill``, a colour, outside the picture.

    Args:
        image: uint8 (height, width, 3), or a bool mask (height, width).
        window: x0, y0, x1, y1 in its pixels.
        turn: see `square_of`.
        side: of the result.
    """
    x0, y0, x1, y1 = window
    size = x1 - x0
    pixels = 255 * image.view(np.uint8) if image.dtype == bool else image
    centre = np.array([x0 + x1 - 1, y0 + y1 - 1]) / 2
    rotation = _rotation(turn)
    affine = np.hstack([rotation, (centre + rotation @ (np.array([x0, y0]) - centre))[:, None]])
    flags = (cv2.INTER_LINEAR if turn else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(pixels, affine, (size, size), flags=flags, borderValue=[int(value) for value in fill])
    how = cv2.INTER_AREA if size > side else cv2.INTER_LINEAR
    result: np.ndarray = cv2.resize(cut, (side, side), interpolation=how)
    return result >= 128 if image.dtype == bool else result


def _around(centre: tuple[float, float], side: int) -> Window:
    x0, y0 = (int(np.floor(c - side / 2 + 0.5)) for c in centre)
    return x0, y0, x0 + side, y0 + side


def _rotation(turn: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.array([[cos, -sin], [sin, cos]])
