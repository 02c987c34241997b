"""PaDiM (Defard et al. 2021): at each place of the grid, a Gaussian over what good patches look like there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from defectflow.core.files import UserError
from defectflow.methods.detector import Detector, Fit, GoodPatches, pool
from defectflow.methods.padim.settings import PadimSettings

# Added to each variance so that covariances of few images can be inverted: 0.01 in the paper (section III-B), and
# anomalib adds another 1e-5.
REGULARISATION = 0.01001
_CELLS = 256  # whose matrices are in memory in float64 at a time: 20 MB for 100 dimensions


class Padim(Detector):
    """Mahalanobis distance of each patch to the Gaussian in its place (equation 2 of the paper).

    Tensors: "" the means, float32 (cells, k); ``precision``, the inverse covariances, float32 (cells, k, k); ``axes``,
    int64 (k,), the dimensions of a patch that count.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: PadimSettings
    ) -> None:
        self._means, self._precision, self._axes = tensors[""], tensors["precision"], tensors["axes"]
        self._settings = settings

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`."""
        delta = (patches[:, self._axes] - self._means[position])[:, None]
        squares = delta @ self._precision[position] @ delta.mT
        distances = squares.flatten().clamp_min(0).sqrt()
        return pool(distances, self._settings), distances

    @classmethod
    def fit(cls, good: GoodPatches, settings: PadimSettings, seed: int = 0, device: str | torch.device = "cpu") -> Fit:
        """`place_gaussians` of any part of the good images, over dimensions that are drawn once for all banks."""
        height, width = good.grid
        drawn = torch.randperm(good.patches.shape[1], generator=torch.Generator().manual_seed(seed))
        axes = drawn[: settings.dimensions].sort().values
        everywhere = torch.arange(height * width).repeat(len(good.images))
        if not torch.equal(good.position, everywhere):
            raise UserError("fit: padim needs the patches of all places (make the features without --foreground-only)")

        def gaussians(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            patches = good.patches[good.rows(kept)][:, axes].view(-1, height * width, len(axes))
            if len(patches) < 2:
                raise UserError("fit: padim needs two good images in each bank (label more, or choose other folds)")
            means, precision = place_gaussians(patches)
            return {"": means, "precision": precision, "axes": axes}

        return gaussians


def place_gaussians(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian in each place of the grid: its mean and the inverse of its covariance.

    Source: T. Defard, A. Setkov, A. Loesch, R. Audigier, PaDiM (2021), section III-B, equation 1; with `REGULARISATION`
    as anomalib's ``MultiVariateGaussian``. Computed in float64.

    Args:
        patches: float32 (images, cells, k), two images or more.

    Returns:
        Means, float32 (cells, k), and inverse covariances, float32 (cells, k, k).
    """
    means, precision = [], []
    for part in patches.split(_CELLS, dim=1):
        here = part.double().transpose(0, 1)
        mean = here.mean(dim=1)
        delta = here - mean[:, None]
        covariance = delta.mT @ delta / (len(patches) - 1)
        covariance.diagonal(dim1=1, dim2=2).add_(REGULARISATION)
        means.append(mean.float())
        precision.append(torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float())
    return torch.cat(means), torch.cat(precision)
