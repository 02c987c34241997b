"""PatchCore (Roth et al. 2022) as anomalib computes it: patch embedding, nearest neighbours, image score.

And the pixel difference, the baseline that a detector has to beat: the colour of each cell of the grid instead of
features, and its distance to the mean colour that the good images have in the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

from defectflow.neighbours import Neighbours

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PIXELS = "pixels"  # backbone of the pixel difference
PIXEL_CELL = 8  # its cell, in pixels
SCORES = ("max", "top_k_mean", "percentile")


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


class Subspace(NamedTuple):
    """The directions in which patches vary most.

    Attributes:
        mean: float32 (d,).
        axes: float32 (d, k), orthonormal, the one of the largest variance first.
    """

    mean: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def of(cls, patches: torch.Tensor, share: float = 0.99, seed: int = 0) -> Subspace:
        """As few principal axes as hold ``share`` of the variance of ``patches`` (n, d), 50,000 of them at most."""
        sample = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:50_000]].double()
        mean = sample.mean(dim=0)
        variances, vectors = torch.linalg.eigh((sample - mean).T @ (sample - mean))
        held = variances.flip(0).clamp_min(0).cumsum(0)
        count = min(int((held < share * held[-1]).sum()) + 1, len(mean))
        return cls(mean.float(), vectors.flip(1)[:, :count].float().contiguous())

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Coordinates (n, k) of patches (n, d) along the axes."""
        return (patches - self.mean) @ self.axes


class Bank:
    """Memory bank of good patches, searched exactly.

    Args:
        features: float (n, d), or (n, k) along the axes of ``subspace``.
        subspace: where distances are measured; None: between the patches as they are.
    """

    def __init__(self, features: torch.Tensor, subspace: Subspace | None = None) -> None:
        self.features = features.float()
        self._project = subspace.project if subspace else lambda patches: patches
        self._squares = self.features.square().sum(dim=1)
        self._neighbours = Neighbours(self.features)

    def nearest(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Euclidean distance of each patch to its nearest neighbour in the bank, and that one's index.

        Args:
            patches: float32 (p, d).

        Returns:
            float32 (p,) and int64 (p,).
        """
        return self._neighbours.nearest(self._project(patches))

    def reweighted(self, patch: torch.Tensor, distance: torch.Tensor, nearest: int, neighbours: int) -> float:
        """Score of an image's most distant patch, weighted as in the paper (section 3.3, equation 7) and anomalib.

        A patch is the more anomalous, the farther its nearest neighbour m* is from it in comparison with the
        ``neighbours`` patches of the bank that are nearest to m*.
        """
        if neighbours == 1:
            return float(distance)
        support = self._closest(nearest, min(neighbours, len(self.features)))
        distances = torch.linalg.vector_norm(self.features[support] - self._project(patch), dim=1)
        return float((1 - torch.softmax(distances, dim=0)[0]) * distance)

    def _closest(self, index: int, count: int) -> torch.Tensor:
        """The ``count`` patches nearest to one of them, the nearest first: int64 (count,)."""
        center = self.features[index]
        # Squared distances, less |center|^2: they find the candidates, and are 5 times faster than differences.
        rough = self._squares - 2 * (self.features @ center)
        error = len(center) * 2**-23 * (self._squares[index].sqrt() + self._squares.max().sqrt()).square()
        farthest = rough.topk(count, largest=False).values[-1]
        candidates = (rough <= farthest + 2 * error).nonzero()[:, 0]
        distances = torch.linalg.vector_norm(self.features[candidates] - center, dim=1)
        return candidates[distances.topk(count, largest=False).indices]


class PositionBank:
    """Mean colour for each cell of the grid: the bank of the pixel difference.

    Args:
        features: float (grid height * grid width, 3).
    """

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def nearest(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance of each cell's colour to the mean in its place; ``patches`` holds all cells in order."""
        return torch.linalg.vector_norm(patches - self.features, dim=1), torch.arange(len(patches))

    def reweighted(self, patch: torch.Tensor, distance: torch.Tensor, nearest: int, neighbours: int) -> float:
        """The distance as it is: a place has no neighbours in the bank."""
        return float(distance)


def image_score(
    bank: Bank | PositionBank,
    patches: torch.Tensor,
    distances: torch.Tensor,
    nearest: torch.Tensor,
    *,
    method: str = "max",
    neighbours: int = 9,
    fraction: float = 0.01,
) -> float:
    """Anomaly score of an image from its patches' distances to the bank.

    Args:
        bank: the bank.
        patches: float32 (p, d), p >= 1.
        distances: float32 (p,), from ``bank.nearest``.
        nearest: int64 (p,), from ``bank.nearest``.
        method: "max" (the largest, re-weighted as in the paper; anomalib's score), "top_k_mean" (mean of the largest
            ``fraction``, one at least) or "percentile" (the distance that ``fraction`` of the patches exceed).
        neighbours: number of neighbours for the re-weighting; 1 switches it off.
        fraction: share of the patches, in (0, 1).
    """
    if method == "top_k_mean":
        return float(distances.topk(max(1, round(fraction * len(distances)))).values.mean())
    if method == "percentile":
        return float(torch.quantile(distances, 1 - fraction))
    winner = int(distances.argmax())
    return bank.reweighted(patches[winner], distances[winner], int(nearest[winner]), neighbours)
