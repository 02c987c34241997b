"""The network of a bundle as a graph: from a picture to its patches. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defectflow.backbones.input_statistics import input_statistics
from defectflow.backbones.patch_embedding import descriptors, feature_network


class Network(nn.Module):
    """From a picture, uint8 RGB (1, height, width, 3), to its patches, float32 (1, grid height, grid width, d).

    Args:
        model: see `feature_network`.
        statistics: mean and standard deviation of its input, see `input_statistics`.
    """

    def __init__(self, model: nn.Module, statistics: tuple[Sequence[float], Sequence[float]]) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return descriptors(self.model((picture.permute(0, 3, 1, 2).float() - self.mean) / self.std))


def make_network(settings: Mapping[str, Any], weights: str | Path) -> Network:
    """The network of a bundle; ``settings`` has backbone and layers, ``weights`` is its backbone.safetensors."""
    backbone = settings["backbone"]
    network = Network(feature_network(backbone, settings["layers"], weights), input_statistics(backbone))
    network.eval()
    return network
