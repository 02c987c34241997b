"""Anomaly maps: patch distances on the grid of the network, brought to the pixels of the original photograph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.files import UserError, atomic, tensor_offsets

SIGMA = 4.0  # of the Gaussian, in pixels of an input of 256 pixels, as in the paper


@dataclass(frozen=True)
class AnomalyMap:
    """Patch distances of one image.

    Attributes:
        grid_map: float32 (grid height, grid width), distances of patches to the bank.
        affine: float64 (2, 3), takes pixel coordinates (x, y) of the network's input to those of the original frame.
        input_size: (height, width) of the network's input.
    """

    grid_map: np.ndarray
    affine: np.ndarray
    input_size: tuple[int, int]


class _File(NamedTuple):
    """A file of maps: its path, (height, width) of the network's input and of the grid, and where the data begin."""

    path: Path
    input_size: tuple[int, int]
    grid: tuple[int, int]
    offsets: dict[str, int]


class AnomalyMaps(Mapping[str, AnomalyMap]):
    """Maps of several files by image_id, in sorted order; each is read when it is asked for."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._files: list[_File] = []
        self._where: dict[str, tuple[int, int]] = {}
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
            self._where |= {image_id: (number, row) for row, image_id in enumerate(config["items"])}
            self._files.append(_File(Path(path), tuple(config["input_size"]), grid, tensor_offsets(path)))

    def __getitem__(self, image_id: str) -> AnomalyMap:
        number, row = self._where[image_id]
        path, input_size, grid, offsets = self._files[number]
        cells = grid[0] * grid[1]
        values = np.fromfile(path, "<f4", cells, offset=offsets["maps"] + row * cells * 4)
        affine = np.fromfile(path, "<f8", 6, offset=offsets["affines"] + row * 6 * 8)
        return AnomalyMap(values.reshape(grid), affine.reshape(2, 3), input_size)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._where))

    def __len__(self) -> int:
        return len(self._where)


def load_maps(paths: Sequence[str | Path]) -> AnomalyMaps:
    """Open map files written by the score stage.

    Raises:
        UserError: a file is absent or is not a map file.
    """
    return AnomalyMaps(paths)


def save_maps(path: str | Path, maps: Mapping[str, tuple[np.ndarray, np.ndarray]], input_size: Sequence[int]) -> None:
    """Write ``{image_id: (grid_map, affine)}``, all of one grid, as safetensors, atomically.

    The file holds ``maps`` float32 (n, grid height, grid width) and ``affines`` float64 (n, 2, 3), and in its metadata
    as JSON ``items``, the n image ids in sorted order, and ``input_size``.
    """
    items = sorted(maps)
    shape = maps[items[0]][0].shape if items else (0, 0)
    tensors = {
        "maps": np.array([maps[i][0] for i in items], np.float32).reshape(len(items), *shape),
        "affines": np.array([maps[i][1] for i in items], np.float64).reshape(-1, 2, 3),
    }
    metadata = {"defectflow": json.dumps({"input_size": list(input_size), "items": items})}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def grid_map(distances: np.ndarray, position: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Distances (p,) in their place (flat indices) on the grid, float32 of shape ``grid``; elsewhere the lowest."""
    result = np.full(grid[0] * grid[1], distances.min(), np.float32)
    result[position] = distances
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
        sigma: standard deviation in pixels; None: 4 at a longer side of 256, in proportion otherwise.

    Returns:
        float32 of shape ``input_size``.
    """
    height, width = input_size
    sigma = SIGMA * max(input_size) / 256 if sigma is None else sigma
    large = cv2.resize(grid_map.astype(np.float32), (width, height), interpolation=interpolation)
    kernel = 2 * int(4 * sigma + 0.5) + 1
    return cv2.GaussianBlur(large, (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)


def full_resolution(
    grid_map: np.ndarray, affine: np.ndarray, input_size: tuple[int, int], frame_size: tuple[int, int]
) -> np.ndarray:
    """Anomaly map on the pixels of the original upright frame: `smooth_map`, warped.

    Args:
        grid_map: float32 (grid height, grid width).
        affine: float64 (2, 3), from pixel coordinates of the network's input to those of the frame.
        input_size: (height, width) of the network's input.
        frame_size: (height, width) of the original upright photograph.

    Returns:
        float32 of shape ``frame_size``; what the network did not see has the lowest value of ``grid_map``.
    """
    lowest = float(grid_map.min())
    size = (frame_size[1], frame_size[0])
    return cv2.warpAffine(smooth_map(grid_map, input_size), affine, size, flags=cv2.INTER_LINEAR, borderValue=lowest)
