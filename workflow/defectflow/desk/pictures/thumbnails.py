"""Small copies of photographs for pages: JPEG files in .desk/thumbnails/, made on first request."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from defectflow.core.files import atomic
from defectflow.images.bit_depth import Values, is_deep
from defectflow.images.read_write import read_photograph
from defectflow.images.sixteen_to_eight_bits import measured
from defectflow.inspection.judge_files import check_header
from defectflow.sources.set_depth import decide

SIZES = {"small": 192, "large": 1600}  # pixels of the longer side
QUALITY = 82
MOST_PIXELS = 100_000_000  # of a photograph
_AT_WORK = threading.BoundedSemaphore(max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))


def thumbnail(photograph: Path, name: str, stamp: str, size: str, cache: Path) -> Path:
    """The small copy of a photograph.

    Args:
        photograph: its file.
        name, stamp: see `photograph_index.Photograph`; a new stamp makes a new copy.
        size: a key of SIZES.
        cache: folder of the copies.

    Raises:
        UserError: it cannot be read, or has more than MOST_PIXELS.
    """
    key = hashlib.sha256(f"{name}\0{stamp}".encode()).hexdigest()
    path = cache / size / key[:2] / f"{key[2:34]}.jpg"
    if path.is_file():
        return path
    with _AT_WORK:
        if path.is_file():
            return path
        picture = _reduced(photograph, SIZES[size])
        with atomic(path) as temporary:
            picture.save(temporary, "JPEG", quality=QUALITY)
    return path


def _reduced(photograph: Path, side: int) -> Image.Image:
    check_header(photograph, MOST_PIXELS)
    try:
        with Image.open(photograph) as image:
            plain = image.format in ("JPEG", "PNG", "WEBP", "BMP") and image.mode in ("RGB", "L", "P", "RGBA")
            if plain and not is_deep(photograph):  # of 16-bit colours Pillow gives the upper 8
                image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size
                picture = ImageOps.exif_transpose(image)
                picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
                return picture.convert("RGB")
    except Exception:  # the reader below reports the error
        pass
    picture = Image.fromarray(to_look_at(photograph))
    picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return picture


def to_look_at(photograph: Path) -> np.ndarray:
    """A photograph as people are shown it, uint8 RGB (height, width, 3), upright.

    A 16-bit file is read in the depth that its own values fill, since those of a camera of 12 bits would be almost
    black in 16. The workflow decides on one depth for the whole set, so brightness may differ from what it sees.

    Raises:
        UserError: as `read_photograph`.
    """
    depth = None
    if is_deep(photograph):
        with suppress(Exception):  # the reader below reports the error
            depth = decide({"": Values.of(measured(photograph))}).depth
    return read_photograph(photograph, depth)
