"""From pictures to patches: the vectors that detectors learn from and judge, as anomalib's PatchCore makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PIXELS = "pixels"  # backbone of the pixel difference
PIXEL_CELL = 8  # its cell, in pixels


class PatchEmbedder:
    """Turns images into patch vectors as anomalib's `PatchcoreModel` does, without its seven seconds of imports.

    A test holds the two against each other. Features are averaged over 3 x 3 cells and enlarged to the grid of the
    first layer (K. Roth et al., Towards total recall in industrial anomaly detection, 2022, section 3.1).

    Args:
        backbone: name for `backbones.create_backbone`, or "pixels".
        layers: layers whose features are concatenated, lowest first; the grid is that of the first.
        weights: local file of weights or None.
        allow_download: let timm download the weights that the name's tag stands for.
        seed: seed of the untrained network when there are no weights.
        device: where to compute.

    Attributes:
        trained: whether the backbone has trained weights.
    """

    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        weights: str | Path | None = None,
        *,
        allow_download: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.trained = False
        self.network = None
        if backbone == PIXELS:
            return
        from torchvision.models.feature_extraction import create_feature_extractor

        from defectflow.backbones import create_backbone

        network = create_backbone(backbone, layers, weights, allow_download=allow_download, seed=seed)
        self.trained = bool(network.trained)
        traced = create_feature_extractor(network, return_nodes={layer: layer for layer in layers})
        self.network = traced.eval().requires_grad_(False)
        _fuse(self.network)
        self.network.to(self.device, memory_format=torch.channels_last)
        mean = torch.tensor(IMAGENET_MEAN, device=self.device) * 255
        self._mean, self._std = mean.view(3, 1, 1), torch.tensor(IMAGENET_STD, device=self.device).view(3, 1, 1) * 255

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Embed uint8 RGB images (batch, height, width, 3) of one size as float32 (batch, grid h, grid w, d)."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # channels last in memory
        if self.network is None:
            return nn.functional.avg_pool2d(pixels.float() / 255, PIXEL_CELL, ceil_mode=True).permute(0, 2, 3, 1)
        return descriptors(self.network((pixels.float() - self._mean) / self._std))


def descriptors(features: dict[str, torch.Tensor]) -> torch.Tensor:
    """Feature maps (batch, c, h, w) by layer, finest first, as patch vectors, (batch, grid h, grid w, sum of c)."""
    pooled = [nn.functional.avg_pool2d(feature, 3, stride=1, padding=1) for feature in features.values()]
    size = pooled[0].shape[-2:]
    enlarged = [nn.functional.interpolate(feature, size, mode="bilinear") for feature in pooled[1:]]
    return torch.cat([pooled[0], *enlarged], dim=1).permute(0, 2, 3, 1)


def _fuse(network: nn.Module) -> None:
    """Fold each batch norm of a traced network in eval mode into the convolution before it, in place."""
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        source = node.args[0] if node.args else None
        if not (isinstance(source, Node) and node.op == source.op == "call_module"):
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if type(norm) is nn.BatchNorm2d and isinstance(convolution, nn.Conv2d) and len(source.users) == 1:
            network.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(node.target, nn.Identity())
