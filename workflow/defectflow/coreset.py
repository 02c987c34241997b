"""Greedy k-center coreset selection (Gonzalez 1985; used by PatchCore) at the speed of matrix products."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from tqdm import tqdm

from defectflow.distances import Targets, product_dtype, sources
from defectflow.files import UserError
from defectflow.threads import in_threads

PROJECTIONS = ("random", "pca", "none")

_ROWS, _CENTERS = 1024, 512  # a tile of distances is 2 MB: it is reduced while it is in the cache


def coreset_size(patches: int, ratio: float, maximum: int | None = None) -> int:
    """Size of the coreset of ``patches`` vectors: ``ratio`` of them, at most ``maximum``, at least 1 (0 of none)."""
    size = max(1, int(patches * ratio))
    return min(size, patches, maximum or patches)


def project(features: torch.Tensor, method: str, seed: int = 0) -> torch.Tensor:
    """Reduce the dimensions before selection; distances between rows are kept approximately.

    Args:
        features: float (rows, dimensions).
        method: "random" (sparse random projection to the dimensions that the Johnson-Lindenstrauss lemma asks for at
            eps 0.9, as anomalib does; nothing where these are not fewer), "pca" (components that hold 99 % of the
            variance of a sample) or "none".
        seed: seed of the projection or of the sample.

    Returns:
        float32 (rows, fewer dimensions) on the same device, with mean 0.
    """
    features = features.float()
    rows, dimensions = features.shape
    axes = None
    if method == "random":
        from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

        components = int(johnson_lindenstrauss_min_dim(rows, eps=0.9))
        if components < dimensions:
            projection = SparseRandomProjection(components, random_state=seed).fit(np.zeros((1, dimensions)))
            axes = torch.from_numpy(projection.components_.toarray().T).to(features)
    if method == "pca":
        sample = features[torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:50_000]].double()
        variances, vectors = torch.linalg.eigh(torch.cov(sample.T).reshape(dimensions, dimensions))
        share = variances.flip(0).clamp_min(0).cumsum(0) / variances.clamp_min(0).sum().clamp_min(1e-30)
        components = min(dimensions, int((share < 0.99).sum()) + 1)
        axes = vectors.flip(1)[:, :components].to(features)
    projected = features - features.mean(dim=0) if axes is None else features @ axes
    return projected if axes is None else projected.sub_(projected.mean(dim=0))


def k_center_greedy(
    features: torch.Tensor,
    n: int | float,
    *,
    start: int | None = None,
    seed: int = 0,
    batch: int = 2048,
    progress: bool = True,
) -> torch.Tensor:
    """Select ``n`` rows by greedy k-center: again and again the row farthest from all those selected so far.

    The selection is that of the sequential algorithm, computed in batches: the picks are made inside the ``batch``
    rows farthest from the centers for as long as no other row can be farther (distances only fall), then all rows are
    brought up to date with one matrix product. Only ties within the rounding of float32 may be settled otherwise.
    Rows equal to a center are selected last, the lowest index first. No row is selected twice.

    Memory: a centered float32 copy of ``features`` unless their mean is 0, half of that where bfloat16 products are
    fast, three vectors of length rows, and ``batch`` squared.

    Args:
        features: float (rows, dimensions) on CPU or CUDA. float16 and bfloat16 are computed in float32.
        n: number of rows to select (int, 1 to rows), or their share (float in (0, 1]).
        start: row selected first; drawn with ``seed`` if None.
        seed: seed of the first row.
        batch: rows looked at in one round of picks, at most. Changes the speed, not the selection.
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

    points = _Points(features.float())
    distances = torch.full((rows,), math.inf, device=features.device)  # squared, to the nearest center; -1 if selected
    selected = [start]
    points.update(distances, torch.tensor([start], device=features.device))
    with tqdm(total=n, initial=1, desc="coreset", unit="patch", leave=False, disable=not progress) as bar:
        size = min(64, batch)  # as many candidates as pay: the distance of all rows falls with the first picks
        while len(selected) < n:
            values, candidates = torch.topk(distances, min(size + 1, rows))
            if values[0] <= 0:
                selected.extend((distances >= 0).nonzero()[: n - len(selected), 0].tolist())
                break
            bound = float(values[-1]) if len(values) > size else 0.0
            # In the order of their indices, so that argmax settles ties as the sequential algorithm does.
            candidates = candidates[:size].sort().values
            picks = candidates[points.pick(distances, candidates, bound, n - len(selected))]
            points.update(distances, picks)
            selected.extend(picks.tolist())
            bar.update(len(picks))
            size = min(8 * len(picks), batch)
    return torch.tensor(selected)


class _Points:
    """The features, and a centered copy of them for matrix products: their rounding depends on the origin."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features
        self.norms = torch.linalg.vector_norm(features, dim=1).square_()
        self.centered, mean = features, features.mean(dim=0)
        if mean.square().sum() > 1e-3 * self.norms.mean():  # what `project` returns is centered
            self.centered = features - mean
            self.norms = torch.linalg.vector_norm(self.centered, dim=1).square_()
        self.dtype = product_dtype(features.device)
        self.rough = sources(self.centered, self.dtype)

    def pick(self, distances: torch.Tensor, candidates: torch.Tensor, bound: float, limit: int) -> torch.Tensor:
        """Positions among ``candidates`` of the greedy picks, valid while no other row is farther than ``bound``."""
        own = self.centered[candidates].double()
        norms = own.square().sum(dim=1)
        between = torch.addmm(norms, own, own.T, alpha=-2).add_(norms[:, None])
        between[between < 1e-12 * norms] = 0
        between = between.float().cpu().numpy()
        nearest = distances[candidates].cpu().numpy()
        picks: list[int] = []
        while len(picks) < limit:
            farthest = int(nearest.argmax())
            if nearest[farthest] < bound or nearest[farthest] <= 0:
                break
            picks.append(farthest)
            np.minimum(nearest, between[farthest], out=nearest)
            nearest[farthest] = -1
        return torch.tensor(picks, device=candidates.device)

    def update(self, distances: torch.Tensor, picks: torch.Tensor) -> None:
        """Lower ``distances`` in place to those to the new centers ``picks``; mark the picks as selected."""
        blocks = [
            (self.features[c], Targets(self.centered[c], self.dtype), Targets(self.centered[c], torch.float32))
            for c in picks.split(_CENTERS)
        ]

        def update(begin: int) -> None:
            part = slice(begin, begin + _ROWS)
            features, centered, rough, current = (
                values[part] for values in (self.features, self.centered, self.rough, distances)
            )
            norms = self.norms[part]
            for centers, rough_targets, targets in blocks:
                # Products find the rows that a center may be nearer to, and which; the difference tells how near.
                partial = rough_targets.partial(rough)
                lowest = partial.amin(dim=1).float() - rough_targets.error(norms.sqrt())
                nearer = (lowest + norms < current).nonzero()[:, 0]
                if len(nearer) == 0:
                    continue
                partial = partial[nearer] if self.dtype == torch.float32 else targets.partial(centered[nearer])
                new = (features[nearer] - centers[partial.argmin(dim=1)]).square().sum(dim=1)
                current[nearer] = torch.minimum(current[nearer], new)

        tiles = range(0, len(self.features), _ROWS)
        deque(in_threads(update, tiles) if self.features.device.type == "cpu" else map(update, tiles), maxlen=0)
        distances[picks] = -1
