"""PAM, which OpenCV decodes (with red and blue swapped) and Pillow does not, as a plugin of Pillow.

Format: https://netpbm.sourceforge.net/doc/pam.html.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile

if TYPE_CHECKING:
    from PIL import _imaging

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by the number of values of a pixel
LONGEST_HEADER = 4096  # bytes


class PamImageFile(ImageFile.ImageFile):
    """A PAM file. Values fill the range of the mode: 0 to 255, or 0 to 65535 for grey ones of more than 8 bits."""

    format = "PAM"
    format_description = "Portable Arbitrary Map"

    def _open(self) -> None:
        assert self.fp is not None, "Pillow opens the file first"
        header, end, _ = self.fp.read(LONGEST_HEADER).partition(b"ENDHDR\n")
        fields = dict(line.split(None, 1) for line in header.split(b"\n") if b" " in line)
        width, height, self._planes, self._largest = (
            int(fields[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
        )
        if not end or min(width, height) < 1 or not 0 < self._largest < 65536:
            raise SyntaxError("not a PAM header")
        self._start, self._size = len(header) + len(end), (width, height)
        self._mode = "I" if self._planes == 1 and self._largest > 255 else MODES[self._planes]

    def load(self) -> "_imaging.PixelAccess | None":
        """Decode the pixels.

        Raises:
            OSError: the file is shorter than its header says.
        """
        if self.fp is not None and self._im is None:
            width, height = self.size
            kind = np.dtype(">u2" if self._largest > 255 else "u1")
            self.fp.seek(self._start)
            data = self.fp.read(width * height * self._planes * kind.itemsize)
            values = np.frombuffer(data, kind)
            if values.size < width * height * self._planes:
                raise OSError("image file is truncated")
            full = 65535 if self.mode == "I" else 255
            if self._largest != full:
                values = values.astype(np.float32) * full / self._largest + 0.5
            values = values.astype(np.int32 if self.mode == "I" else np.uint8)
            shape = (height, width) if self._planes == 1 else (height, width, self._planes)
            self.im = Image.fromarray(values.reshape(shape)).im
            self.load_end()
        return Image.Image.load(self)


def register() -> None:
    """Let `Image.open` read PAM."""
    Image.register_open("PAM", PamImageFile, lambda prefix: prefix[:2] == b"P7")
