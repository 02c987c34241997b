"""Distance to the centroid of the good images: the simplest detector that learns from good images only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from defectflow.methods.centroid.settings import CentroidSettings
from defectflow.methods.detector import Detector, Fit, GoodPatches


class Centroid(Detector):
    """1 - cos between an image's embedding and the centroid of the good ones.

    The embedding e of an image is the mean of its patches, scaled to unit length; the centroid c is the mean of the
    good images' embeddings, scaled likewise. The image score is 1 - e.c, from 0 to 2. It says nothing of where; a
    patch x of the map has the distance 1 - x.c' / |x| from the centroid c' of the good patches in its place, each of
    unit length: compared with c, an edge is far from normal wherever it is, and the map tells no defect from it.

    Tensors: "" is c, float32 (1, d); ``places`` are the c', float32 (cells, d), and c where no good patch lies.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: CentroidSettings
    ) -> None:
        self._centroid, self._places = tensors[""][0], tensors["places"]

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; the score is that of the image as a whole and no summary of the patches'."""
        score = 1 - normalize(patches.mean(dim=0), dim=0) @ self._centroid
        return float(score), 1 - (normalize(patches, dim=1) * self._places[position]).sum(dim=1)

    @classmethod
    def counts(cls, available: Sequence[int], settings: CentroidSettings) -> list[int]:
        """All patches of every n-th image, which places are learned from; centroids come from all images."""
        step = -(-sum(available) // settings.max_patches)
        return [0 if i % step else count for i, count in enumerate(available)]

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, settings: CentroidSettings, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All patches or none, of unit length."""
        return normalize(patches[:count], dim=1), position[:count]

    @classmethod
    def fit(
        cls, good: GoodPatches, settings: CentroidSettings, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Fit:
        """The centroids of any part of the good images."""
        embeddings, cells = normalize(good.means, dim=1), good.grid[0] * good.grid[1]

        def centroids(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            rows = good.rows(kept)
            centroid = normalize(embeddings[kept].mean(dim=0, keepdim=True), dim=1)
            places = torch.zeros(cells, embeddings.shape[1]).index_add_(0, good.position[rows], good.patches[rows])
            unseen = torch.bincount(good.position[rows], minlength=cells) == 0
            return {"": centroid, "places": torch.where(unseen[:, None], centroid, normalize(places, dim=1))}

        return centroids
