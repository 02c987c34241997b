"""Distance to the centroid of the good images: the simplest detector there is that learns from good images only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from defectflow.detector import Detector, Fit, FitOptions, GoodPatches, ScoreOptions


class Centroid(Detector):
    """1 - cos between an image's embedding and the centroid of the good ones.

    The embedding e of an image is the mean of its patches, scaled to unit length; the centroid c is the mean of the
    good images' embeddings, scaled likewise: float32 (1, d). The image score is 1 - e.c, from 0 to 2; a patch x of the
    map has the distance 1 - x.c / |x|.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], options: ScoreOptions) -> None:
        self._centroid = tensors[""][0]

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; the score is that of the image as a whole and no summary of the patches'."""
        return float(1 - embedding(patches) @ self._centroid), 1 - normalize(patches, dim=1) @ self._centroid

    @classmethod
    def counts(cls, available: Sequence[int], options: FitOptions) -> list[int]:
        """One vector for each image."""
        return [1] * len(available)

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, options: FitOptions
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding of one image."""
        return embedding(patches)[None], position[:1]

    @classmethod
    def fit(cls, good: GoodPatches, options: FitOptions) -> Fit:
        """The centroid of any part of the good images."""
        return lambda rows, seed: {"": embedding(good.patches[rows])[None]}


def embedding(vectors: torch.Tensor) -> torch.Tensor:
    """Mean of vectors float32 (n, d), scaled to unit length: float32 (d,)."""
    return normalize(vectors.mean(dim=0), dim=0)
