"""Anomaly maps: patch distances on the grid of the network, mapped to the pixels of the original photograph."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, atomic, tensor_header, tensor_offsets

SIGMA = 4.0  # of the Gaussian, in pixels of an input of 256 pixels, as in the paper


@dataclass(frozen=True)
class AnomalyMap:
    """Patch distances of one image.

    Attributes:
        grid_map: float32 (grid height, grid width), distances of patches to the bank.
        affine: float64 (2, 3), takes pixel coordinates (x, y) of the network's input to those of the original frame.
        input_size: (height, width) of the network's input.
        sigma: of the smoothing, see `smooth_map`.
    """

    grid_map: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    input_size: tuple[int, int]
    sigma: float | None = None


class _File(NamedTuple):
    """A file of maps: its path, (height, width) of the network's input and of the grid, and where the data begin."""

    path: Path
    input_size: tuple[int, int]
    grid: tuple[int, int]
    offsets: dict[str, int]
    sigma: float | None


class AnomalyMaps(Mapping[str, AnomalyMap]):
    """Maps of several files by image_id, in sorted order; each is read from disk when it is needed."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._files: list[_File] = []
        self._where = DiskIndex(self._open(paths), 2, paths)

    def _open(self, paths: Sequence[str | Path]) -> Iterator[tuple[str, int, int]]:
        """Open the files and yield the name of each map, the number of its file and its row in that."""
        for number, path in enumerate(paths):
            try:
                with safe_open(path, framework="numpy") as stream:
                    config = json.loads((stream.metadata() or {}).get("defectflow", "{}"))
                    if not {"input_size", "items"} <= config.keys():
                        raise UserError(f"{path}: not a map file (run the score stage)")
                    grid = tuple(stream.get_slice("maps").get_shape()[1:])
            except FileNotFoundError:
                raise UserError(f"{path}: no such file") from None
            except SafetensorError as error:
                raise UserError(f"{path}: not a map file ({error})") from None
            offsets, sigma = tensor_offsets(path), config.get("sigma")
            self._files.append(_File(Path(path), tuple(config["input_size"]), grid, offsets, sigma))
            yield from ((image_id, number, row) for row, image_id in enumerate(config["items"]))

    def __getitem__(self, image_id: str) -> AnomalyMap:
        number, row = self._where[image_id]
        path, input_size, grid, offsets, sigma = self._files[number]
        cells = grid[0] * grid[1]
        values = np.fromfile(path, "<f4", cells, offset=offsets["maps"] + row * cells * 4)
        affine = np.fromfile(path, "<f8", 6, offset=offsets["affines"] + row * 6 * 8)
        return AnomalyMap(values.reshape(grid), affine.reshape(2, 3), input_size, sigma)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def load_maps(paths: Sequence[str | Path]) -> AnomalyMaps:
    """Open map files written by the score stage.

    Raises:
        UserError: a file is absent or is not a map file.
    """
    return AnomalyMaps(paths)


class MapWriter:
    """Appends one map after the other; made by `write_maps`."""

    def __init__(
        self,
        stream: BinaryIO,
        items: Sequence[str],
        input_size: Sequence[int],
        grid: Sequence[int],
        sigma: float | None = None,
    ) -> None:
        self._stream, self._left = stream, len(items)
        self._affines: list[npt.NDArray[np.float64]] = []
        about = {"input_size": list(input_size), "items": list(items)} | ({"sigma": sigma} if sigma else {})
        metadata = {"defectflow": json.dumps(about)}
        tensors = (("affines", "F64", (len(items), 2, 3), 8), ("maps", "F32", (len(items), *grid), 4))
        text = tensor_header(metadata, tensors)
        text = text.ljust(-(-len(text) // 8) * 8)
        stream.write(len(text).to_bytes(8, "little") + text)
        self._start = stream.tell()
        stream.seek(len(items) * 48, os.SEEK_CUR)

    def add(self, grid_map: np.ndarray, affine: np.ndarray) -> None:
        """Append the map of the next item, float (grid height, grid width), and its affine, float64 (2, 3)."""
        self._stream.write(np.ascontiguousarray(grid_map, "<f4").data)
        self._affines.append(np.array(affine, "<f8"))  # a copy: it may be a view of many
        self._left -= 1

    def close(self) -> None:
        """Write the affines."""
        if self._left:
            raise ValueError(f"{self._left} maps are missing of those announced")
        self._stream.seek(self._start)
        self._stream.write(np.array(self._affines, "<f8").data)


@contextmanager
def write_maps(
    path: str | Path, items: Sequence[str], input_size: Sequence[int], grid: Sequence[int], sigma: float | None = None
) -> Iterator[MapWriter]:
    """Write a file of maps (safetensors) atomically, one map at a time and in constant memory.

    The file holds ``maps`` float32 (n, grid height, grid width) and ``affines`` float64 (n, 2, 3), and in its metadata
    as JSON ``items`` and ``input_size``.

    Args:
        path: file to write.
        items: names of the maps, in the order they are added.
        input_size: (height, width) of the network's input.
        grid: (height, width) of the maps.
        sigma: see `AnomalyMap`.
    """
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        writer = MapWriter(stream, items, input_size, grid, sigma)
        yield writer
        writer.close()


def save_maps(
    path: str | Path,
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]],
    input_size: Sequence[int],
    sigma: float | None = None,
) -> None:
    """Write ``{image_id: (grid_map, affine)}``, all of one grid, in the order of the ids; see `write_maps`."""
    items = sorted(maps)
    with write_maps(path, items, input_size, maps[items[0]][0].shape if items else (0, 0), sigma) as writer:
        for item in items:
            writer.add(*maps[item])


def grid_map(distances: np.ndarray, position: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Distances (p,) at their flat grid indices as float32 of shape ``grid``; other cells get the lowest distance.

    ``position`` may go on with the indices of coarser scales, which have no distances of their own.

    >>> grid_map(np.array([1.5, 0.5]), np.array([0, 3]), (2, 2)).tolist()
    [[1.5, 0.5], [0.5, 0.5]]
    """
    result = np.full(grid[0] * grid[1], distances.min(), np.float32)
    result[position[: len(distances)]] = distances
    return result.reshape(grid)


