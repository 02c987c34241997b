"""Pictures of floating-point numbers: read if black is 0 and white is 1, as in scikit-image and most other software.

A file of floats does not say which numbers are black and white. From 0 to 1 there is one usual answer; anything else
may be linear light, a depth or a temperature. Colour pictures, which OpenCV decodes and Pillow does not (PFM, Radiance
HDR, TIFF of three floats), are read through a plugin of Pillow.

Formats: http://www.pauldebevec.com/Research/HDR/PFM/ and https://radsite.lbl.gov/radiance/refer/filefmts.pdf (RGBE).
"""

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageFile

from defectflow.images.bit_depth import IS_FLOAT, SAMPLE_FORMAT, SAMPLES, tiff_tags

if TYPE_CHECKING:
    from PIL import _imaging

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MARKS = (b"PF", b"#?RADIANCE", b"#?RGBE", *TIFF)
ROUNDING = 1 / 256  # of a value in RGBE, which has 8 bits and a shared exponent


class NoRange(ValueError):
    """Nothing says which numbers are black and white; the message starts with "its pixels are"."""


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Numbers from 0 (black) to 1 (white) as uint8 of the same shape.

    Args:
        values: float32 or float64, of any shape.

    Raises:
        NoRange: numbers outside that range, or not finite.

    >>> to_8_bits(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1 + ROUNDING):  # also for NaN
        found = f"from {low:g} to {high:g}, and only 0 (black) to 1 (white) is read"
        raise NoRange(f"its pixels are floating-point numbers {found} (save it as 8 or 16 bits)")
    return (values * 255 + 0.5).clip(0, 255).astype(np.uint8)


class FloatImageFile(ImageFile.ImageFile):
    """Three floats a pixel, as RGB of 8 bits. Decoded when opened: no header tells the size in all of the formats."""

    format = "FLOATS"
    format_description = "floating-point numbers"

    def _open(self) -> None:
        assert self.fp is not None, "Pillow opens the file first"
        data = self.fp.read()
        tags = tiff_tags(io.BytesIO(data)) if data.startswith(TIFF) else {SAMPLE_FORMAT: IS_FLOAT, SAMPLES: 3}
        if tags.get(SAMPLE_FORMAT) != IS_FLOAT or tags.get(SAMPLES, 1) < 3:
            raise SyntaxError("left to Pillow")
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.dtype not in (np.float32, np.float64) or decoded.ndim != 3:
            raise SyntaxError("not a picture of three floats")
        self._decoded = np.ascontiguousarray(decoded[..., 2::-1])
        self._mode, self._size = "RGB", (decoded.shape[1], decoded.shape[0])

    def load(self) -> "_imaging.PixelAccess | None":
        """Reduce the numbers to 8 bits.

        Raises:
                NoRange: see `to_8_bits`.
        """
        if self._im is None:
            self.im = Image.fromarray(to_8_bits(self._decoded)).im
            self.load_end()
        return Image.Image.load(self)


def register() -> None:
    """Let `Image.open` read pictures of three floats."""
    Image.register_open("FLOATS", FloatImageFile, lambda prefix: prefix.startswith(MARKS))
