"""Exact nearest neighbours at the speed of matrix products."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from defectflow.distances import product_dtype

_ROWS, _POINTS = 256, 32768  # a block of distances is 16 MB in bfloat16: malloc keeps that much for the next block
_GROUP = 32  # points of which only the nearest is looked at, unless it comes into question
_TILE = 32  # bfloat16 numbers in a row of a matrix unit's tile: a product of whole ones takes a fifth less time
_PAIRS = 4096  # differences of 384 dimensions: 6 MB
_CROWD = 32  # candidates for each query, beyond which float32 has to tell them apart


class Neighbours:
    """Points to find the nearest of, exactly.

    A matrix product gives all squared distances, with a bound on their error; the few pairs that are the nearest within
    that bound are measured by the difference in float32. Where a CPU has matrix units for bfloat16 the product is in
    bfloat16: the results are the same, only sooner.

    Args:
        points: float32 (n, d), n >= 1.
        dtype: type for the product, bfloat16 or float32; None: what is fastest.
    """

    def __init__(self, points: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        self._points, self._first = _distinct(points)
        self._dtype = dtype or product_dtype(points.device)
        self._bits = torch.int16 if self._dtype == torch.bfloat16 else torch.int32
        self._origin = points.mean(dim=0)  # distances do not depend on it, their rounding does
        centered = self._points - self._origin
        rough = centered.to(self._dtype)
        squares = centered.square().sum(dim=1)
        self._longest = float(squares.max().sqrt())
        self._rounded = float(torch.linalg.vector_norm(centered - rough.float(), dim=1).max())
        summands = self._summands(squares)
        targets = torch.cat([rough * -2, summands, torch.ones_like(summands)], dim=1)
        # Whole groups: what is added to the last one is infinitely far. Whole tiles of matrix units: zeros that add 0.
        targets = torch.nn.functional.pad(targets, (0, -targets.shape[1] % _TILE, 0, -len(targets) % _GROUP))
        targets[len(rough) :, rough.shape[1]] = torch.inf
        self._blocks = targets.split(_POINTS)

    def nearest(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Euclidean distance of each query to the point nearest to it, and that one's index, the lowest among equals.

        Args:
            queries: float32 (m, d).

        Returns:
            float32 (m,) and int64 (m,).
        """
        parts = [self._search(part) for part in queries.split(_ROWS)]
        distances, indices = (torch.cat(values) for values in zip(*parts, strict=True))
        return distances, self._first[indices]

    def _search(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        candidates = self._candidates(queries)
        if candidates.shape[1] > _CROWD * len(queries) and self._dtype == torch.bfloat16:
            return self._in_float32._search(queries)
        rows, columns = candidates
        measured = torch.cat([self._measure(queries, *pairs) for pairs in candidates.split(_PAIRS, dim=1)])
        distances = torch.full(queries.shape[:1], torch.inf, device=queries.device)
        distances.scatter_reduce_(0, rows, measured, "amin")
        winners = measured == distances[rows]
        indices = torch.full(queries.shape[:1], len(self._points), device=queries.device)
        return distances, indices.scatter_reduce_(0, rows[winners], columns[winners], "amin")

    def _measure(self, queries: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Distance of queries[rows] to points[columns], float32 (pairs,)."""
        differences = queries.index_select(0, rows).sub_(self._points.index_select(0, columns))
        return torch.linalg.vector_norm(differences, dim=1)

    def _candidates(self, queries: torch.Tensor) -> torch.Tensor:
        """Pairs (index of query, index of point), the nearest of each query among them: int64 (2, pairs)."""
        centered = queries - self._origin
        rough = centered.to(self._dtype)
        squares = centered.square().sum(dim=1)
        summands = self._summands(squares)
        # |t|^2 + |x|^2 - 2 x.t in one product: the norms' summands meet ones on the other side.
        sources = rough.new_zeros(len(queries), self._blocks[0].shape[1])
        width, count = rough.shape[1], summands.shape[1]
        sources[:, :width], sources[:, width : width + count] = rough, 1
        sources[:, width + count : width + 2 * count] = summands
        sources = sources.T
        error = self._error(squares.sqrt(), torch.linalg.vector_norm(centered.sub_(rough), dim=1))
        eps = torch.finfo(self._dtype).eps  # twice the relative error of rounding the result

        found = []
        bound = torch.full_like(squares, torch.inf)  # on the squared distance to the nearest point
        for number, block in enumerate(self._blocks):
            # Numbers that are not negative are in the order of their bits, and integers are compared 8 times faster
            # than bfloat16. A negative one, which rounding makes of a distance near 0, comes first as it should.
            groups = torch.mm(block, sources).view(self._bits).view(-1, _GROUP, len(queries))
            lowest = groups.amin(dim=1)
            closest = lowest.amin(dim=0).view(self._dtype).float().clamp_min(0)
            bound = torch.minimum(bound, closest * (1 + eps) + error)
            limit = ((bound + error) * (1 + 2 * eps)).to(self._dtype).view(self._bits)
            group, query = _where(lowest <= limit)
            hit, member = _where(groups[group, :, query] <= limit[query, None])
            found.append(torch.stack([query[hit], group[hit] * _GROUP + member + number * _POINTS]))
        return torch.cat(found, dim=1)

    def _summands(self, values: torch.Tensor) -> torch.Tensor:
        """Columns that sum to float32 ``values`` (m,) with an error of 2^-24: three of bfloat16, which has 8 bits."""
        columns = []
        for _ in range(3 if self._dtype == torch.bfloat16 else 1):
            columns.append(values.to(self._dtype))
            values = values - columns[-1].float()
        return torch.stack(columns, dim=1)

    def _error(self, norms: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Bound on the error of squared distances before the result is rounded, float32 (m,).

        It is that of a product of rounded vectors, and of sums of ``terms`` in float32.

        Args:
            norms: |x| of the centered queries, float32 (m,).
            rounded: how far the type for products moves them, float32 (m,).
        """
        terms = len(self._origin) + 6
        product = 2 * (rounded * (self._longest + self._rounded) + norms * self._rounded)
        return product + terms * 2**-23 * (norms + self._longest).square()

    @cached_property
    def _in_float32(self) -> Neighbours:
        """For queries amid so many points that bfloat16 cannot tell which are nearer: an even background, say."""
        return Neighbours(self._points, torch.float32)


def _where(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column, int64 (n,) each, of what is true in a mask (rows, columns); a fourth of torch's time on a CPU."""
    if mask.device.type != "cpu":
        return mask.nonzero(as_tuple=True)
    flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    rows = flat // mask.shape[1]
    return rows, flat - rows * mask.shape[1]


def _distinct(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The points without repetitions, and the first index of each.

    Any of a thousand equal points (the same empty background in all pictures) would be as near as the others, and all
    of them would be measured.
    """
    distinct, member = torch.unique(points, dim=0, return_inverse=True)
    indices = torch.arange(len(points), device=points.device)
    if len(distinct) == len(points):
        return points, indices
    first = torch.full((len(distinct),), len(points), device=points.device)
    first = first.scatter_reduce_(0, member, indices, "amin").sort().values
    return points[first], first
