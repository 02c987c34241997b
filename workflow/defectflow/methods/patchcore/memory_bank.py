"""PatchCore (Roth et al. 2022) as anomalib computes it: memory bank, nearest neighbours, image score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from multiprocessing import parent_process
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from defectflow.core.files import UserError
from defectflow.methods.detector import Detector, Fit, GoodPatches, pool
from defectflow.methods.patchcore.density import densest
from defectflow.methods.patchcore.known_defects import DEFECTS, GOOD_AFTER_ALL, toward_defects
from defectflow.methods.patchcore.scales import UNITS, Combination, grids_of, named, of_scale
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.search.coreset import Subspace, coreset_size, k_center_greedy, project
from defectflow.search.nearest_neighbours import Neighbours

DRAWN = 20_000  # patches of one image: as many as a picture of 1,130 pixels has
UNIT_SAMPLE = 1024  # patches that the units of a scale are measured on
UNIT_QUANTILE = 0.95
UNIT_PARTS = 5  # into which the good pictures are divided, so that one is compared with the others


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

    With several scales each has a bank of its own. Their distances make one map, see `scales.Combination`, and the
    score is its largest value, not re-weighted, or another summary of it.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: PatchCoreSettings
    ) -> None:
        grids = grids_of(metadata)
        scales = [of_scale(tensors, k) for k in range(max(1, len(grids)))]
        self._banks = [_bank(own, metadata["distance"]) for own in scales]
        self._combination = Combination(grids, tensors[UNITS].cpu().numpy()) if grids else None
        self._settings = settings
        self._good, self._defects = (
            [_bank({**own, "": own[name]}, metadata["distance"]) if len(own.get(name, ())) else None for own in scales]
            for name in (GOOD_AFTER_ALL, DEFECTS)
        )

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; where a patch lies does not count, but for the scale that it belongs to."""
        if self._combination:
            where = position.cpu().numpy()
            parts = enumerate(self._combination.split(where))
            found = [self._nearest(patches[rows], scale)[0].cpu().numpy() for scale, (rows, _) in parts]
            distances = torch.from_numpy(self._combination.combined(found, where)).to(patches.device)
            return pool(distances, self._settings), distances
        (bank,) = self._banks
        distances, nearest = self._nearest(patches, 0)
        if self._settings.score != "max":
            return pool(distances, self._settings), distances
        winner = int(distances.argmax())
        score = bank.reweighted(patches[winner], distances[winner], int(nearest[winner]), self._settings.neighbours)
        return score, distances

    def _nearest(self, patches: torch.Tensor, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Bank.nearest` at a scale, with what was taught."""
        distances, nearest = self._banks[scale].nearest(patches)
        if good := self._good[scale]:
            distances = torch.minimum(distances, good.nearest(patches)[0])
        if defects := self._defects[scale]:
            distances = toward_defects(distances, defects.nearest(patches)[0])
        return distances, nearest

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
        """A coreset of one image; where more than DRAWN are to stay, patches drawn at random.

        The coreset of these coresets then covers all patches within the sum of the two radii (triangle inequality).
        Images are reduced one by one so that none has a say in what is kept of another: folds stay apart.
        """
        patches = comparable(patches, settings.distance)
        if count == len(patches):
            return patches, position
        if count > DRAWN:  # choosing so many takes minutes, and what is drawn leaves no large gap
            draw = torch.Generator().manual_seed(seed)
            kept = torch.randperm(len(patches), generator=draw)[:count].sort().values
        else:
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

        Each scale has such a bank, and the units of its distances, see `scales.Combination`.
        """
        projected = project(good.patches.to(device), seed)
        scale = good.scale()
        scales = len(good.coarser) + 1
        asked = [
            coreset_size(int((scale == k).sum()), settings.coreset_ratio, settings.coreset_max) for k in range(scales)
        ]
        parts = held_out_parts(good.images)[good.owner] if scales > 1 else None

        def bank(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            if parts is None:
                return of_one(good.rows(kept), asked[0])[0]
            tensors, units = dict[str, torch.Tensor](), []
            for k in range(scales):
                rows = good.rows(kept)
                own = rows[scale[rows] == k]
                if not len(own):
                    raise UserError("max_patches leaves no patch of a scale (make it larger, or give one image_size)")
                found, chosen = of_one(own, asked[k])
                tensors |= named(found, k)
                units.append(units_of(good.patches, own, chosen, parts, settings.distance))
            return tensors | {UNITS: torch.tensor(units)}

        def of_one(rows: torch.Tensor, asked: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            """The bank of patches of one scale, and which they are."""
            if settings.density < 1:
                rows = densest(good.patches, good.owner, rows, settings.density, settings.density_neighbours)
            own, size = rows, min(asked, len(rows))
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
            return tensors, rows

        return bank

    @classmethod
    def size(cls, tensors: Mapping[str, Any]) -> int:
        """Patches of all scales."""
        return sum(len(tensors[name]) for name in tensors if name == "" or name.removeprefix("scale").isdecimal())


def _bank(tensors: Mapping[str, torch.Tensor], distance: str) -> Bank:
    subspace = Subspace(tensors["mean"], tensors["axes"]) if "axes" in tensors else None
    return Bank(tensors[""], subspace, distance)


def held_out_parts(images: pd.DataFrame) -> torch.Tensor:
    """A number below UNIT_PARTS for each good image, int64 (images,): folds stay together, and copies with theirs."""
    folded = images["fold"].where(images["fold"] != "", images["image_id"])
    return torch.from_numpy(pd.factorize(folded, sort=True)[0] % UNIT_PARTS)


def units_of(
    patches: torch.Tensor, own: torch.Tensor, chosen: torch.Tensor, parts: torch.Tensor, distance: str
) -> tuple[float, float]:
    """Median of the distances of good patches, and how far their UNIT_QUANTILE lies above it.

    A patch is compared with the patches of the bank that are of other parts; where all are of one, with all others.

    Args:
        patches: float32 (n, d), `comparable`.
        own: int64, rows that the bank was chosen from; some of them are measured.
        chosen: int64, rows of the bank.
        parts: int64 (n,), what belongs together.
        distance: see `Bank`.
    """
    if len(parts[own].unique()) == 1:
        parts = torch.arange(len(patches))
    some = own[torch.linspace(0, len(own) - 1, min(UNIT_SAMPLE, len(own))).round().long()]
    squares = torch.cdist(patches[some], patches[chosen]).square_()  # by a matrix product
    squares.masked_fill_(parts[some, None] == parts[None, chosen], torch.inf)
    nearest = squares.min(dim=1).values
    nearest = nearest[nearest.isfinite()]
    found = nearest / 2 if distance == "cosine" else nearest.sqrt()
    middle = float(found.median()) if len(found) else 0.0
    spread = float(np.quantile(found.numpy(), UNIT_QUANTILE)) - middle if len(found) else 1.0
    return middle, max(spread, 1e-6)


def most_central(patches: torch.Tensor) -> int:
    """Row of ``patches`` (n, d) that is nearest to their mean: a coreset that begins there depends on no draw."""
    mean = patches.mean(dim=0)
    return int((torch.linalg.vector_norm(patches, dim=1).square_() - 2 * (patches @ mean)).argmin())


def comparable(patches: torch.Tensor, distance: str) -> torch.Tensor:
    """Patches (n, d) whose Euclidean distances stand for ``distance``: as they are, or for "cosine" of unit length."""
    return nn.functional.normalize(patches, dim=1) if distance == "cosine" else patches
