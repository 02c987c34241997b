"""The frame in which pictures are registered: sizes, affines, gradient fields, masks."""

import math

import cv2
import numpy as np

BLOCK = 64  # a multiple of what any processor's vectors hold


def fit_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) scaled down so that the longer side is ``longest`` pixels (never scaled up)."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def frame_affine(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """2x3 float64 affine from pixel-centre coordinates (x, y) of a ``target`` frame to those of ``source``.

    Sizes are (height, width). The aspect ratio is kept, the picture is centred in the target.
    """
    scale = max(source[0] / target[0], source[1] / target[1])
    x = (source[1] - target[1] * scale) / 2
    y = (source[0] - target[0] * scale) / 2
    return np.array([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]])


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Affine (2x3) ``x -> outer(inner(x))``."""
    whole = np.empty((3, 3))  # np.vstack takes ten times as long
    whole[:2], whole[2] = inner, (0, 0, 1)
    return outer @ whole


def invert(affine: np.ndarray) -> np.ndarray:
    """Inverse of a 2x3 affine."""
    return cv2.invertAffineTransform(affine)


def log_luminance(image: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Log-luminance float32 of an RGB uint8 (height, width, 3) picture, fitted into ``frame``, edges repeated."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = max(image.shape[0] / frame[0], image.shape[1] / frame[1])
    small = (max(1, round(image.shape[0] / scale)), max(1, round(image.shape[1] / scale)))
    grey = cv2.resize(grey, small[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)
    if small != frame:
        to_small = frame_affine(small, frame)
        grey = warp(grey, to_small, frame)
    return np.log(grey.astype(np.float32) + 4)


def warp(image: np.ndarray, affine: np.ndarray, frame: tuple[int, int], border: int | None = None) -> np.ndarray:
    """Sample ``image`` at ``affine(x)`` for every pixel x of ``frame``; outside: edges repeated, or ``border``."""
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, affine, frame[::-1], flags=flags, borderMode=mode, borderValue=border or 0)


def gradient_field(log_lum: np.ndarray) -> np.ndarray:
    """Gradient of a log-luminance picture, float32 (height, width, 2), length squashed into [0, 1) by tanh."""
    dx = cv2.Sobel(log_lum, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(log_lum, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    length = np.hypot(dx, dy)
    typical = max(2 * float(length.mean()), 0.01)
    gain = np.tanh(length / typical) / np.maximum(length, 1e-6)
    return np.stack([dx * gain, dy * gain], axis=-1)


def mask_in_frame(mask: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """A bool mask (height, width) fitted into ``frame``, uint8 0..255 with soft edges."""
    scale = max(mask.shape[0] / frame[0], mask.shape[1] / frame[1])
    small = (max(1, round(mask.shape[0] / scale)), max(1, round(mask.shape[1] / scale)))
    grey = cv2.resize(mask.astype(np.uint8) * 255, small[::-1], interpolation=cv2.INTER_AREA)
    return grey if small == frame else warp(grey, frame_affine(small, frame), frame, border=0)


def mask_from_frame(soft: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A soft mask float32 in a frame, back to the photograph's (height, width), still soft."""
    affine = invert(frame_affine(size, soft.shape[:2]))
    result = np.zeros(size, np.float32)
    # Only where the mask is: elsewhere interpolation yields zero.
    left, top, width, height = cv2.boundingRect((soft > 0).view(np.uint8))
    if width:
        x0, x1 = _reach((left, left + width), affine[0, 0], affine[0, 2], size[1])
        y0, y1 = _reach((top, top + height), affine[1, 1], affine[1, 2], size[0])
        moved = compose(affine, np.array([[1.0, 0, x0], [0, 1, y0]]))
        window = result[y0:y1, x0:x1]
        cv2.warpAffine(soft, moved, window.shape[::-1], window, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return result


def _reach(places: tuple[int, int], scale: float, shift: float, length: int) -> tuple[int, int]:
    """Range of the pixels i of a line, fewer than ``length``, that hold all i * scale + shift near ``places``.

    OpenCV computes them in float32. The first pixel is 0 unless they are exact there, so that counting from another
    one changes none of them. It computes BLOCK pixels at a time, and the rest of a line with another rounding.
    """
    first, last = max(0, int((places[0] - 1 - shift) / scale) - 1), int((places[1] - shift) / scale) + 3
    steps = 2**12  # of a place: with 11 bits before the point, the 23 of float32
    exact = all(float(value * steps).is_integer() for value in (scale, shift))
    return (first // BLOCK * BLOCK if exact else 0), min(length, -(-last // BLOCK) * BLOCK)


def resized(picture: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """A float32 picture (height, width, ...) reduced to ``frame`` by averaging."""
    return cv2.resize(picture, frame[::-1], interpolation=cv2.INTER_AREA)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks of one shape; two empty masks agree (1.0)."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def rotation_of(affine: np.ndarray) -> tuple[float, float]:
    """Rotation in radians and scale of the similarity part of a 2x3 affine."""
    x, y = float(affine[0, 0]), float(affine[1, 0])
    return math.atan2(y, x), math.hypot(x, y)


def turning(angle: float) -> np.ndarray:
    """Matrix (2, 2), float32, that rotates a column (x, y) by ``angle`` in radians, and a row by its negative."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]], np.float32)
