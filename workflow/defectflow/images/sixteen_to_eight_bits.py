"""Values of 16-bit files: read as stored, measured, and reduced to the upper 8 bits of their depth."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from defectflow.core.files import UserError
from defectflow.images.bit_depth import ORIENTATION, Values, parsed, tiff_places


def numbers_of(image: Image.Image, path: str | Path) -> np.ndarray:
    """The values of an opened file of more than 8 bits (see `bit_depth.is_deep`), as stored.

    Returns:
        uint16 (height, width), or (height, width, 3) RGB; an alpha channel is dropped. Grey pictures are oriented as
            Pillow does it, colour pictures as stored.

    Raises:
        UserError: more than 16 bits, negative, or not readable in full depth.
    """
    if image.mode.startswith("I"):
        return whole_numbers(image, path)
    colours = cv2.imdecode(_as_stored(Path(path).read_bytes()), cv2.IMREAD_UNCHANGED)  # Pillow gives 8 bits of colours
    if colours is None or colours.dtype != np.uint16:
        raise UserError(f"{path}: its colours cannot be read in full depth (save it as PNG, or as 8 bits)")
    if colours.ndim == 2:
        return colours
    return np.ascontiguousarray(colours[..., :3] if image.format == "PAM" else colours[..., 2::-1])  # not swapped there


def whole_numbers(image: Image.Image, path: str | Path) -> np.ndarray:
    """The values of an opened grey picture of more than 8 bits, uint16 (height, width).

    Raises:
        UserError: they are negative or have more than 16 bits.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0:  # Pillow also reads numbers of 32 bits from the upper half as negative
        found = f"its pixels are negative, down to {low}, or have more than 16 bits"
        raise UserError(f"{path}: {found} (save it as 8 or 16 bits, black being 0)")
    if high > 65535:
        raise UserError(f"{path}: its pixels have more than 16 bits (save it as 8 or 16 bits)")
    return values.astype(np.uint16)


def _as_stored(content: bytes) -> np.ndarray:
    """The bytes of a picture, uint8; in a TIFF the orientation is 1: OpenCV mirrors 2 to 4 and refuses 5 to 8."""
    data = bytearray(content)
    order, places = tiff_places(io.BytesIO(content))
    if ORIENTATION in places:
        struct.pack_into(f"{order}H", data, places[ORIENTATION], 1)
    return np.frombuffer(data, np.uint8)


def measured(path: str | Path) -> str:
    """`measure` of a file as text, for a table.

    Raises:
        UserError: see `numbers_of`.
    """
    with open(path, "rb") as file, Image.open(file) as image:
        return " ".join(str(int(value)) for value in measure(numbers_of(image, path)))


def measure(values: np.ndarray) -> Values:
    """Statistics of the values of a file, uint16 of any shape."""
    used, largest = int(np.bitwise_or.reduce(values, axis=None)), int(values.max())
    zero_bits = (used & -used).bit_length() - 1 if used else 16
    bits = next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits)
    at_top = int((values >> (bits - 8) == 255).sum())
    return Values(largest, zero_bits, at_top, not (values % 257).any())


def to_8_bits(values: np.ndarray, depth: str) -> np.ndarray:
    """Reduce 16-bit values to the upper 8 bits of their depth; full 16-bit values are divided by 257.

    Args:
        values: uint16 of any shape.
        depth: as text, see `bit_depth`.

    Returns:
        uint8, of the same shape.

    Raises:
        ValueError: the values do not fit that depth; the message says why.

    >>> to_8_bits(np.array([0, 16, 4095], np.uint16), "12").tolist()
    [0, 1, 255]
    >>> to_8_bits(np.array([0, 256, 65520], np.uint16), "12-left").tolist()
    [0, 1, 255]
    """
    bits, left = parsed(depth)
    largest = int(values.max())
    if bits == 16:
        if values.ndim == 3:  # as Pillow reads them
            return (values >> 8).astype(np.uint8)
        return (values.astype(np.float32) / 257).astype(np.uint8)
    if left:
        low = (1 << (16 - bits)) - 1
        if (values & low).any():
            raise ValueError(f"its values are not multiples of {low + 1}, as those of {bits} bits left-aligned in 16")
        return (values >> 8).astype(np.uint8)
    if largest >= 1 << bits:
        if bits == 8 and not (values % 257).any():
            return (values // 257).astype(np.uint8)
        raise ValueError(f"its largest value is {largest}, and {bits} bits hold {(1 << bits) - 1} at most")
    return (values >> (bits - 8)).astype(np.uint8)
