"""The network of the autoencoder, and what its losses are made of. Imports torch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WINDOW = 7  # pixels, of the structural similarity
SCALE = 0.1  # of the Laplace distribution of an error in [0, 1]: what weighs reconstruction against divergence


class Autoencoder(nn.Module):
    """Four halvings to ``latent`` numbers, each with a mean and a variance, and back (Kingma, Welling 2014).

    Args:
        size: (height, width) of the pictures, multiples of 16.
        latent: numbers that a picture is reduced to.
        width: channels of the first layer.
    """

    def __init__(self, size: tuple[int, int], latent: int, width: int) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 4 * width]
        down: list[nn.Module] = []
        for before, after in pairwise(channels):
            down += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(4, after), nn.SiLU()]
        up: list[nn.Module] = []
        for before, after in zip(channels[:1:-1], channels[-2:0:-1], strict=True):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, 1, 1), nn.GroupNorm(4, after), nn.SiLU()]
        up += [nn.Upsample(scale_factor=2), nn.Conv2d(channels[1], 3, 3, 1, 1)]
        self._inner = (channels[-1], size[0] // 16, size[1] // 16)
        values = self._inner[0] * self._inner[1] * self._inner[2]
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up)
        self.code, self.open = nn.Linear(values, 2 * latent), nn.Linear(latent, values)

    def forward(self, pictures: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruct pictures.

        Args:
            pictures: float32 RGB (b, 3, height, width) in [0, 1].
            noise: float32 (b, latent), standard normal; None: the means alone are decoded.

        Returns:
            Reconstructions of the same shape in (0, 1), and the divergence of each from the standard normal
            distribution, float32 (b,), in nats.
        """
        mean, log_variance = self.code(self.down(pictures - 0.5).flatten(1)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-10, 10)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        drawn = mean if noise is None else mean + noise * (log_variance / 2).exp()
        return torch.sigmoid(self.up(self.open(drawn).unflatten(1, self._inner))), divergence


def error_map(pictures: Tensor, drawn: Tensor, share: float) -> Tensor:
    """Reconstruction error of each pixel, float32 (b, height, width) in [0, 1].

    Args:
        pictures, drawn: float32 (b, 3, height, width) in [0, 1].
        share: of (1 - SSIM) / 2, the rest is the mean absolute difference.
    """
    difference = (pictures - drawn).abs().mean(dim=1)
    return difference if share == 0 else share * (1 - ssim(pictures, drawn)) / 2 + (1 - share) * difference


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity around each pixel (Wang et al. 2004) in a square window, (b, height, width) in [-1, 1]."""
    half = WINDOW // 2

    def mean(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(nn.functional.pad(x, [half] * 4, mode="reflect"), WINDOW, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    square_a, square_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    structure = (2 * both + 0.03**2) / (square_a + square_b + 0.03**2)
    return (light * structure).mean(dim=1)


def negative_evidence(error: Tensor, divergence: Tensor, weight: float) -> Tensor:
    """Negative evidence lower bound of each picture up to a constant, in nats a pixel, float32 (b,).

    Args:
        error: of each pixel, (b, height, width).
        divergence: of each picture, (b,), in nats.
        weight: of the divergence.
    """
    return error.mean(dim=(1, 2)) / SCALE + weight * divergence / error[0].numel()
