"""SPADE (Cohen & Hoshen 2020): compare a picture with the good photographs that resemble it most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from defectflow.methods.detector import Detector, Fit, GoodPatches, pool
from defectflow.methods.spade.settings import SpadeSettings
from defectflow.search.coreset import k_center_greedy

_ROWS = 512  # patches that are compared at a time: with 10,000 others a block of 20 MB


class Spade(Detector):
    """Distance of each patch to the nearest patch of the photographs nearest to the whole picture.

    A picture's embedding is the mean of its patches. Its ``nearest_images`` nearest neighbours among those of the good
    photographs are chosen (section 3.2 of the paper), and each patch is compared with the patches of these alone
    (section 3.3), of which ``patches`` are kept of each photograph. The image score is a summary of these distances, or
    the mean distance of the embeddings (equation 1; not squared).

    Source: N. Cohen, Y. Hoshen, Sub-image anomaly detection with deep pyramid correspondences (2020).

    Tensors: "" the patches, float32 (n, d); ``owner``, int64 (n,), the photograph of each; ``images``, float32 (m, d),
    the photographs' embeddings.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: SpadeSettings
    ) -> None:
        self._patches, self._owner, self._images = tensors[""], tensors["owner"], tensors["images"]
        self._settings = settings

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; where a patch lies does not count."""
        apart = torch.linalg.vector_norm(self._images - patches.mean(dim=0), dim=1)
        likeness = apart.topk(min(self._settings.nearest_images, len(apart)), largest=False)
        others = self._patches[torch.isin(self._owner.long(), likeness.indices)]
        distances = torch.cat([_nearest(part, others) for part in patches.split(_ROWS)])
        if self._settings.score == "retrieval":
            return float(likeness.values.mean()), distances
        return pool(distances, self._settings), distances

    @classmethod
    def counts(cls, available: Sequence[int], settings: SpadeSettings) -> list[int]:
        """The same number of each photograph."""
        return [min(count, settings.patches) for count in available]

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, settings: SpadeSettings, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A coreset of one photograph."""
        if count == len(patches):
            return patches, position
        kept = k_center_greedy(patches, count, seed=seed, progress=False)
        return patches[kept], position[kept]

    @classmethod
    def fit(cls, good: GoodPatches, settings: SpadeSettings, seed: int = 0, device: str | torch.device = "cpu") -> Fit:
        """The gallery of any part of the good photographs."""

        def gallery(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            rows, number = good.rows(kept), kept.cumsum(0) - 1
            return {"": good.patches[rows], "owner": number[good.owner[rows]], "images": good.means[kept]}

        return gallery


def _nearest(patches: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Distance of each patch (p, d) to the nearest of ``others`` (n, d), float32 (p,).

    The product finds it, and the difference measures it: of near ones the product keeps few digits.
    """
    squares = torch.addmm(others.square().sum(dim=1), patches, others.T, alpha=-2)
    return torch.linalg.vector_norm(patches - others[squares.argmin(dim=1)], dim=1)
