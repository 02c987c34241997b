"""The network of a bundle as a graph: from a picture to its patches. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defectflow.backbones.input_statistics import input_statistics
from defectflow.backbones.patch_embedding import descriptors, feature_network, in_one_list, reduced
from defectflow.backbones.tiles import graph_input


class Network(nn.Module):
    """From a picture, uint8 RGB (1, height, width, 3), to its patches, float32 (1, grid height, grid width, d).

    With several scales the patches are (1, cells of all scales, d), one scale after the other.

    Args:
        model: see `feature_network`.
        statistics: mean and standard deviation of its input, see `input_statistics`.
        reductions: see `PatchEmbedder`.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: tuple[Sequence[float], Sequence[float]],
        reductions: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        self.model, self._reductions = model, reductions
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        whole = (picture.permute(0, 3, 1, 2).float() - self.mean) / self.std
        scales = [descriptors(self.model(reduced(whole, reduction))) for reduction in self._reductions]
        return in_one_list(scales) if len(scales) > 1 else scales[0]


def make_network(settings: Mapping[str, Any], weights: str | Path) -> Network:
    """The network of a bundle, with its settings (backbone, layers, scales) and its backbone.safetensors."""
    backbone = settings["backbone"]
    model = feature_network(backbone, settings["layers"], weights)
    network = Network(model, input_statistics(backbone), graph_input(settings)[1])
    network.eval()
    return network
