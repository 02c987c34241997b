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
    """Turns images into patch vectors with anomalib's `PatchcoreModel`.

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
        self._model = None
        if backbone == PIXELS:
            return
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        from defectflow.backbones import create_backbone

        network = create_backbone(backbone, layers, weights, allow_download=allow_download, seed=seed)
        self.trained = bool(network.trained)
        self._model = PatchcoreModel(layers=list(layers), backbone=network).eval().requires_grad_(False)
        _fuse(self._model.feature_extractor.feature_extractor)
        self._model.to(self.device, memory_format=torch.channels_last)
        mean = torch.tensor(IMAGENET_MEAN, device=self.device) * 255
        self._mean, self._std = mean.view(3, 1, 1), torch.tensor(IMAGENET_STD, device=self.device).view(3, 1, 1) * 255

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Embed uint8 RGB images (batch, height, width, 3) of one size as float32 (batch, grid h, grid w, d)."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # channels last in memory
        if self._model is None:
            return nn.functional.avg_pool2d(pixels.float() / 255, PIXEL_CELL, ceil_mode=True).permute(0, 2, 3, 1)
        features = self._model.feature_extractor((pixels.float() - self._mean) / self._std)
        features = {layer: self._model.feature_pooler(feature) for layer, feature in features.items()}
        return self._model.generate_embedding(features).permute(0, 2, 3, 1)


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
