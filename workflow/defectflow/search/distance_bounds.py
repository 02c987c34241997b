"""Lower bounds on distances, from matrix products of few columns; they show which exact distances have to be computed.

The coordinates along the first principal axes, with the distance from their subspace as one more coordinate, give
distances that are never larger than the true ones (triangle inequality in the complement). A matrix product computes
them, with a bound on its error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from defectflow.core.device import multiplies_bfloat16, product

GROUP = 32  # targets per group; only the nearest of a group is checked, unless it is a candidate
COLUMNS = 64  # of the first product: about this many axes hold 95 % of the variance of patches of one part
PRODUCTS = {
    torch.bfloat16: 50_000,
    torch.float32: 10_000,
}  # products of numbers that take as long as measuring one pair
_SUMMANDS = {torch.bfloat16: 3, torch.float32: 1}  # numbers that sum to one of float32: bfloat16 has 8 bits
_TILE = 32  # bfloat16 numbers in a row of a matrix unit's tile: products of whole tiles take a fifth less time
_AXES_OF = 4096  # points that the principal axes are computed from: worse axes would only leave a few more pairs
_PAIRS = 1024  # pairs at a time: with 384 dimensions 1.5 MB, which malloc keeps for the next ones


def product_dtype(device: torch.device) -> torch.dtype:
    """Type for products: bfloat16 on a CPU with bfloat16 products, else float32."""
    return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16() else torch.float32


def principal_axes(centered: torch.Tensor) -> torch.Tensor:
    """Orthonormal axes of points (n, d) with mean 0, the one with the largest variance first: float32 (d, d)."""
    some = centered[:: -(-len(centered) // _AXES_OF)]
    return torch.linalg.eigh((some.T @ some).double()).eigenvectors.flip(1).to(centered.dtype)


def axes_within(columns: int, dtype: torch.dtype) -> int:
    """Number of axes that fit into a product of this many columns, besides the subspace distance and the norms."""
    return columns - 1 - 2 * _SUMMANDS[dtype]


def measure(points: torch.Tensor, others: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Squared distances from points[rows] to others[columns], float32 (pairs,), by their differences."""
    squares = [
        points.index_select(0, some).sub_(others.index_select(0, mates)).square_().sum(dim=1)
        for some, mates in zip(rows.split(_PAIRS), columns.split(_PAIRS), strict=True)
    ]
    return torch.cat(squares) if squares else points.new_empty(0)


class Sources(NamedTuple):
    """Points that distances are measured from.

    Attributes:
        matrix: (m, columns of the product), of the type for products.
        norms: float32 (m,), |x|.
        rounded: float32 (m,), how far that type moves them.
    """

    matrix: torch.Tensor
    norms: torch.Tensor
    rounded: torch.Tensor


class Targets(NamedTuple):
    """Points that distances are measured to.

    Attributes:
        matrix: (n, columns of the product), of the type for products; n is a multiple of GROUP: what is added to the
            last group is infinitely far.
        longest: the largest |t|.
        rounded: how far that type moves any of them, at most.
    """

    matrix: torch.Tensor
    longest: float
    rounded: float


