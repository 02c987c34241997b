"""Greedy k-center coreset selection (Gonzalez 1985; used by PatchCore) at the speed of matrix products."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from defectflow.core.device import product
from defectflow.core.files import UserError
from defectflow.core.parallel import in_threads
from defectflow.search.distance_bounds import (
    COLUMNS,
    PRODUCTS,
    Bound,
    Sources,
    axes_within,
    measure,
    principal_axes,
    product_dtype,
)

PROJECTIONS = ("random", "pca", "none")

_ROWS, _CENTERS = 4096, 256  # a tile of distances is 2 MB in bfloat16: it is reduced while it is in the cache
_LIKELY = 64  # candidates whose distances to all others are computed at a time: about a sixth of them is picked
_EIGEN = 32  # cost of finding the principal axes, in products of d numbers for each of d x d
_CROWD = 32  # above this many candidate centers per row, float32 has to find the nearest


class Subspace(NamedTuple):
    """The directions in which patches vary most.

    Attributes:
        mean: float32 (d,).
        axes: float32 (d, k), orthonormal, the one of the largest variance first.
    """

    mean: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def of(cls, patches: torch.Tensor, share: float = 0.99, seed: int = 0) -> Subspace:
        """As few principal axes as hold ``share`` of the variance of ``patches`` (n, d), 50,000 of them at most."""
        sample = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:50_000]].double()
        mean = sample.mean(dim=0)
        variances, vectors = torch.linalg.eigh((sample - mean).T @ (sample - mean))
        held = variances.flip(0).clamp_min(0).cumsum(0)
        count = min(int((held < share * held[-1]).sum()) + 1, len(mean))
        return cls(mean.float(), vectors.flip(1)[:, :count].float().contiguous())

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Coordinates (n, k) of patches (n, d) along the axes."""
        return product(patches - self.mean, self.axes.T)


def coreset_size(patches: int, ratio: float, maximum: int | None = None) -> int:
    """Size of the coreset of ``patches`` vectors: ``ratio`` of them, at most ``maximum``, at least 1 (0 of none)."""
    size = max(1, int(patches * ratio))
    return min(size, patches, maximum or patches)


