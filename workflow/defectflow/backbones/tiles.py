"""Large pictures in overlapping tiles: the network sees each at full resolution, and their patches become one grid.

Numpy alone, for the stages and for inspectors: both have the same patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from defectflow.backbones.network_input import Scale, scales_of

STRIDE = 16  # pixels: tiles begin at multiples of it, so that the cells of all lie on one grid
LEAST = 1e-6  # weight of a cell next to the border of a tile, which counts at the border of the picture

# Patches of one tile: uint8 RGB (size, size, 3) to float32 (size / cell, size / cell, d).
Network = Callable[[np.ndarray], np.ndarray]


class Tiles(NamedTuple):
    """How a picture is divided.

    Attributes:
        size: side of a tile in pixels, a multiple of `STRIDE`.
        overlap: pixels that neighbours share at least, where their patches fade into each other.
    """

    size: int
    overlap: int


def tiles_of(network: Mapping[str, Any]) -> Tiles | None:
    """The tiles of a network's settings, as patch files, banks and bundles have them; None where there are none."""
    found = network.get("tiles")
    return Tiles(found["size"], found["overlap"]) if found else None


def graph_input(network: Mapping[str, Any]) -> tuple[tuple[int, int], list[int]]:
    """(height, width) of what the network itself takes, and the reductions that it makes of that: of a tile none."""
    tiles = tiles_of(network)
    if tiles:
        return (tiles.size, tiles.size), [1]
    height, width = network["input_size"]
    return (height, width), [scale.reduction for scale in scales_of(network)]


def starts(length: int, tiles: Tiles) -> list[int]:
    """Where tiles begin along a side of ``length`` pixels, the last one at its end.

    >>> starts(1280, Tiles(512, 64))
    [0, 384, 768]
    """
    count = max(1, -(-(length - tiles.overlap) // (tiles.size - tiles.overlap)))
    return [round(i * (length - tiles.size) / max(1, count - 1) / STRIDE) * STRIDE for i in range(count)]


def shares(length: int, tiles: Tiles, cell: int) -> list[np.ndarray]:
    """What the cells along a side take from each tile, float32 (size / cell,) of each; at every cell the sum is 1.

    In the overlap a tile fades out towards its border, and the last quarter of it there does not count where another
    tile has it: the network sees zeros beyond the border.
    """
    ramp, cells = np.arange(tiles.size // cell) + 0.5, np.zeros(length // cell)
    inside, fade = np.minimum(ramp, ramp[::-1]), max(1.0, tiles.overlap / cell / 2)
    weight = np.clip((inside - fade / 2) / fade, LEAST, 1)
    firsts = [start // cell for start in starts(length, tiles)]
    for first in firsts:
        cells[first : first + len(weight)] += weight
    return [(weight / cells[first : first + len(weight)]).astype(np.float32) for first in firsts]


def embed(picture: np.ndarray, network: Mapping[str, Any], run: Network) -> np.ndarray:
    """Patches of a picture at all scales: the picture itself in tiles, and its reductions, in tiles as well.

    Args:
        picture: uint8 RGB (height, width, 3), of the settings' ``input_size``.
        network: settings with ``tiles``.
        run: the network.

    Returns:
        float32 (cells of all scales, d), one scale after the other.
    """
    tiles, scales = tiles_of(network), scales_of(network)
    assert tiles is not None, "only asked for with tiles"
    cells = [scale.grid[0] * scale.grid[1] for scale in scales]
    patches: np.ndarray | None = None
    for scale, begin in zip(scales, np.cumsum([0, *cells[:-1]]), strict=True):
        seen = reduced(picture, scale)
        cell = seen.shape[0] // scale.grid[0]
        seen = _one_at_least(seen, tiles)
        grid_size = (*scale.grid, -1)
        tall, wide = ((starts(side, tiles), shares(side, tiles, cell)) for side in seen.shape[:2])
        for top, down in zip(*tall, strict=True):
            for left, across in zip(*wide, strict=True):
                found = run(np.ascontiguousarray(seen[top : top + tiles.size, left : left + tiles.size]))
                if patches is None:
                    patches = np.zeros((sum(cells), found.shape[-1]), np.float32)
                grid = patches[begin : begin + scale.grid[0] * scale.grid[1]].reshape(grid_size)
                own = grid[top // cell : (top + tiles.size) // cell, left // cell : (left + tiles.size) // cell]
                own += (found * (down[:, None] * across)[..., None])[: own.shape[0], : own.shape[1]]
    assert patches is not None, "there is a tile at least"
    return patches


def first_tile(picture: np.ndarray, network: Mapping[str, Any]) -> np.ndarray:
    """What the network itself takes of a picture: its first tile, or where there are none the picture as it is."""
    tiles = tiles_of(network)
    return _one_at_least(picture, tiles)[: tiles.size, : tiles.size] if tiles else picture


def _one_at_least(picture: np.ndarray, tiles: Tiles) -> np.ndarray:
    """A picture, mirrored at its right and lower border where it is smaller than a tile."""
    more = [max(0, tiles.size - side) for side in picture.shape[:2]]
    return cv2.copyMakeBorder(picture, 0, more[0], 0, more[1], cv2.BORDER_REFLECT_101) if any(more) else picture


def reduced(picture: np.ndarray, scale: Scale) -> np.ndarray:
    """A picture with its sides divided by the reduction of a scale: each pixel is the mean of those it covers."""
    if scale.reduction == 1:
        return picture
    height, width = (side // scale.reduction for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def large_size(shape: tuple[int, int], whole: int) -> tuple[tuple[int, int], list[int]]:
    """(height, width) that pictures get, and what the sides of the whole are divided by beside them.

    Args:
        shape: (height, width) of the pictures of a set in pixels. They keep their pixels, but for a few in a hundred.
        whole: what the shorter side of the whole has at least, once it is reduced; pictures below twice that have no
            second scale.
    """
    reduction = max(1, min(shape) // whole)
    unit = STRIDE * reduction
    height, width = (-(-side // unit) * unit for side in shape)
    return (height, width), [1, reduction] if reduction > 1 else [1]
