"""PaDiM (Defard et al. 2021): at each place of the grid, a Gaussian over what good patches look like there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from defectflow.core.files import UserError
from defectflow.methods.detector import Detector, Fit, GoodPatches, nearest_seen, pool
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
        cells = good.grid[0] * good.grid[1]
        drawn = torch.randperm(good.patches.shape[1], generator=torch.Generator().manual_seed(seed))
        axes = drawn[: settings.dimensions].sort().values

        def gaussians(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            rows, number = good.rows(kept), kept.cumsum(0) - 1
            owner, position = number[good.owner[rows]], good.position[rows]
            shown = torch.zeros(int(kept.sum()), cells, dtype=torch.bool)
            shown[owner, position] = True
            known = shown.sum(dim=0) > 1
            if not known.any():
                raise UserError("fit: padim needs two good images in each bank (label more, or choose other folds)")
            whole, patches = bool(shown.all()), good.patches[rows][:, axes]
            if not whole:  # some pictures have another shape than the set's
                patches = torch.zeros(*shown.shape, len(axes)).index_put_((owner, position), patches)
            means, precision = place_gaussians(patches.view(*shown.shape, -1), None if whole else shown)
            nearest = nearest_seen(known, good.grid)
            return {"": means[nearest], "precision": precision[nearest], "axes": axes}

        return gaussians


def place_gaussians(patches: torch.Tensor, shown: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian in each place of the grid: its mean and the inverse of its covariance.

    Source: T. Defard, A. Setkov, A. Loesch, R. Audigier, PaDiM (2021), section III-B, equation 1; with `REGULARISATION`
    as anomalib's ``MultiVariateGaussian``. Computed in float64.

    Args:
        patches: float32 (images, cells, k), two images or more.
        shown: bool (images, cells), which count; None: all. Places that fewer than two images show are of no use.

    Returns:
        Means, float32 (cells, k), and inverse covariances, float32 (cells, k, k).
    """
    means, precision = [], []
    whole = shown is None
    counted = torch.ones(patches.shape[:2], dtype=torch.bool) if shown is None else shown
    for part, counts in zip(patches.split(_CELLS, dim=1), counted.split(_CELLS, dim=1), strict=True):
        here, weight = part.double().transpose(0, 1), counts.T[..., None].double()
        count = weight.sum(dim=1, keepdim=True)
        mean = here.mean(dim=1) if whole else (here * weight).sum(dim=1) / count[:, 0].clamp_min(1)
        delta = here - mean[:, None] if whole else (here - mean[:, None]) * weight
        covariance = delta.mT @ delta / (count - 1).clamp_min(1)
        covariance.diagonal(dim1=1, dim2=2).add_(REGULARISATION)
        means.append(mean.float())
        precision.append(torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float())
    return torch.cat(means), torch.cat(precision)
