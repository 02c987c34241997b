"""Several scales of a picture: what a bank says of each, brought together in one map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

import cv2
import numpy as np

Tensor = TypeVar("Tensor")
LEAST = 1e-6  # weight of the cells around, below which none of them has a patch: then the finest scale counts alone
UNITS = "units"  # tensor of a bank with several scales: float32 (scales, 2), see `Combination`


def grids_of(metadata: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(height, width) of the grid of each scale, the finest first; none where the features have but one scale."""
    coarser = [tuple(scale["grid"]) for scale in metadata.get("coarser", [])]
    return [tuple(metadata["grid"]), *coarser] if coarser else []


def of_scale(tensors: Mapping[str, Tensor], scale: int) -> dict[str, Tensor]:
    """The tensors of one scale out of those of a bank, by the names that they have where there is but one."""
    if scale == 0:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("scale") and name != UNITS}
    start = f"scale{scale}"
    return {name[len(start) + 1 :]: tensor for name, tensor in tensors.items() if name.split("_")[0] == start}


def named(tensors: Mapping[str, Tensor], scale: int) -> dict[str, Tensor]:
    """What `of_scale` takes apart."""
    return {f"scale{scale}_{name}".rstrip("_") if scale else name: tensor for name, tensor in tensors.items()}


class Combination:
    """Brings the distances of all scales together on the finest grid: their mean, in units of the finest scale.

    A distance d of a coarser scale becomes m + (d - m') s / s', where m and m' are the medians of the distances of
    good patches, at the finest and at this scale, from a bank without their pictures, and s and s' are how far their
    95th percentiles lie above these. It is then interpolated between the cells of its grid that have a patch.

    Args:
        grids: (height, width) of each scale, the finest first.
        units: float (scales, 2), m and s of each.

    Attributes:
        units: m and s of each scale.
        enlarge: of each coarser scale, what the rows and the columns of the finest grid take from its cells, float64
            (fine, coarse) each.
    """

    def __init__(self, grids: Sequence[tuple[int, int]], units: np.ndarray) -> None:
        self._grids = grids
        self._ends = np.cumsum([height * width for height, width in grids])
        self.units = [(float(middle), float(spread)) for middle, spread in units]
        self.enlarge = [
            tuple(_enlarging(coarse, fine) for coarse, fine in zip(grid, grids[0], strict=True)) for grid in grids[1:]
        ]

    def members(self, position: np.ndarray) -> list[np.ndarray]:
        """Of each scale: which cells are its own, of cells of all scales in any order, int64 (p,): bool (p,) each."""
        scale = np.searchsorted(self._ends, position, side="right")
        return [scale == number for number in range(len(self._ends))]

    def split(self, position: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Of each scale: which of the patches at ``position``, int64 (p,) in ascending order of scales, and where.

        Yields:
            Their rows, and their flat indices in the grid of the scale.
        """
        ends = np.searchsorted(position, self._ends)
        for begin, end, first in zip([0, *ends], ends, [0, *self._ends], strict=False):
            yield slice(begin, end), position[begin:end] - first

    def with_units(self, units: np.ndarray) -> Combination:
        """The same scales in other units, float (scales, 2): those of another bank."""
        other = copy(self)
        other.units = [(float(middle), float(spread)) for middle, spread in units]
        return other

    def sources(self, chosen: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Which patches the map takes its values from, at some cells of the finest grid.

        Args:
            chosen: bool (p of the finest scale,), the cells.
            position: int64 (p,), of all patches, sorted.

        Returns:
            bool (p,).
        """
        (_, finest), *coarser = self.split(position)
        marked = np.zeros(self._grids[0][0] * self._grids[0][1])
        marked[finest[chosen]] = 1
        found = [chosen]
        for (_, where), (down, across) in zip(coarser, self.enlarge, strict=True):
            taken = (down > 0).T.astype(float) @ marked.reshape(self._grids[0]) @ (across > 0).astype(float)
            found.append(taken.ravel()[where] > 0)
        return np.concatenate(found)

    def holding(self, cells: np.ndarray, scale: int) -> np.ndarray:
        """The cell of a scale that each of some cells of the finest grid takes most from, int64 (k,) flat indices."""
        if scale == 0:
            return cells
        rows, columns = np.divmod(cells, self._grids[0][1])
        down, across = (weights.argmax(axis=1) for weights in self.enlarge[scale - 1])
        held: np.ndarray = down[rows] * self._grids[scale][1] + across[columns]
        return held

    def combined(self, distances: Sequence[np.ndarray], position: np.ndarray) -> np.ndarray:
        """The map on the finest grid.

        Args:
            distances: float32 (p of the scale,) of each scale; upper bounds of distances give an upper bound.
            position: int64 (p,), of all patches, sorted.

        Returns:
            float32 (p of the finest scale,).
        """
        places = [own for _, own in self.split(position)]
        total = distances[0].astype(np.float64)
        middle, spread = self.units[0]
        scales = zip(distances[1:], places[1:], self.units[1:], self._grids[1:], self.enlarge, strict=True)
        for own, where, (other_middle, other_spread), grid, (down, across) in scales:
            known, values = np.zeros(grid[0] * grid[1]), np.zeros(grid[0] * grid[1])
            known[where] = 1
            values[where] = middle + (own - other_middle) * (spread / other_spread)
            weight, heat = ((down @ array.reshape(grid) @ across.T).ravel()[places[0]] for array in (known, values))
            total += np.where(weight > LEAST, heat / np.maximum(weight, LEAST), distances[0])
        mean: np.ndarray = (total / len(self._grids)).astype(np.float32)
        return mean


def _enlarging(coarse: int, fine: int) -> np.ndarray:
    """What each of the fine cells of a line takes from the coarse ones, float64 (fine, coarse)."""
    weights: np.ndarray = cv2.resize(np.eye(coarse), (coarse, fine), interpolation=cv2.INTER_LINEAR)
    return weights
