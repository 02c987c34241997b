"""The interface of all detectors: learn from patches of good pictures, score the patches of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch

from defectflow.methods.method_settings import PooledSettings

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
        doubtful: number of good pictures left out because their mask is doubtful.
        coarser: (height, width) of the grids of coarser scales; their cells are counted on from those before.
    """

    patches: torch.Tensor
    position: torch.Tensor
    owner: torch.Tensor
    images: pd.DataFrame
    absent: int
    available: int
    means: torch.Tensor
    grid: tuple[int, int]
    doubtful: int = 0
    coarser: Sequence[tuple[int, int]] = ()

    def scale(self) -> torch.Tensor:
        """Number of the scale that each patch belongs to, 0 the finest: int64 (n,)."""
        return scale_of(self.position, (self.grid, *self.coarser))

    def rows(self, kept: torch.Tensor) -> torch.Tensor:
        """Rows of ``patches`` of the images ``kept``, bool (images,): int64 (patches of these,)."""
        return kept[self.owner].nonzero()[:, 0]


class Detector(ABC):
    """A fitted bank of one method; its class of settings, `MethodSettings.detector`, names it.

    ``settings`` are those of the method everywhere, as far as the stage at work reads them.

    Attributes of a class:
        forks: whether banks may be learned at the same time, each in a fork of the process.

    Args:
        tensors: what the method's fit returned, on the device to compute on.
        metadata: what `metadata` returned when it was fitted.
        settings: how to score.
    """

    forks: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: Any) -> None: ...

    @abstractmethod
    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Anomaly score of an image, and the distance of each of its patches from what is normal.

        Args:
            patches: float32 (p, d), p >= 1.
            position: int64 (p,), flat indices in the grid; with several scales in the grids of all, in that order.

        Returns:
            The score and float32 (p,), both the higher the more anomalous. Of several scales those of the finest.
        """

    @classmethod
    @abstractmethod
    def fit(cls, good: GoodPatches, settings: Any, seed: int = 0, device: str | torch.device = "cpu") -> Fit:
        """Do what all banks share, and return the function that learns one.

        Args:
            good: what to learn from.
            settings: how to learn.
            seed: of all that is drawn.
            device: where to compute.
        """

    @classmethod
    def metadata(cls, settings: Any) -> dict[str, Any]:
        """What has to be known beside the tensors, as JSON; it is kept with them."""
        return {}

    @classmethod
    def size(cls, tensors: Mapping[str, Any]) -> int:
        """How many things of its kind a bank holds, e.g. patches."""
        return len(tensors[""])

    @classmethod
    def counts(cls, available: Sequence[int], settings: Any) -> list[int]:
        """How many patches of each image to keep in memory, of those that are ``available``."""
        return list(available)

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, settings: Any, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reduce the patches (n, d) of one image, and their positions (n,), to ``count``."""
        return patches, position


def scale_of(position: torch.Tensor, grids: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Number of the scale that patches at ``position`` (n,) belong to, int64 (n,); `grids` has (height, width) of each.

    >>> scale_of(torch.tensor([0, 15, 16, 19]), [(4, 4), (2, 2)]).tolist()
    [0, 0, 1, 1]
    """
    ends = torch.tensor([height * width for height, width in grids]).cumsum(0)
    return torch.bucketize(position, ends, right=True)


def nearest_seen(seen: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """For each cell of the grid the nearest one that is ``seen``, bool (cells,), itself where it is: int64 (cells,).

    Pictures of another shape than the set's may show cells that no good picture does.

    >>> nearest_seen(torch.tensor([False, True, True, False]), (1, 4)).tolist()
    [1, 1, 2, 2]
    """
    found = torch.arange(len(seen))
    if seen.all():
        return found
    place = torch.stack([found // grid[1], found % grid[1]], dim=1).float()
    rows = seen.nonzero()[:, 0]
    found[~seen] = rows[torch.cdist(place[~seen], place[rows]).argmin(dim=1)]
    return found


def pool(distances: torch.Tensor, settings: PooledSettings) -> float:
    """Image score of distances float32 (p,) as `PooledSettings` says, without re-weighting."""
    if settings.score == "top_k_mean":
        return float(distances.topk(max(1, round(settings.top_fraction * len(distances)))).values.mean())
    if settings.score == "percentile":
        return float(torch.quantile(distances, 1 - settings.top_fraction))
    return float(distances.max())
