"""The interface of all detectors: learn from patches of good pictures, score the patches of others."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from defectflow.core.files import UserError

SCORES = ("max", "top_k_mean", "percentile")
DISTANCES = ("euclidean", "cosine")
BANKS = ("float32", "float16", "pca_float16")  # the last: coordinates along the axes with 99 % of the bank's variance

# Tensors of one bank by name, the main one "" of shape (size, dimensions): what is learned from those images, bool
# (images,).
Fit = Callable[[torch.Tensor], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class GoodPatches:
    """Patches of the good images and of their augmented copies.

    Attributes:
        patches: float32 (n, d).
        position: int64 (n,), flat index in the grid.
        owner: int64 (n,), row of ``images`` that a patch belongs to.
        images: image_id (of the source, for a copy), fold, group_fold, is_copy.
        absent: number of good pictures left out because the part is not in them.
        available: number of patches before the images were reduced.
        means: float32 (images, d), mean patch of each image before that.
        grid: (height, width) of the grid.
    """

    patches: torch.Tensor
    position: torch.Tensor
    owner: torch.Tensor
    images: pd.DataFrame
    absent: int
    available: int
    means: torch.Tensor
    grid: tuple[int, int]

    def rows(self, kept: torch.Tensor) -> torch.Tensor:
        """Rows of ``patches`` of the images ``kept``, bool (images,): int64 (patches of these,)."""
        return kept[self.owner].nonzero()[:, 0]


@dataclass(frozen=True)
class FitOptions:
    """How to learn; each method takes what concerns it.

    Attributes:
        max_patches: PatchCore reduces each image first if there are more of them.
        coreset_ratio, coreset_max: share and number of the patches that a memory bank keeps at most.
        projection: before selection, see `coreset.project`.
        bank_dtype: how memory banks are stored, one of BANKS.
        distance: between patches, one of DISTANCES.
        dimensions: of a patch that PaDiM draws at random.
        seed: of all that is drawn.
        device: where to compute.
    """

    max_patches: int = 2_000_000
    coreset_ratio: float = 1.0
    coreset_max: int = 10_000
    projection: str = "random"
    bank_dtype: str = "float32"
    distance: str = "euclidean"
    dimensions: int = 100
    seed: int = 0
    device: str | torch.device = "cpu"


@dataclass(frozen=True)
class ScoreOptions:
    """How distances of patches become the score of an image; each method takes what concerns it.

    Attributes:
        score: "max"; "top_k_mean" (mean of the largest ``top_fraction``, one at least); or "percentile" (the distance
            that ``top_fraction`` of the patches exceed).
        neighbours: for PatchCore's re-weighting of the maximum; 1 switches it off.
        top_fraction: share of the patches, in (0, 1).
    """

    score: str = "max"
    neighbours: int = 9
    top_fraction: float = 0.01


class Detector(ABC):
    """A fitted bank of one method; `registry.METHODS` has them all.

    Args:
        tensors: what the method's fit returned, on the device to compute on.
        settings: what `settings` returned when it was fitted.
        options: how to score.
    """

    @abstractmethod
    def __init__(
        self, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], options: ScoreOptions
    ) -> None: ...

    @abstractmethod
    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Anomaly score of an image, and the distance of each of its patches from what is normal.

        Args:
            patches: float32 (p, d), p >= 1.
            position: int64 (p,), flat indices in the grid.

        Returns:
            The score and float32 (p,), both the higher the more anomalous.
        """

    @classmethod
    @abstractmethod
    def fit(cls, good: GoodPatches, options: FitOptions) -> Fit:
        """Do what all banks share, and return the function that learns one."""

    @classmethod
    def settings(cls, options: FitOptions) -> dict[str, Any]:
        """What has to be known beside the tensors, as JSON; it is kept with them."""
        return {}

    @classmethod
    def counts(cls, available: Sequence[int], options: FitOptions) -> list[int]:
        """How many patches of each image to keep in memory, of those that are ``available``."""
        return list(available)

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, options: FitOptions
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reduce the patches (n, d) of one image, and their positions (n,), to ``count``."""
        return patches, position


def pool(distances: torch.Tensor, options: ScoreOptions) -> float:
    """Image score of distances float32 (p,) as `ScoreOptions` says, without re-weighting."""
    if options.score == "top_k_mean":
        return float(distances.topk(max(1, round(options.top_fraction * len(distances)))).values.mean())
    if options.score == "percentile":
        return float(torch.quantile(distances, 1 - options.top_fraction))
    return float(distances.max())


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ScoreOptions`."""
    parser.add_argument("--score", choices=SCORES, default="max", help="image score (default: %(default)s)")
    parser.add_argument(
        "--neighbours",
        type=int,
        default=9,
        help="number of neighbours in the re-weighting of max (default: %(default)s)",
    )
    parser.add_argument(
        "--top-fraction", type=float, default=0.01, help="share of the patches, for top_k_mean and percentile"
    )


def score_options(args: argparse.Namespace) -> ScoreOptions:
    """What the options that `add_score_options` added say.

    Raises:
        UserError: the fraction is none.
    """
    if not 0 < args.top_fraction < 1:
        raise UserError(f"--top-fraction {args.top_fraction}: must be between 0 and 1")
    return ScoreOptions(args.score, args.neighbours, args.top_fraction)
