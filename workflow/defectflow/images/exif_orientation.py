"""Photographs as they are stored and as they are shown: their sizes, and masks turned by the EXIF orientation."""

from pathlib import Path

import numpy as np
from PIL import Image

from defectflow.images.decoders import UNREADABLE, unreadable
from defectflow.images.read_write import orientation_of


def stored_size(path: str | Path) -> tuple[tuple[int, int], int]:
    """((width, height) of the pixels as stored, EXIF orientation 1 to 8) of an image file, from its header.

    Raises:
        UserError: not a readable image.
    """
    try:
        with Image.open(path) as image:
            return image.size, orientation_of(image)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the upright picture, from that of the stored one."""
    return size[::-1] if orientation >= 5 else size


def upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (height, width, ...) as stored into the upright picture (EXIF 2.32, tag 0x0112)."""
    turns = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    return np.ascontiguousarray(turns[orientation](mask)) if orientation in turns else mask
