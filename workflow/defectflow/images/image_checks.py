"""Check one image file and measure it."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from defectflow.core.files import UserError, sha256_of
from defectflow.images.bit_depth import is_deep
from defectflow.images.decoders import pictures_in
from defectflow.images.exif_orientation import stored_size, turned_size
from defectflow.images.fingerprint import fingerprint
from defectflow.images.read_write import read_rgb
from defectflow.images.sixteen_to_eight_bits import measured

SMALLEST_SIDE = 32  # pixels
CLIPPED = 254  # luminance from which a pixel counts as overexposed
SHARP_AT = 1024  # pixels, longer side at which sharpness is measured; a smaller picture keeps its size


@dataclass(slots=True)  # a data set may have many
class Picture:
    """The content of one image file; ``problem`` is "" for a sound one. Sizes are (width, height) in pixels.

    ``fingerprint``: see `fingerprint.fingerprint`. ``deep`` is `bit_depth.Values` of a 16-bit file as text, if the
    depth of the set is known. If the file holds several pictures (``pages``), the first is read. ``sharpness``: see
    `sharpness_of`. ``file_bytes``: size of the file.
    """

    sha256: str = ""
    raw_size: tuple[int, int] = (0, 0)
    orientation: int = 1
    luminance: float = 0.0
    clipped: float = 0.0
    problem: str = ""
    fingerprint: str = ""
    deep: str = ""
    pages: int = 1
    sharpness: float = 0.0
    file_bytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return turned_size(self.raw_size, self.orientation)


def inspect(path: str | Path, *folders: str | Path, depth: str | None = None) -> Picture:
    """Decode an image in full and measure it; never raises for a bad file.

    Args:
        path: of the image.
        folders: it must be in one of these, links followed.
        depth: see `read_rgb`.
    """
    real = os.path.realpath(path)
    if not any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders):
        return Picture(problem="a link that leaves the image folder (copy the file, or see `links`)")
    try:
        raw_size, orientation = stored_size(path)
        if min(raw_size) < SMALLEST_SIDE:
            return Picture(problem=f"only {raw_size[0]}x{raw_size[1]} pixels (at least {SMALLEST_SIDE} a side)")
        grey = cv2.cvtColor(read_rgb(path, depth), cv2.COLOR_RGB2GRAY)
        sha256, pages, size = sha256_of(path), pictures_in(path), os.path.getsize(path)
        deep = measured(path) if depth and is_deep(path) else ""
    except UserError as error:
        return Picture(problem=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return Picture(problem=f"not readable ({error.strerror})")
    luminance, clipped = float(grey.mean()), float((grey >= CLIPPED).mean())
    sharp = sharpness_of(grey)
    return Picture(sha256, raw_size, orientation, luminance, clipped, "", fingerprint(grey), deep, pages, sharp, size)


def sharpness_of(grey: np.ndarray) -> float:
    """Standard deviation of the Laplacian in grey levels, at a longer side of SHARP_AT pixels; 0 for a flat picture.

    Source: J. L. Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR (2000).

    Args:
        grey: uint8 (height, width).
    """
    factor = SHARP_AT / max(grey.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_16S).std())


def inspect_all(
    paths: Mapping[str, str], folders: Sequence[str], pool: Executor, depth: str | None = None
) -> dict[str, Picture]:
    """Inspect images {relative name: path} in parallel; ``folders``, ``depth``: see `inspect`."""
    found = pool.map(lambda path: inspect(path, *folders, depth=depth), paths.values())
    return dict(zip(paths, tqdm(found, desc="images", total=len(paths), unit="image"), strict=True))
