"""Exact nearest neighbours at the speed of matrix products."""

from __future__ import annotations

from functools import cached_property

import torch

from defectflow.search.distance_bounds import (
    COLUMNS,
    GROUP,
    PRODUCTS,
    Bound,
    Targets,
    axes_within,
    measure,
    principal_axes,
    product_dtype,
)

_BLOCK = 2**24  # bytes of a block of distances: malloc keeps that much for the next block
_ROWS, _POINTS = (256, 512), 32768  # more rows if points are few, because threads wait for each other between steps
_ROTATION = {
    torch.bfloat16: 6,
    torch.float32: 1,
}  # how many times slower float32 is, in which queries are projected on the axes
_TRY, _SELDOM = 8, 64  # fewer axes are tried on one photograph of 8, and after each failure half as often
_CROWD = 32  # above this many candidates per query, float32 has to distinguish them


class Neighbours:
    """Points among which nearest neighbours are searched exactly.

    A matrix product gives lower bounds on all distances (`Bound`); the few pairs that may be nearest are measured by
    their difference in float32. If varied patches leave many pairs, the search continues with twice the axes; on a CPU
    with bfloat16 products, the product is in bfloat16: the same results, but faster.

    Args:
        points: float32 (n, d), n >= 1.
        dtype: type for the product, bfloat16 or float32; None: the fastest.
    """

    def __init__(self, points: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        self._points, self._first, self._place = _distinct(points)
        self._dtype = dtype or product_dtype(points.device)
        self._origin = points.mean(dim=0)
        # Fewer axes are worthwhile if they save more time than projecting the queries takes.
        count, dimensions = self._points.shape
        steps = (COLUMNS * 2**i for i in range(dimensions.bit_length()) if points.device.type == "cpu")
        self._columns = [n for n in steps if count * (dimensions - n) > _ROTATION[self._dtype] * dimensions * n]
        self._step = self._calls = 0
        self._every = _TRY
        self._bounds: dict[int, tuple[Bound, Targets]] = {}

    def nearest(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Euclidean distance of each query to the point nearest to it, and that one's index, the lowest among equals.

        Args:
            queries: float32 (m, d).

        Returns:
            float32 (m,) and int64 (m,).
        """
        parts = []
        self._calls += 1
        # One unusual photograph must not slow down all later ones.
        before, fewer = self._step, self._step > 0 and self._calls % self._every == 0
        step = before - fewer
        rows = _BLOCK // (self._dtype.itemsize * len(self._points))
        for part in queries.split(min(max(rows, _ROWS[0]), _ROWS[1])):
            squares, indices, step = self._search(part, step)
            parts.append((squares, indices))
        self._step = step
        if fewer:
            self._every = _TRY if step < before else min(2 * self._every, _SELDOM)
        squares, indices = (torch.cat(values) for values in zip(*parts, strict=True))
        return squares.sqrt_(), self._first[indices]

    def around(self, indices: torch.Tensor, count: int) -> torch.Tensor:
        """The nearest neighbours of some of the points, nearest first, beginning with the point itself.

        Args:
            indices: int64 (m,), of these.
            count: 1 to n.

        Returns:
            int64 (m, count). Equal points are represented by the first of them.
        """
        return torch.cat([self._around(own, count) for own in self._place[indices].split(_ROWS[0])])

    def _around(self, own: torch.Tensor, count: int) -> torch.Tensor:
        bound, targets = self._bound(self._step)
        sources = bound.sources(self._points[own])
        groups = bound.product(targets.matrix, sources.matrix)
        likely = groups.flatten(0, 1).topk(min(count, len(self._points)), dim=0, largest=False).indices
        farthest = measure(self._points, self._points, own.repeat(len(likely)), likely.flatten()).view_as(likely)
        rows, members = bound.pairs(groups, groups.amin(dim=1), farthest.amax(dim=0), bound.error(sources, targets))
        order = measure(self._points, self._points, own[rows], members).argsort(stable=True)
        order = order[rows[order].argsort(stable=True)]
        order = order.repeat_interleave(self._equal[members[order]])
        rows, members = rows[order], members[order]
        begin = torch.searchsorted(rows, torch.arange(len(own), device=own.device))
        return self._first[members[begin[:, None] + torch.arange(count, device=own.device)]]

    def _search(self, queries: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Squared distances, indices among the distinct points, and the step to go on with."""
        while True:
            bound, targets = self._bound(step)
            rows, members = self._candidates(queries, bound, targets)
            measuring, product = len(rows) * PRODUCTS[self._dtype], len(queries) * targets.matrix.numel()
            more = measuring > product and step < len(self._columns)  # after the last come all axes
            step += more
            if measuring <= 2 * product or not more:
                break
        crowd = not more and len(rows) > _CROWD * len(queries) and step == len(self._columns)
        if crowd and self._dtype == torch.bfloat16:
            return *self._in_float32._search(queries, 0)[:2], step
        measured = measure(queries, self._points, rows, members)
        squares = torch.full(queries.shape[:1], torch.inf, device=queries.device)
        squares.scatter_reduce_(0, rows, measured, "amin")
        winners = measured == squares[rows]
        indices = torch.full(queries.shape[:1], len(self._points), device=queries.device)
        return squares, indices.scatter_reduce_(0, rows[winners], members[winners], "amin"), step

    def _candidates(self, queries: torch.Tensor, bound: Bound, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of queries and of points, int64 (pairs,) each, the nearest of each query among them."""
        sources = bound.sources(queries)
        error = bound.error(sources, targets)
        every = torch.arange(len(queries), device=queries.device)
        reached = torch.full_like(sources.norms, torch.inf)
        found = []
        for begin, block in zip(range(0, len(targets.matrix), _POINTS), targets.matrix.split(_POINTS), strict=True):
            groups = bound.product(block, sources.matrix)
            lowest = groups.amin(dim=1)
            group = lowest.min(dim=0).indices  # faster than argmin
            likely = group * GROUP + groups[group, :, every].argmin(dim=1) + begin
            likely.clamp_max_(len(self._points) - 1)
            reached = torch.minimum(reached, measure(queries, self._points, every, likely))
            rows, members = bound.pairs(groups, lowest, reached, error)
            found.append((rows, members + begin))
        rows, members = (torch.cat(values) for values in zip(*found, strict=True))
        return rows, members

    def _bound(self, step: int) -> tuple[Bound, Targets]:
        if step not in self._bounds:
            few = axes_within(self._columns[step], self._dtype) if step < len(self._columns) else None
            bound = Bound(self._origin, None if few is None else self._vectors[:, :few].contiguous(), self._dtype)
            self._bounds[step] = bound, bound.targets(self._points)
        return self._bounds[step]

    @cached_property
    def _equal(self) -> torch.Tensor:
        """How many points each of the distinct ones stands for."""
        return torch.bincount(self._place)

    @cached_property
    def _vectors(self) -> torch.Tensor:
        return principal_axes(self._points - self._origin)

    @cached_property
    def _in_float32(self) -> Neighbours:
        """For queries near so many points that bfloat16 cannot distinguish them, as in an even background."""
        return Neighbours(self._points, torch.float32)


def _distinct(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The points without repetitions, the first index of each, and for each point its place among them.

    Otherwise all of a thousand equal points (the same empty background in all pictures) would have to be measured.
    """
    indices = torch.arange(len(points), device=points.device)
    # Equal points have equal sums: if there are none, this takes a tenth of the time of comparing all.
    sums = torch.stack([points.sum(dim=1), points[:, ::2].sum(dim=1)], dim=1).view(torch.int64)
    if len(sums.unique()) == len(points):
        return points, indices, indices
    distinct, member = torch.unique(points, dim=0, return_inverse=True)
    if len(distinct) == len(points):
        return points, indices, indices
    first = torch.full((len(distinct),), len(points), device=points.device)
    first.scatter_reduce_(0, member, indices, "amin")
    order = first.sort().values
    return points[order], order, torch.searchsorted(order, first[member])
