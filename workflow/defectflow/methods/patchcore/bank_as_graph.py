"""PatchCore's scoring as a graph: from a picture to the distances of its patches and the image score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from defectflow.backbones.network_as_graph import Network


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

        self.network, self.cosine = network, settings["distance"] == "cosine"
        bank = Bank(tensors[""])
        self.register_buffer("bank", bank.features)
        self.register_buffer("origin", bank.features.mean(dim=0))
        # What is nearest to each point of the bank is known beforehand: a table instead of another search.
        self.register_buffer("table", bank.around(torch.arange(len(bank.features)), neighbours))
        if "axes" in tensors:
            self.register_buffer("subspace_mean", tensors["mean"])
            self.register_buffer("axes", tensors["axes"])

    def forward(self, picture: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.network(picture).flatten(0, 2)[cells]
        if self.cosine:
            patches = nn.functional.normalize(patches, dim=1)
        if hasattr(self, "axes"):
            patches = (patches - self.subspace_mean) @ self.axes
        # Products find the nearest, the difference measures it: a small difference of large squares would be rounded.
        centered, bank = patches - self.origin, self.bank - self.origin
        nearest = (bank.square().sum(dim=1) - 2 * centered @ bank.T).argmin(dim=1)
        distances = self._measure(patches - self.bank[nearest])
        winner = distances.argmax(dim=0, keepdim=True)
        support = self._measure(self.bank[self.table[nearest[winner]]] - patches[winner, None])[0]
        weight = 1 - torch.softmax(support, dim=0)[0] if self.table.shape[1] > 1 else 1.0
        return distances, distances[winner][0] * weight

    def _measure(self, differences: torch.Tensor) -> torch.Tensor:
        squares = differences.square().sum(dim=-1)
        return squares / 2 if self.cosine else squares.sqrt()
