"""The densest patches: those that many photographs show something similar to."""

from __future__ import annotations

import math

import torch

from defectflow.core.device import product
from defectflow.core.parallel import in_threads

_REFERENCES = 10_000  # patches that the distances are measured to, at most
_ROWS = 2048  # patches at a time


def densest(
    patches: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor, share: float, neighbours: int
) -> torch.Tensor:
    """The ``share`` of some patches with the shortest distances to their neighbours in other photographs.

    The density at a patch is that of its k nearest neighbours: the shorter the distance to the k-th, the denser
    (D. Loftsgaarden, C. Quesenberry, A nonparametric estimate of a multivariate density function, 1965). Neighbours in
    the same photograph do not count: a defect is near itself. They are looked for among 10,000 of the patches, evenly
    spread.

    Args:
        patches: float32 (n, d), of the length that distances are measured with.
        owner: int64 (n,), the photograph of each; copies are no other photographs than their sources.
        rows: int64 (m,), those to choose from.
        share: in (0, 1].
        neighbours: k.

    Returns:
        int64, rows in their order; all of them where no photograph has another one beside it.
    """
    step = -(-len(rows) // _REFERENCES)
    references = rows[::step]
    points, photograph = patches[references], owner[references]
    norms = points.square().sum(dim=1)

    def distances(part: torch.Tensor) -> torch.Tensor:
        squares = norms - 2 * product(patches[part], points)
        squares[owner[part][:, None] == photograph] = torch.inf
        k = min(neighbours, len(points))
        return squares.kthvalue(k, dim=1).values + patches[part].square().sum(dim=1)

    found = torch.cat(list(in_threads(distances, rows.split(_ROWS))))
    if not found.isfinite().any():
        return rows
    count = math.ceil(share * len(rows))
    order = found.argsort(stable=True)[:count]
    return rows[order.sort().values]
