"""PatchCore (Roth et al. 2022) as anomalib computes it: memory bank, nearest neighbours, image score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from multiprocessing import parent_process
from typing import Any

import torch
from torch import nn

from defectflow.methods.detector import Detector, Fit, GoodPatches, pool
from defectflow.methods.patchcore.density import densest
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.search.coreset import Subspace, coreset_size, k_center_greedy, project
from defectflow.search.nearest_neighbours import Neighbours


class Bank:
    """Memory bank of good patches, searched exactly.

    Args:
        features: float (n, d), or (n, k) along the axes of ``subspace``; of unit length (before) for cosine distances.
        subspace: where distances are measured; None: between the patches as they are.
        distance: "euclidean", or "cosine": half the square of that between patches of unit length.
    """

    def __init__(self, features: torch.Tensor, subspace: Subspace | None = None, distance: str = "euclidean") -> None:
        self.features = features.float()
        self._subspace, self._distance = subspace, distance
        self._neighbours = Neighbours(self.features)

    def nearest(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance of each patch to its nearest neighbour in the bank, and that one's index.

        Args:
            patches: float32 (p, d).

        Returns:
            float32 (p,) and int64 (p,).
        """
        distances, indices = self._neighbours.nearest(self._project(patches))
        return self._measure(distances), indices

    def around(self, indices: torch.Tensor, count: int) -> torch.Tensor:
        """The ``count`` patches (all, if there are fewer) nearest to some of the bank, see `Neighbours.around`."""
        return self._neighbours.around(indices, min(count, len(self.features)))

    def reweighted(self, patch: torch.Tensor, distance: torch.Tensor, nearest: int, neighbours: int) -> float:
        """Score of an image's most distant patch, weighted as in the paper (section 3.3, equation 7) and anomalib.

        A patch is the more anomalous, the farther its nearest neighbour m* is from it in comparison with the
        ``neighbours`` patches of the bank that are nearest to m*. With no other patch to compare with (a bank of
        one, or one neighbour) the distance itself is the score.
        """
        if min(neighbours, len(self.features)) == 1:
            return float(distance)
        support = self.around(torch.tensor([nearest], device=self.features.device), neighbours)[0]
        distances = torch.linalg.vector_norm(self.features[support] - self._project(patch[None]), dim=1)
        return float((1 - torch.softmax(self._measure(distances), dim=0)[0]) * distance)

    def _project(self, patches: torch.Tensor) -> torch.Tensor:
        patches = comparable(patches, self._distance)
        return self._subspace.project(patches) if self._subspace else patches

    def _measure(self, euclidean: torch.Tensor) -> torch.Tensor:
        return euclidean.square() / 2 if self._distance == "cosine" else euclidean


class PatchCore(Detector):
    """Distance of each patch to its nearest neighbour in a memory bank of good patches.

    The distance is Euclidean, or, as "cosine", 1 - cos: half the square of the Euclidean distance between patches of
    unit length. The image score is the largest distance, re-weighted as in the paper, or another summary of them.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: PatchCoreSettings
    ) -> None:
        subspace = Subspace(tensors["mean"], tensors["axes"]) if "axes" in tensors else None
        self._bank = Bank(tensors[""], subspace, metadata["distance"])
        self._settings = settings

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; where a patch lies does not count."""
        distances, nearest = self._bank.nearest(patches)
        if self._settings.score != "max":
            return pool(distances, self._settings), distances
        winner = int(distances.argmax())
        score = self._bank.reweighted(
            patches[winner], distances[winner], int(nearest[winner]), self._settings.neighbours
        )
        return score, distances

    @classmethod
    def metadata(cls, settings: PatchCoreSettings) -> dict[str, Any]:
        """The distance: banks of unit vectors look like others."""
        return {"distance": settings.distance}

    @classmethod
    def counts(cls, available: Sequence[int], settings: PatchCoreSettings) -> list[int]:
        """As many of each image, in proportion, as make ``max_patches`` together."""
        total = sum(available)
        if total <= settings.max_patches:
            return list(available)
        return [max(1, count * settings.max_patches // total) for count in available]

    @classmethod
    def condense(
        cls, patches: torch.Tensor, position: torch.Tensor, count: int, settings: PatchCoreSettings, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A coreset of one image.

        The coreset of these coresets then covers all patches within the sum of the two radii (triangle inequality).
        Images are reduced one by one so that none has a say in what is kept of another: folds stay apart.
        """
        patches = comparable(patches, settings.distance)
        if count == len(patches):
            return patches, position
        kept = k_center_greedy(patches, count, seed=seed, progress=False)
        return patches[kept], position[kept]

    @classmethod
    def fit(
        cls, good: GoodPatches, settings: PatchCoreSettings, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Fit:
        """A memory bank of any part of the good images: a coreset, selected in a projection that all banks share.

        The projection is random, as anomalib's is; principal axes took as long and changed no AUROC (benchmarks).

        Principal axes are each bank's own: what they are depends on the images. The size is not: the fewer patches a
        bank has, the farther all images are from it, and a threshold from smaller banks would be too high for others.
        Every bank has ``coreset_ratio`` of the patches of all good images, or all of its own where these are fewer.
        """
        projected = project(good.patches.to(device), seed)
        asked = coreset_size(len(good.patches), settings.coreset_ratio, settings.coreset_max)

        def bank(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            own = rows = good.rows(kept)
            if settings.density < 1:
                own = rows = densest(good.patches, good.owner, rows, settings.density, settings.density_neighbours)
            size = min(asked, len(rows))
            if size < len(rows):
                candidates = projected if len(rows) == len(projected) else projected[rows.to(device)]
                alone = parent_process() is None  # bars of several processes would overwrite each other
                rows = rows[k_center_greedy(candidates, size, start=most_central(candidates), progress=alone)]
            tensors = {"": good.patches[rows]}
            if settings.bank_dtype == "pca_float16":
                subspace = Subspace.of(good.patches[own], seed=seed)
                tensors = {"": subspace.project(tensors[""]), **subspace._asdict()}
            if settings.bank_dtype != "float32":
                tensors[""] = tensors[""].half()
            return tensors

        return bank


def most_central(patches: torch.Tensor) -> int:
    """Row of ``patches`` (n, d) that is nearest to their mean: a coreset that begins there depends on no draw."""
    mean = patches.mean(dim=0)
    return int((torch.linalg.vector_norm(patches, dim=1).square_() - 2 * (patches @ mean)).argmin())


def comparable(patches: torch.Tensor, distance: str) -> torch.Tensor:
    """Patches (n, d) whose Euclidean distances stand for ``distance``: as they are, or for "cosine" of unit length."""
    return nn.functional.normalize(patches, dim=1) if distance == "cosine" else patches