def project(features: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Reduce the dimensions before selection; distances between rows are kept approximately.

    Args:
        features: float (rows, dimensions).
        seed: of the sparse random projection to the dimensions that the Johnson-Lindenstrauss lemma asks for at eps
            0.9, as anomalib has it; where these are no fewer, the features are not projected.

    Returns:
        float32 (rows, fewer dimensions) on the same device, with mean 0.
    """
    features = features.float()
    rows, dimensions = features.shape
    from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

    projected, components = features, int(johnson_lindenstrauss_min_dim(rows, eps=0.9))
    if components < dimensions:
        projection = SparseRandomProjection(components, random_state=seed).fit(np.zeros((1, dimensions)))
        projected = product(features, torch.from_numpy(projection.components_.toarray()).to(features))
    mean = projected.mean(dim=0)
    return features - mean if projected is features else projected.sub_(mean)


def k_center_greedy(
    features: torch.Tensor,
    n: int | float,
    *,
    start: int | None = None,
    seed: int = 0,
    batch: int = 1024,
    progress: bool = True,
) -> torch.Tensor:
    """Select ``n`` rows by greedy k-center: repeatedly the row farthest from all rows selected so far.

    The selection is that of the sequential algorithm, computed in batches: picks come from the ``batch`` rows farthest
    from the centers as long as no other row can be farther (distances only fall), then all distances are updated with
    one matrix product. Only ties within the rounding of float32 may be resolved differently. Rows equal to a center are
    selected last, the lowest index first. No row is selected twice.

    Memory: a centered float32 copy of ``features`` unless their mean is 0, coordinates along their first principal
    axes (64 columns and more, of bfloat16 where it is fast), four vectors of length rows, and ``batch`` squared.

    Args:
        features: float (rows, dimensions) on CPU or CUDA. float16 and bfloat16 are computed in float32.
        n: number of rows to select (int, 1 to rows), or their share (float in (0, 1]).
        start: row selected first; drawn with ``seed`` if None.
        seed: seed of the first row.
        batch: largest number of candidate rows in one round of picks. Changes the speed, not the selection.
        progress: show a tqdm bar on stderr.

    Returns:
        int64 (n,) on the CPU: the selected rows in order of selection.
    """
    rows = len(features)
    n = coreset_size(rows, n) if isinstance(n, float) else n
    if not 1 <= n <= rows:
        raise UserError(f"coreset: cannot select {n} of {rows} patches")
    if start is None:
        start = int(torch.randint(rows, (1,), generator=torch.Generator().manual_seed(seed)))

    points = _Points(features.float(), n)
    distances = points.from_row(start)  # squared, to the nearest center; -1 if selected
    selected = [start]
    with tqdm(total=n, initial=1, desc="coreset", unit="patch", leave=False, disable=not progress) as bar:
        size = min(64, batch)  # few candidates at first, because the first picks lower the distances of all rows
        while len(selected) < n:
            values, candidates = torch.topk(distances, min(size + 1, rows))
            if values[0] <= 0:
                selected.extend((distances >= 0).nonzero()[: n - len(selected), 0].tolist())
                break
            bound = float(values[-1]) if len(values) > size else 0.0
            # In the order of their indices, so that argmax resolves ties like the sequential algorithm.
            candidates = candidates[:size].sort().values
            picks = candidates[points.pick(distances, candidates, bound, n - len(selected))]
            points.update(distances, picks)
            selected.extend(picks.tolist())
            bar.update(len(picks))
            size = min(8 * len(picks), batch)
    return torch.tensor(selected)


class _Points:
    """The features, and a centered copy of them for matrix products: their rounding depends on the origin.

    Args:
        features: float32 (rows, dimensions).
        n: how many will be selected.
    """

    def __init__(self, features: torch.Tensor, n: int) -> None:
        self.features = features
        squares = torch.linalg.vector_norm(features, dim=1).square_()
        self.centered, mean = features, features.mean(dim=0)
        if mean.square().sum() > 1e-3 * squares.mean():  # what `project` returns is centered
            self.centered = features - mean
        self._dtype = product_dtype(features.device)
        self._tiles = [slice(begin, begin + _ROWS) for begin in range(0, len(features), _ROWS)]
        rows, dimensions = features.shape
        few = features.device.type == "cpu" and rows * n * (dimensions - COLUMNS) > _EIGEN * dimensions**3
        self._vectors = principal_axes(self.centered) if few else None
        self._along(COLUMNS if few else dimensions + COLUMNS)

    def from_row(self, start: int) -> torch.Tensor:
        """Squared distances from all rows to one of them, float32 (rows,); its own is -1."""
        distances = [(self.features[tile] - self.features[start]).square_().sum(dim=1) for tile in self._tiles]
        distances = torch.cat(distances)
        distances[start] = -1
        return distances

    def pick(self, distances: torch.Tensor, candidates: torch.Tensor, bound: float, limit: int) -> torch.Tensor:
        """Positions among ``candidates`` of the greedy picks, valid while no other row is farther than ``bound``."""
        own = self.centered[candidates].double()
        norms = own.square().sum(dim=1)
        nearest = distances[candidates].cpu().numpy()
        between: dict[int, np.ndarray] = {}
        picks: list[int] = []
        while len(picks) < limit:
            farthest = int(nearest.argmax())
            if nearest[farthest] < bound or nearest[farthest] <= 0:
                break
            if farthest not in between:
                likely = np.argsort(-nearest, kind="stable")[:_LIKELY]
                rows = torch.addmm(norms, own[likely], own.T, alpha=-2).add_(norms[likely, None])
                rows[rows < 1e-12 * norms] = 0
                between = dict(zip(likely.tolist(), rows.float().cpu().numpy(), strict=True))
            picks.append(farthest)
            np.minimum(nearest, between[farthest], out=nearest)
            nearest[farthest] = -1
        return torch.tensor(picks, device=candidates.device)

    def update(self, distances: torch.Tensor, picks: torch.Tensor) -> None:
        """Lower ``distances`` in place to those to the new centers ``picks``; mark the picks as selected."""
        blocks = [
            (self.features[c], self.centered[c], self._bound.targets(self.centered[c])) for c in picks.split(_CENTERS)
        ]

        def update(number: int) -> int:
            tile, sources = self._tiles[number], self._sources[number]
            features, current, idle = self.features[tile], distances[tile], 0
            for centers, centered, targets in blocks:
                groups = self._bound.product(targets.matrix, sources.matrix)
                error = self._bound.error(sources, targets)
                rows, members = self._bound.pairs(groups, groups.amin(dim=1), current, error)
                idle += len(rows)
                if len(rows) > _CROWD * len(features):
                    rows = rows.unique()
                    partial = torch.addmm(centered.square().sum(dim=1), self.centered[tile][rows], centered.T, alpha=-2)
                    members = partial.argmin(dim=1)
                measured = measure(features, centers, rows, members)
                idle -= int((measured < current[rows]).sum())
                current.scatter_reduce_(0, rows, measured, "amin")
            return idle

        cpu = self.features.device.type == "cpu"
        numbers = range(len(self._tiles))
        idle = sum(in_threads(update, numbers) if cpu else map(update, numbers))  # pairs that more axes might avoid
        distances[picks] = -1
        products = len(self.features) * sum(targets.matrix.numel() for *_, targets in blocks)
        many = len(picks) > _CENTERS / 4  # fewer take little time in any case
        if many and idle * PRODUCTS[self._dtype] > 2 * products and self._columns < self.features.shape[1] + COLUMNS:
            self._along(2 * self._columns)

    def _along(self, columns: int) -> None:
        """Prepare all rows for products of this many columns, or of all axes if they fit."""

        def ready(tile: slice) -> Sources:
            return self._bound.sources(self.centered[tile])

        dimensions, count = self.features.shape[1], axes_within(columns, self._dtype)
        vectors = self._vectors
        axes = vectors[:, :count].contiguous() if vectors is not None and count < dimensions else None
        self._columns = columns
        self._bound = Bound(self.features.new_zeros(dimensions), axes, self._dtype)
        cpu = self.features.device.type == "cpu"
        self._sources = list(in_threads(ready, self._tiles) if cpu else map(ready, self._tiles))
