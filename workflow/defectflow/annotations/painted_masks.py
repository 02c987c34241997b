"""Masks as annotation tools encode them: PNG in LabelMe, brush strokes in Label Studio, runs in a box in CVAT."""

import base64
import binascii
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from defectflow.core.files import UserError


def is_painted(segmentation: Mapping[str, object]) -> bool:
    """Whether an outline is one of these, and no RLE of COCO."""
    return bool({"png", "brush", "rows"} & segmentation.keys())


def decode_painted(segmentation: Mapping[str, Any]) -> np.ndarray:
    """Decode the mask of a tool to a bool mask (height, width).

    Args:
        segmentation: ``size`` [height, width] of the picture in pixels, and one of

            - ``png``: base64 of a PNG, what is not 0 being the mask, and ``corner``, [x, y] of its first pixel;
            - ``brush``: bytes of the run-length code of thi.ng/rle-pack over the RGBA values of the picture, whose
              alpha is the mask from half on (Label Studio);
            - ``rows``: run lengths row by row, first those outside of the mask, in ``box`` [x, y, width, height]; the
              last run may be missing (CVAT).

    Raises:
        UserError: it is malformed.
    """
    height, width = segmentation["size"]
    if "brush" in segmentation:
        values = _unpacked(bytes(value & 255 for value in segmentation["brush"]), 4 * width * height)
        mask: np.ndarray = values.reshape(height, width, 4)[..., 3] >= 128
        return mask
    if "png" in segmentation:
        try:
            with Image.open(io.BytesIO(base64.b64decode(segmentation["png"]))) as image:
                part = np.asarray(image.convert("L")) > 0
        except (OSError, ValueError, binascii.Error):
            raise UserError("its mask is no PNG (save it again in LabelMe)") from None
        x, y = segmentation["corner"]
    else:
        x, y, columns, rows = segmentation["box"]
        runs = segmentation["rows"]
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        part = np.zeros(columns * rows, bool)
        part[: len(inside)] = inside
        part = part.reshape(rows, columns)
    mask = np.zeros((height, width), bool)
    top, left = max(y, 0), max(x, 0)
    seen = part[top - y : max(height - y, 0), left - x : max(width - x, 0)]
    mask[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return mask


def _unpacked(code: bytes, expected: int) -> np.ndarray:
    """The ``expected`` values uint8 of thi.ng/rle-pack, index.ts, decode.

    A header (number of values, bits of a value, four possible bits of a length), then runs: a bit that says whether
    one value is repeated or each is given, which of the four, the length less one, and the value or values.
    """
    read = _Bits(code).read
    try:
        count, bits = read(32), read(5) + 1
        sizes = [read(4) + 1 for _ in range(4)]
        if count != expected or bits > 8:
            raise UserError(f"its brush strokes are of {count} values, its picture of {expected} (export it again)")
        values, at = np.zeros(count, np.uint8), 0
        while at < count:
            repeated, length = read(1), read(sizes[read(2)]) + 1
            end = min(at + length, count)
            values[at:end] = read(bits) if repeated else list(_each(read, bits, end - at))
            at = end
    except EOFError:
        raise UserError("its brush strokes end too early (export it again)") from None
    return values


def _each(read: Any, bits: int, count: int) -> Iterator[int]:
    return (read(bits) for _ in range(count))


class _Bits:
    """Numbers of any number of bits, one after the other, most significant bit first."""

    def __init__(self, code: bytes) -> None:
        self._code, self._at, self._held, self._bits = code, 0, 0, 0

    def read(self, bits: int) -> int:
        """The next number.

        Raises:
            EOFError: there are not so many bits left.
        """
        while self._bits < bits:
            more = self._code[self._at : self._at + 4]
            if not more:
                raise EOFError
            self._held = self._held << 8 * len(more) | int.from_bytes(more)
            self._at += len(more)
            self._bits += 8 * len(more)
        self._bits -= bits
        value = self._held >> self._bits
        self._held &= (1 << self._bits) - 1
        return value