def smooth_map(
    grid_map: np.ndarray, input_size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR, sigma: float | None = None
) -> np.ndarray:
    """Enlarge a grid map to the network's input and smooth it with a Gaussian, as the paper does.

    anomalib enlarges with ``cv2.INTER_NEAREST`` and ``sigma`` 4 whatever the size.

    Args:
        grid_map: float32 (grid height, grid width).
        input_size: (height, width) in pixels.
        interpolation: flag of ``cv2.resize``.
        sigma: standard deviation in pixels; None: 4 at a shorter side of 256, in proportion otherwise.

    Returns:
        float32 of shape ``input_size``.
    """
    sigma = SIGMA * min(input_size) / 256 if sigma is None else sigma
    grid = grid_map.astype(np.float32)
    down, across = (
        _smoothing(cells, pixels, interpolation, sigma) for cells, pixels in zip(grid.shape, input_size, strict=True)
    )
    lowest = grid.min()  # stays as it is where all is as low: cells outside of the part
    smooth: np.ndarray = down @ (grid - lowest) @ across.T
    smooth += lowest
    np.minimum(smooth, grid.max(), out=smooth)  # a mean is not more, but for rounding
    return smooth


@lru_cache(maxsize=16)
def _smoothing(cells: int, pixels: int, interpolation: int, sigma: float) -> npt.NDArray[np.float32]:
    """What each of the pixels of a line takes from its cells, float32 (pixels, cells), every row with the sum 1.

    Enlarging and smoothing are linear and go by rows and columns: two products with few columns do both, in a quarter
    of the time of filtering an image.
    """
    large = cv2.resize(np.eye(cells), (cells, pixels), interpolation=interpolation)
    kernel = 2 * int(4 * sigma + 0.5) + 1
    smooth = cv2.GaussianBlur(large, (1, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)
    weights: npt.NDArray[np.float32] = smooth.astype(np.float32)
    return weights


def full_resolution(
    grid_map: np.ndarray,
    affine: np.ndarray,
    input_size: tuple[int, int],
    frame_size: tuple[int, int],
    sigma: float | None = None,
) -> np.ndarray:
    """Anomaly map on the pixels of the original upright frame: `smooth_map`, warped.

    Args:
        grid_map: float32 (grid height, grid width).
        affine: float64 (2, 3), from pixel coordinates of the network's input to those of the frame.
        input_size: (height, width) of the network's input.
        frame_size: (height, width) of the original upright photograph.
        sigma: see `smooth_map`.

    Returns:
        float32 of shape ``frame_size``; pixels outside the network's input have the lowest value of ``grid_map``.
    """
    large, size = smooth_map(grid_map, input_size, sigma=sigma), (frame_size[1], frame_size[0])
    part = _letterboxed(affine, input_size, frame_size)
    if part:
        return cv2.resize(large[part], size, interpolation=cv2.INTER_LINEAR)  # the same values in a sixth of the time
    return cv2.warpAffine(large, affine, size, flags=cv2.INTER_LINEAR, borderValue=float(grid_map.min()))


def reduced_size(frame_size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) of a frame scaled down to ``longest`` pixels at its longer side; smaller ones stay as they are.

    >>> reduced_size((3000, 4000), 1024), reduced_size((300, 400), 1024)
    ((768, 1024), (300, 400))
    """
    scale = min(1.0, longest / max(frame_size))
    return max(1, round(frame_size[0] * scale)), max(1, round(frame_size[1] * scale))


def reduced_resolution(anomaly: AnomalyMap, frame_size: tuple[int, int], longest: int) -> np.ndarray:
    """As `full_resolution`, of the frame (height, width) scaled down as `reduced_size` says."""
    size = reduced_size(frame_size, longest)
    ratio = np.array([size[1] / frame_size[1], size[0] / frame_size[0]])
    affine = anomaly.affine * ratio[:, None]
    affine[:, 2] += (ratio - 1) / 2  # pixel centres, not corners, keep their place under scaling
    return full_resolution(anomaly.grid_map, affine, anomaly.input_size, size, anomaly.sigma)


def _letterboxed(
    affine: np.ndarray, input_size: tuple[int, int], frame_size: tuple[int, int]
) -> tuple[slice, slice] | None:
    """Rows and columns of the network's input that show the whole frame; None unless they are whole pixels."""
    if affine[0, 1] or affine[1, 0]:
        return None
    scale = np.array([affine[1, 1], affine[0, 0]])
    first = (-0.5 - affine[::-1, 2]) / scale + 0.5  # outer edges of the frame, in pixels of the input
    edges = np.array([first, first + frame_size / scale])
    whole = np.rint(edges).astype(int)
    if np.abs(edges - whole).max() > 1e-6 or (whole[0] < 0).any() or (whole[1] > input_size).any():
        return None
    return slice(whole[0, 0], whole[1, 0]), slice(whole[0, 1], whole[1, 1])
