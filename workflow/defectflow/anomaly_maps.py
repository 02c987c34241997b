"""Anomaly maps: patch distances on the grid of the network, brought to the pixels of the original photograph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.files import UserError, atomic

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


class AnomalyMaps(Mapping[str, AnomalyMap]):
    """Maps of several files by image_id, in sorted order; each is read when it is asked for."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._files = []
        self._where: dict[str, int] = {}
        for path in paths:
            try:
                stream = safe_open(path, framework="numpy")
            except FileNotFoundError:
                raise UserError(f"{path}: no such file") from None
            except SafetensorError as error:
                raise UserError(f"{path}: not a map file ({error})") from None
            config = json.loads((stream.metadata() or {}).get("defectflow", "{}"))
            if "input_size" not in config:
                raise UserError(f"{path}: not a map file (no input_size in its metadata)")
            for key in stream.keys():  # noqa: SIM118  (not a dict)
                if key.startswith("map/"):
                    self._where[key.removeprefix("map/")] = len(self._files)
            self._files.append((stream, tuple(config["input_size"])))

    def __getitem__(self, image_id: str) -> AnomalyMap:
        stream, input_size = self._files[self._where[image_id]]
        return AnomalyMap(stream.get_tensor(f"map/{image_id}"), stream.get_tensor(f"affine/{image_id}"), input_size)

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
    """Write ``{image_id: (grid_map, affine)}`` as safetensors, atomically."""
    tensors = {}
    for image_id in sorted(maps):
        grid_map, affine = maps[image_id]
        tensors[f"map/{image_id}"] = np.ascontiguousarray(grid_map, dtype=np.float32)
        tensors[f"affine/{image_id}"] = np.ascontiguousarray(affine, dtype=np.float64)
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"defectflow": json.dumps({"input_size": list(input_size)})})


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