class Bound:
    """Lower bounds on squared distances, by a matrix product.

    Args:
        origin: what to subtract from all points, float32 (d,). Distances do not depend on it, their rounding does.
        axes: the first of what `principal_axes` returned, (d, axes); None: the bounds are the distances themselves.
        dtype: type for the product, bfloat16 or float32.
    """

    def __init__(self, origin: torch.Tensor, axes: torch.Tensor | None, dtype: torch.dtype) -> None:
        self._origin, self._axes, self._dtype = origin, axes, dtype
        self._bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
        self._rounding = (len(origin) + 6) * 2**-23  # of sums of d squares in float32, relative

    def targets(self, points: torch.Tensor) -> Targets:
        """Prepare points (n, d), n >= 1, that distances are measured to."""
        reduced, squares = self.reduce(points)
        rough, parts = reduced.to(self._dtype), self._summands(squares)
        matrix = torch.cat([rough * -2, parts, torch.ones_like(parts)], dim=1)
        # Whole tiles of matrix units: zeros that add 0.
        matrix = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % _TILE, 0, -len(matrix) % GROUP))
        matrix[len(rough) :, rough.shape[1]] = torch.inf
        moved = torch.linalg.vector_norm(reduced.sub_(rough), dim=1).max()
        return Targets(matrix, float(squares.max().sqrt()), float(moved))

    def sources(self, points: torch.Tensor) -> Sources:
        """Prepare points (m, d) that distances are measured from."""
        reduced, squares = self.reduce(points)
        rough, parts = reduced.to(self._dtype), self._summands(squares)
        # |t|^2 + |x|^2 - 2 x.t in one product: the summands of the norms are multiplied by ones.
        width, count = rough.shape[1], parts.shape[1]
        matrix = rough.new_zeros(len(rough), width + 2 * count + -(width + 2 * count) % _TILE)
        matrix[:, :width], matrix[:, width : width + count] = rough, 1
        matrix[:, width + count : width + 2 * count] = parts
        return Sources(matrix, squares.sqrt(), torch.linalg.vector_norm(reduced.sub_(rough), dim=1))

    def product(self, targets: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        """Squared distances of matrices of targets and sources, as the bits of their type: (groups, GROUP, m).

        Non-negative floats have the same order as their bits, and integers are compared 8 times faster than bfloat16.
        A negative value, which rounding can make of a distance near 0, sorts first, as it should.
        """
        distances = product(targets, sources) if self._dtype == torch.float32 else torch.mm(targets, sources.T)
        return distances.view(self._bits).view(-1, GROUP, len(sources))

    def error(self, sources: Sources, targets: Targets) -> torch.Tensor:
        """Bound on the error of a product before its result is rounded, and of measuring a pair, float32 (m,)."""
        moved = sources.rounded * (targets.longest + targets.rounded) + sources.norms * targets.rounded
        return 2 * moved + self._rounding * (sources.norms + targets.longest).square()

    def pairs(
        self, groups: torch.Tensor, lowest: torch.Tensor, squares: torch.Tensor, error: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs of a source and a target that may be nearer than the source's nearest known target.

        Args:
            groups: what :meth:`product` returned.
            lowest: their lowest, (groups, m).
            squares: squared distances known, float32 (m,).
            error: what :meth:`error` returned.

        Returns:
            Indices of sources and of targets, int64 (pairs,) each.
        """
        eps = torch.finfo(self._dtype).eps  # twice the relative error of rounding the result
        limit = ((squares + error) * (1 + 2 * eps)).to(self._dtype).view(self._bits)
        group, source = _where(lowest <= limit)
        hit, member = _where(groups[group, :, source] <= limit[source, None])
        return source[hit], group[hit] * GROUP + member

    def reduce(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates of points (m, d) along the axes and the distance from their subspace; squared norms (m,)."""
        centered = points - self._origin
        squares = centered.square().sum(dim=1)
        if self._axes is None:
            return centered, squares
        along = product(centered, self._axes.T)
        # Rounded up: a shorter one would not be a bound.
        away = squares - along.square().sum(dim=1) + self._rounding * squares
        return torch.cat([along, away.clamp_min_(0).sqrt_()[:, None]], dim=1), squares

    def _summands(self, values: torch.Tensor) -> torch.Tensor:
        """Columns that sum to float32 ``values`` (m,) with an error of 2^-24."""
        columns = []
        for _ in range(_SUMMANDS[self._dtype]):
            columns.append(values.to(self._dtype))
            values = values - columns[-1].float()
        return torch.stack(columns, dim=1)


def _where(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column, int64 (n,) each, of the true cells of a mask (rows, columns); 4 times faster than torch."""
    if mask.device.type != "cpu":
        row, column = mask.nonzero(as_tuple=True)
        return row, column
    flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    rows = flat // mask.shape[1]
    return rows, flat - rows * mask.shape[1]
