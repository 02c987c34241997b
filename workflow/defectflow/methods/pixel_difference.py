"""Pixel difference, a baseline without a network: compares colours directly.

The features are the colours of the grid cells. The distance of a cell is measured to the mean colour of the good images
in the same place, instead of to a memory bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from defectflow.methods.detector import Detector, Fit, GoodPatches, nearest_seen, pool
from defectflow.methods.pixel_difference_settings import PixelDifferenceSettings


class PixelDifference(Detector):
    """Mean colour for each cell of the grid, float32 (grid height * grid width, 3)."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: PixelDifferenceSettings
    ) -> None:
        self._means, self._settings = tensors[""], settings

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Euclidean distance of each cell's colour to the mean in its place, and the image score from these."""
        distances = torch.linalg.vector_norm(patches - self._means[position], dim=1)
        return pool(distances, self._settings), distances

    @classmethod
    def fit(
        cls, good: GoodPatches, settings: PixelDifferenceSettings, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Fit:
        """The mean by position of any part of the good images."""
        cells = good.grid[0] * good.grid[1]

        def means(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            rows = good.rows(kept)
            position = good.position[rows]
            seen = torch.bincount(position, minlength=cells) > 0
            return {"": mean_by_position(good.patches[rows], position, cells)[nearest_seen(seen, good.grid)]}

        return means


def mean_by_position(patches: torch.Tensor, position: torch.Tensor, cells: int) -> torch.Tensor:
    """Mean patch of each of ``cells`` positions of the grid, float32 (cells, d)."""
    total = torch.zeros(cells, patches.shape[1], dtype=torch.float64).index_add_(0, position, patches.double())
    count = torch.bincount(position, minlength=cells)
    return (total / count[:, None]).float()
