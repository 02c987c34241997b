"""Exact nearest neighbours at the speed of matrix products."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from defectflow.distances import product_dtype

_ROWS, _POINTS = 256, 32768  # a block of distances is 16 MB in bfloat16: malloc keeps that much for the next block
_GROUP = 32  # points of which only the nearest is looked at, unless it comes into question
_COLUMNS = 64  # of the product to begin with: as many axes, nearly, hold 95 % of the variance of patches of one part
_TILE = 32  # bfloat16 numbers in a row of a matrix unit's tile: a product of whole ones takes a fifth less time
_AXES_OF = 4096  # points whose principal axes are taken: others would only leave a few more pairs
_PAIRS = 1024  # differences of 384 dimensions: 1.5 MB, which malloc keeps for the next ones
_PRODUCTS = {torch.bfloat16: 50_000, torch.float32: 10_000}  # of numbers, that take as long as measuring a pair
_ROTATION = {torch.bfloat16: 12, torch.float32: 1}  # times as slow is float32, in which queries meet the axes
_SPARE = 1 / 32  # of the product's time, below which measuring pairs is so quick that half the columns will do
_CROWD = 32  # candidates for each query, beyond which float32 has to tell them apart


class Neighbours:
    """Points to find the nearest of, exactly.

    Along the principal axes, with the distance from their subspace as one more coordinate, points are as near as they
    are or nearer (triangle inequality in the complement). A matrix product gives these squared distances, with a bound
    on their error; the few pairs that are the nearest within both bounds are measured by the difference in float32.
    Where patches are so varied that many pairs are left, the search goes on with twice the axes, where hardly any are,
    with half; where a CPU multiplies bfloat16, the product is in bfloat16: the same results, only sooner.

    Args:
        points: float32 (n, d), n >= 1.
        dtype: type for the product, bfloat16 or float32; None: what is fastest.
    """

    def __init__(self, points: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        self._points, self._first = _distinct(points)
        self._dtype = dtype or product_dtype(points.device)
        self._origin = points.mean(dim=0)  # distances do not depend on it, their rounding does
        some = self._points[:: -(-len(self._points) // _AXES_OF)] - self._origin
        self._vectors = torch.linalg.eigh((some.T @ some).double()).eigenvectors.flip(1).to(points.dtype)
        # Fewer axes are worth it where they save more than it takes to find the queries along them.
        count, dimensions = self._points.shape
        steps = (_COLUMNS * 2**i for i in range(dimensions.bit_length()) if points.device.type == "cpu")
        worth = [n for n in steps if count * (dimensions - n) > _ROTATION[self._dtype] * dimensions * n]
        self._columns = [*worth, dimensions + _COLUMNS]  # the last: all axes
        self._step = 0
        self._bounds: dict[int, _Bound] = {}

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
        step = self._step
        while True:
            bound = self._bound(self._columns[step])
            candidates = bound.candidates(queries)
            work = candidates.shape[1] * _PRODUCTS[self._dtype] / (len(queries) * bound.size)
            if bound.all_axes or work <= 2:
                break
            step += 1
        if candidates.shape[1] > _CROWD * len(queries) and bound.all_axes and self._dtype == torch.bfloat16:
            return self._in_float32._search(queries)
        # One odd photograph must not slow down all that follow.
        self._step = step - 1 if work < _SPARE and step else step
        rows, members = candidates
        measured = torch.cat([_measure(queries, self._points, *pairs) for pairs in candidates.split(_PAIRS, dim=1)])
        distances = torch.full(queries.shape[:1], torch.inf, device=queries.device)
        distances.scatter_reduce_(0, rows, measured, "amin")
        winners = measured == distances[rows]
        indices = torch.full(queries.shape[:1], len(self._points), device=queries.device)
        return distances, indices.scatter_reduce_(0, rows[winners], members[winners], "amin")

    def _bound(self, columns: int) -> _Bound:
        if columns not in self._bounds:
            self._bounds[columns] = _Bound(self._points, self._origin, self._vectors, columns, self._dtype)
        return self._bounds[columns]

    @cached_property
    def _in_float32(self) -> Neighbours:
        """For queries amid so many points that bfloat16 cannot tell which are nearer: an even background, say."""
        return Neighbours(self._points, torch.float32)


class _Bound:
    """Lower bounds on the squared distances to points, by a matrix product.

    Args:
        points: float32 (n, d).
        origin: what to subtract from all of them, float32 (d,).
        vectors: principal axes, orthonormal, the one with the largest variance first, float32 (d, d).
        columns: of the product; as many axes as fit into it.
        dtype: type for the product, bfloat16 or float32.

    Attributes:
        all_axes: whether the bounds are the distances themselves.
        size: numbers that each query is multiplied with.
    """

    def __init__(
        self, points: torch.Tensor, origin: torch.Tensor, vectors: torch.Tensor, columns: int, dtype: torch.dtype
    ) -> None:
        self._points, self._origin, self._dtype = points, origin, dtype
        self._bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
        self._rounding = (len(origin) + 6) * 2**-23  # of sums of d squares in float32, relative
        summands = 3 if dtype == torch.bfloat16 else 1
        count = columns - 2 * summands - 1
        self.all_axes = count >= len(origin)
        self._axes = None if self.all_axes else vectors[:, :count].contiguous()
        reduced, squares = self._reduce(points)
        self._longest = float(squares.max().sqrt())
        rough = reduced.to(dtype)
        self._rounded = float(torch.linalg.vector_norm(reduced - rough.float(), dim=1).max())
        parts = self._summands(squares)
        targets = torch.cat([rough * -2, parts, torch.ones_like(parts)], dim=1)
        # Whole groups: what is added to the last one is infinitely far. Whole tiles of matrix units: zeros that add 0.
        targets = torch.nn.functional.pad(targets, (0, -targets.shape[1] % _TILE, 0, -len(targets) % _GROUP))
        targets[len(rough) :, rough.shape[1]] = torch.inf
        self.size = targets.numel()
        self._blocks = targets.split(_POINTS)

    def candidates(self, queries: torch.Tensor) -> torch.Tensor:
        """Pairs (index of query, index of point), the nearest of each query among them: int64 (2, pairs)."""
        reduced, squares = self._reduce(queries)
        rough = reduced.to(self._dtype)
        summands = self._summands(squares)
        # |t|^2 + |x|^2 - 2 x.t in one product: the norms' summands meet ones on the other side.
        sources = rough.new_zeros(len(queries), self._blocks[0].shape[1])
        width, count = rough.shape[1], summands.shape[1]
        sources[:, :width], sources[:, width : width + count] = rough, 1
        sources[:, width + count : width + 2 * count] = summands
        sources = sources.T
        error = self._error(squares.sqrt(), torch.linalg.vector_norm(reduced.sub_(rough), dim=1))
        eps = torch.finfo(self._dtype).eps  # twice the relative error of rounding the result

        found = []
        every = torch.arange(len(queries), device=queries.device)
        reached = torch.full_like(squares, torch.inf)  # squared distance to the nearest point measured
        for number, block in enumerate(self._blocks):
            # Numbers that are not negative are in the order of their bits, and integers are compared 8 times faster
            # than bfloat16. A negative one, which rounding makes of a distance near 0, comes first as it should.
            groups = torch.mm(block, sources).view(self._bits).view(-1, _GROUP, len(queries))
            lowest = groups.amin(dim=1)
            group = lowest.argmin(dim=0)
            likely = group * _GROUP + groups[group, :, every].argmin(dim=1) + number * _POINTS
            likely = likely.clamp_max(len(self._points) - 1)
            reached = torch.minimum(reached, _measure(queries, self._points, every, likely).square_())
            limit = ((reached + error) * (1 + 2 * eps)).to(self._dtype).view(self._bits)
            group, query = _where(lowest <= limit)
            hit, member = _where(groups[group, :, query] <= limit[query, None])
            found.append(torch.stack([query[hit], group[hit] * _GROUP + member + number * _POINTS]))
        return torch.cat(found, dim=1)

    def _reduce(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates of points (m, d) along the axes and the distance from their subspace; squared norms (m,)."""
        centered = points - self._origin
        squares = centered.square().sum(dim=1)
        if self._axes is None:
            return centered, squares
        along = centered @ self._axes
        # Rounded up: a shorter one would not be a bound.
        away = squares - along.square().sum(dim=1) + self._rounding * squares
        return torch.cat([along, away.clamp_min_(0).sqrt_()[:, None]], dim=1), squares

    def _summands(self, values: torch.Tensor) -> torch.Tensor:
        """Columns that sum to float32 ``values`` (m,) with an error of 2^-24: three of bfloat16, which has 8 bits."""
        columns = []
        for _ in range(3 if self._dtype == torch.bfloat16 else 1):
            columns.append(values.to(self._dtype))
            values = values - columns[-1].float()
        return torch.stack(columns, dim=1)

    def _error(self, norms: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Bound on the error of the product before the result is rounded, and of measuring a pair, float32 (m,).

        Args:
            norms: |x| of the centered queries, float32 (m,).
            rounded: how far the type for products moves them, float32 (m,).
        """
        product = 2 * (rounded * (self._longest + self._rounded) + norms * self._rounded)
        return product + self._rounding * (norms + self._longest).square()


def _measure(queries: torch.Tensor, points: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Distance of queries[rows] to points[columns], float32 (pairs,)."""
    differences = queries.index_select(0, rows).sub_(points.index_select(0, columns))
    return torch.linalg.vector_norm(differences, dim=1)


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
