"""PatchCore's scoring as a graph: from a picture to the distances of its patches and the image score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from defectflow.backbones.network_as_graph import Network
from defectflow.methods.patchcore.scales import LEAST, UNITS, Combination, grids_of, of_scale


class Nearest(nn.Module):
    """From the patches of one scale, float32 (p, d), to the distance of each of them, and what is nearest in the bank.

    Args:
        tensors, settings: of the bank, see `memory_bank.PatchCore`.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.cosine = settings["distance"] == "cosine"
        self.register_buffer("bank", tensors[""].float())
        self.register_buffer("origin", self.bank.mean(dim=0))
        if "axes" in tensors:
            self.register_buffer("subspace_mean", tensors["mean"])
            self.register_buffer("axes", tensors["axes"])

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The distances, int64 (p,) rows of the bank, and the patches as they are compared."""
        if self.cosine:
            patches = nn.functional.normalize(patches, dim=1)
        if hasattr(self, "axes"):
            patches = (patches - self.subspace_mean) @ self.axes
        # Products find the nearest, the difference measures it: a small difference of large squares would be rounded.
        centered, bank = patches - self.origin, self.bank - self.origin
        nearest = (bank.square().sum(dim=1) - 2 * centered @ bank.T).argmin(dim=1)
        return self.measure(patches - self.bank[nearest]), nearest, patches

    def measure(self, differences: torch.Tensor) -> torch.Tensor:
        """Distances of differences (..., d)."""
        squares = differences.square().sum(dim=-1)
        return squares / 2 if self.cosine else squares.sqrt()


class Search(nn.Module):
    """From a picture and the cells of the part to the distance of each of them, and PatchCore's image score.

    Args:
        network: see `Network`.
        tensors, settings: of the bank, see `memory_bank.PatchCore`.
        neighbours: of the re-weighting, equation 7 of the paper; 1 switches it off.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, torch.Tensor],
        settings: Mapping[str, Any],
        neighbours: int,
    ) -> None:
        super().__init__()
        from defectflow.methods.patchcore.memory_bank import Bank

        self.network, self.nearest = network, Nearest(tensors, settings)
        # What is nearest to each point of the bank is known beforehand: a table instead of another search.
        bank = Bank(tensors[""])
        self.register_buffer("table", bank.around(torch.arange(len(bank.features)), neighbours))

    def forward(self, picture: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances, nearest, patches = self.nearest(self.network(picture).flatten(0, 2)[cells])
        winner = distances.argmax(dim=0, keepdim=True)
        support = self.nearest.measure(self.nearest.bank[self.table[nearest[winner]]] - patches[winner, None])[0]
        weight = 1 - torch.softmax(support, dim=0)[0] if self.table.shape[1] > 1 else 1.0
        return distances, distances[winner][0] * weight


class ScaledSearch(nn.Module):
    """As `Search` for several scales; the cells of each scale are an input of their own, counted from 0.

    Args:
        network, tensors, settings: as of `Search`.
    """

    def __init__(self, network: Network, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._grids = grids_of(settings)
        self.network = network
        self.nearest = nn.ModuleList(Nearest(of_scale(tensors, k), settings) for k in range(len(self._grids)))
        combination = Combination(self._grids, tensors[UNITS].numpy())
        self._units = combination.units
        for k, (down, across) in enumerate(combination.enlarge, start=1):
            self.register_buffer(f"down{k}", torch.from_numpy(down).float())
            self.register_buffer(f"across{k}", torch.from_numpy(across).float())

    def forward(self, picture: torch.Tensor, *cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches, first = self.network(picture)[0], 0
        middle, spread = self._units[0]
        for k, (own, grid, (other_middle, other_spread)) in enumerate(
            zip(cells, self._grids, self._units, strict=True)
        ):
            count = grid[0] * grid[1]
            distances = self.nearest[k](patches[first : first + count][own])[0]
            first += count
            if k == 0:
                total = finest = distances
                continue
            values = middle + (distances - other_middle) * (spread / other_spread)
            pair = torch.stack([torch.ones_like(values), values])
            spots = torch.zeros(2, count).scatter(1, own.expand(2, -1), pair).view(2, *grid)
            weight, heat = getattr(self, f"down{k}") @ spots @ getattr(self, f"across{k}").T
            weight, heat = weight.flatten()[cells[0]], heat.flatten()[cells[0]]
            total = total + torch.where(weight > LEAST, heat / weight.clamp(min=LEAST), finest)
        mean = total / len(self._grids)
        return mean, mean.max()


def detector_graph(
    network: Network, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], neighbours: int
) -> Search | ScaledSearch:
    """The graph of a bank of one scale or of several; arguments as of `Search`."""
    if grids_of(settings):
        return ScaledSearch(network, tensors, settings)
    return Search(network, tensors, settings, neighbours)
