"""PaDiM (Defard et al. 2021): at each place of the grid, a Gaussian over what good patches look like there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from defectflow.core.files import UserError
from defectflow.methods.detector import Detector, Fit, FitOptions, GoodPatches, ScoreOptions, pool


class Padim(Detector):
    """Mahalanobis distance of each patch to the Gaussian in its place (equation 2 of the paper).

    Tensors: "" the means, float32 (cells, k); ``precision``, the inverse covariances, float32 (cells, k, k); ``axes``,
    int64 (k,), the dimensions of a patch that count.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], options: ScoreOptions) -> None:
        self._means, self._precision, self._axes = tensors[""], tensors["precision"], tensors["axes"]
        self._options = options

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`."""
        delta = (patches[:, self._axes] - self._means[position])[:, None]
        squares = delta @ self._precision[position] @ delta.mT
        distances = squares.flatten().clamp_min(0).sqrt()
        return pool(distances, self._options), distances

    @classmethod
    def fit(cls, good: GoodPatches, options: FitOptions) -> Fit:
        """anomalib's Gaussians (0.01 added to each variance) over dimensions that are drawn once for all banks."""
        from anomalib.models.components import MultiVariateGaussian

        height, width = good.grid
        drawn = torch.randperm(good.patches.shape[1], generator=torch.Generator().manual_seed(options.seed))
        axes = drawn[: options.dimensions].sort().values
        everywhere = torch.arange(height * width).repeat(len(good.images))
        if not torch.equal(good.position, everywhere):
            raise UserError("fit: padim needs the patches of all places (make the features without --foreground-only)")

        def gaussians(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            patches = good.patches[good.rows(kept)][:, axes].view(-1, height, width, len(axes))
            if len(patches) < 2:
                raise UserError("fit: padim needs two good images in each bank (label more, or choose other folds)")
            means, precision = MultiVariateGaussian().fit(patches.permute(0, 3, 1, 2).contiguous())
            return {"": means.T.contiguous(), "precision": precision, "axes": axes}

        return gaussians
