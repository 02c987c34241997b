"""One image file: whether it is sound, and what can be measured on it."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from defectflow.coco import stored_size, turned_size
from defectflow.files import UserError, sha256_of
from defectflow.images import read_rgb

SMALLEST_SIDE = 32  # pixels
CLIPPED = 254  # luminance from which a pixel counts as overexposed


@dataclass(slots=True)  # a data set may have many
class Picture:
    """What one image file holds; ``problem`` is "" for a sound one. Sizes are (width, height) in pixels."""

    sha256: str = ""
    raw_size: tuple[int, int] = (0, 0)
    orientation: int = 1
    luminance: float = 0.0
    clipped: float = 0.0
    problem: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return turned_size(self.raw_size, self.orientation)


def inspect(path: str | Path, *folders: str | Path) -> Picture:
    """Decode an image in full and measure it; never raises for a bad file. It has to lie in one of the folders."""
    real = os.path.realpath(path)
    if not any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders):
        return Picture(problem="a link that leaves the image folder (copy the file, or see `links`)")
    try:
        raw_size, orientation = stored_size(path)
        if min(raw_size) < SMALLEST_SIDE:
            return Picture(problem=f"only {raw_size[0]}x{raw_size[1]} pixels (at least {SMALLEST_SIDE} a side)")
        grey = cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY)
        sha256 = sha256_of(path)
    except UserError as error:
        return Picture(problem=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return Picture(problem=f"not readable ({error.strerror})")
    return Picture(sha256, raw_size, orientation, float(grey.mean()), float((grey >= CLIPPED).mean()))


def inspect_all(paths: Mapping[str, str], folders: Sequence[str], pool: Executor) -> dict[str, Picture]:
    """Inspect images {relative name: path} in parallel; ``folders``: in one of which each has to lie."""
    found = pool.map(lambda path: inspect(path, *folders), paths.values())
    return dict(zip(paths, tqdm(found, desc="images", total=len(paths), unit="image"), strict=True))
