"""Exact nearest neighbours in numpy, with a small part of the arithmetic of computing all distances."""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from defectflow.search.clusters import Clusters, Grouping, Places

_ROWS = 128  # queries at a time: their distances to 10,000 points take 5 MB
_GROUP = 32  # points per group; only the nearest of a group is checked, unless it is a candidate
_SAMPLE = 2500  # points that the axes are chosen on: any axes give a bound, and more points no better one
_AXES = 48  # principal axes of the first bound: they hold about 95 % of the variance of patches of one part
_PAIRS = 4096
_BLOCK = 1024  # points that are prepared at a time: memory that is used for the first time costs more than arithmetic
_TRY = 8  # fewer axes are tried on one of this many photographs
_PRODUCTS = 30_000  # products of numbers in a matrix product that take as long as measuring one pair
_MANY = 4  # times the product: measuring this long, clusters do not pay
_STAY = 0.5  # share of the pairs above which dropping clusters does not pay
_FARTHEST = 16  # queries that are measured at a time: the farthest of them rule out most others


class Begun(NamedTuple):
    """What is known of queries before the exact search, see `Points.begin`.

    Attributes:
        places: where they lie among the clusters.
        reached: float32 (m,), squared distances to points that are near, rarely the nearest.
        squares: float32 (m,), squared norms of the centered queries.
    """

    places: Places
    reached: np.ndarray
    squares: np.ndarray


class Farthest(NamedTuple):
    """The queries that may be farthest from all points.

    Attributes:
        rows: int64 (k,), k >= 1, in ascending order; all others are nearer than the farthest of them.
        distances: float32 (k,), of these to their nearest points.
        indices: int64 (k,), of these points.
        bounds: float32 (m,), no query is farther away than this.
    """

    rows: np.ndarray
    distances: np.ndarray
    indices: np.ndarray
    bounds: np.ndarray


class Points:
    """Points among which nearest neighbours are searched exactly.

    Coordinates along the first principal axes, with the distance from their subspace as one more coordinate, give a
    lower bound on distances (triangle inequality in the complement). The bound comes from a matrix product of few
    columns; the remaining pairs, a handful for each query, are measured by their difference. Clusters that are too far
    away are left out of the product. If varied patches leave many pairs, the next queries use twice the axes and no
    clusters: the same results, but faster.

    Args:
        points: float32 (n, d), n >= 1.
        tables: of the same points, see `tables`; None: they are computed, of 10,000 points in some 45 ms.

    Attributes:
        points: as given.
    """

    def __init__(self, points: np.ndarray, tables: Mapping[str, np.ndarray] | None = None) -> None:
        self.points = points
        self._first = self._count = min(_AXES, points.shape[1])
        self._calls = self._clustered_from = 0
        self._bounds: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}
        if tables is not None:
            self._origin, self._vectors = tables["origin"], tables["vectors"]
            targets = tables["targets"]
            self._bounds[self._first] = self._vectors[:, : self._first].copy(), targets, float(tables["largest"][0])
            self._clusters = Clusters(
                self._projected(targets), Grouping(tables["centres"], tables["order"], tables["begin"])
            )
            return
        self._origin = points.mean(axis=0)  # distances do not depend on it, their rounding does
        sample = points[:: -(-len(points) // _SAMPLE)] - self._origin
        self._vectors = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]

    def tables(self) -> dict[str, np.ndarray]:
        """What is computed of the points before the first query, by names, to be kept beside them."""
        _, targets, largest = self._bound(self._first)
        known = {"origin": self._origin, "vectors": self._vectors, "targets": targets, "largest": np.array([largest])}
        return known | self._clusters.grouping._asdict()

    def _bound(self, count: int) -> tuple[np.ndarray, np.ndarray, float]:
        """``count`` axes (d, count), what the bound is a product with, and the largest squared norm."""
        if count in self._bounds:
            return self._bounds[count]
        axes = np.ascontiguousarray(self._vectors[:, :count])
        # Whole groups: the padding of the last one is too far away to be found.
        whole = len(self.points) + -len(self.points) % _GROUP
        targets, largest = np.zeros((whole, count + 2), np.float32), 0.0
        for i in range(0, len(self.points), _BLOCK):
            some = slice(i, min(i + _BLOCK, len(self.points)))
            sources, squares = self._sources(self.points[some] - self._origin, axes)
            np.multiply(sources[:, :-1], -2, out=targets[some, :-1])
            targets[some, -1], largest = squares, max(largest, float(squares.max()))
        targets[len(self.points) :, -1] = np.finfo(np.float32).max
        self._bounds[count] = axes, targets, largest
        return self._bounds[count]

    def nearest(self, queries: np.ndarray, begun: Begun | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Euclidean distance of each query to the point nearest to it, and that one's index, the lowest among equals.

        Args:
            queries: float32 (m, d).
            begun: what `begin` returned for them.

        Returns:
            float32 (m,) and int64 (m,).
        """
        if len(self.points) == 1 or not len(queries):  # nothing to search
            difference = self.points[0] - queries
            alone: np.ndarray = np.sqrt(np.einsum("ij,ij->i", difference, difference))
            return alone, np.zeros(len(queries), np.int64)
        self._calls += 1
        if self._calls >= self._clustered_from:
            near = self._near(queries, begun or self.begin(queries))
            if near is not None:
                return near
            self._clustered_from = self._calls + _TRY
        return self._among_all(queries)

    def farthest(self, queries: np.ndarray, begun: Begun | None = None) -> Farthest:
        """The queries that may be farthest from all points: a few, measured as `nearest` does, among them the farthest.

        Args:
            queries: float32 (m, d), m >= 1.
            begun: what `begin` returned for them.
        """
        bounds = np.sqrt((begun or self.begin(queries)).reached)
        order = np.argsort(-bounds, kind="stable")
        falling = bounds[order]
        found: list[tuple[np.ndarray, np.ndarray]] = []
        done, wanted, largest, axes = 0, min(_FARTHEST, len(order)), np.float32(0), self._first
        while done < wanted:
            end = min(wanted, done + (_FARTHEST if done < _ROWS else _ROWS))
            distances, indices, axes = self._search(queries[order[done:end]], axes)
            found.append((distances, indices))
            largest, done = max(largest, distances.max()), end
            # A millionth less: queries whose distances a caller rounds to the same number are all measured.
            wanted = int(np.count_nonzero(falling >= largest * np.float32(1 - 1e-6)))
        rows = order[:done]
        distances, indices = (np.concatenate(values) for values in zip(*found, strict=True))
        bounds[rows] = distances
        sort = np.argsort(rows)
        return Farthest(rows[sort], distances[sort], indices[sort], bounds)

    def around(self, index: int, count: int) -> np.ndarray:
        """The nearest neighbours of a point, nearest first, the lowest index among equals, beginning with itself.

        Args:
            index: of the point.
            count: 1 to n.

        Returns:
            int64 (count,).
        """
        axes, targets, largest = self._bound(self._first)
        own = self.points[index]
        source, square = self._sources((own - self._origin)[None], axes)
        bounds = (targets @ source[0])[: len(self.points)]
        rows = np.argpartition(bounds, count - 1)[:count]
        farthest = np.square(self.points[rows] - own).sum(axis=1).max()
        rows = np.flatnonzero(bounds <= farthest - square + self._error(square, largest))
        distances = np.square(self.points[rows] - own).sum(axis=1)
        return rows[np.argsort(distances, kind="stable")[:count]]

    @cached_property
    def _clusters(self) -> Clusters:
        return Clusters(self._projected(self._bound(self._first)[1]))

    def _projected(self, targets: np.ndarray) -> np.ndarray:
        """What `_sources` gives of the points, from the targets of the first bound."""
        projected: np.ndarray = targets[: len(self.points), :-1] * np.float32(-0.5)
        return projected

    def begin(self, queries: np.ndarray) -> Begun:
        """What `nearest` and `farthest` both begin with, for queries float32 (m, d)."""
        axes, *_ = self._bound(self._first)
        sources, squares = self._sources(queries - self._origin, axes)
        places = self._clusters.places(sources[:, :-1])
        reached = np.empty(len(queries), np.float32)
        likely = self._clusters.likely(places)
        for start in range(0, len(queries), _PAIRS):
            part = slice(start, start + _PAIRS)
            difference = queries[part] - self.points[likely[part]]
            reached[part] = np.einsum("ij,ij->i", difference, difference)
        return Begun(places, reached, squares)

    def _near(self, queries: np.ndarray, begun: Begun) -> tuple[np.ndarray, np.ndarray] | None:
        """As `nearest`, by clusters; None if these drop too little."""
        places, reached, squares = begun
        near = self._clusters.near(places, np.sqrt(reached))
        if (near @ self._clusters.sizes).sum() > _STAY * len(queries) * len(self.points):
            return None
        largest = self._bound(self._first)[2]
        limit = reached - squares + self._error(squares, largest)
        found = list(self._clusters.pairs(places, near, limit))
        rows, columns = (np.concatenate(values) for values in zip(*found, strict=True))
        if len(rows) * _PRODUCTS > _MANY * len(queries) * len(self.points) * (self._first + 2):
            return None  # more axes are needed
        return self._measured(queries, rows, columns)

    def _error(self, squares: np.ndarray, largest: float) -> np.ndarray:
        """What rounding may add to a bound on squared distances."""
        error: np.ndarray = len(self._origin) * 2**-23 * (np.sqrt(squares) + largest**0.5) ** 2
        return error

    def _among_all(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest`, by products with all points."""
        parts = []
        axes = self._count
        if self._calls % _TRY == 0:  # one unusual photograph must not slow down all later ones
            axes = max(axes // 2, min(_AXES, queries.shape[1]))
        for i in range(0, len(queries), _ROWS):
            distances, indices, axes = self._search(queries[i : i + _ROWS], axes)
            parts.append((distances, indices))
        self._count = axes
        distances, indices = (np.concatenate(values) for values in zip(*parts, strict=True))
        return distances, indices

    @staticmethod
    def _sources(centered: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates, distance from the subspace and a one, float32 (m, axes + 2); and squared norms (m,)."""
        along = centered @ axes
        squares = np.einsum("ij,ij->i", centered, centered)
        # Rounded up: a shorter one would not be a bound.
        away = squares - np.einsum("ij,ij->i", along, along) + len(axes) * np.float32(2**-23) * squares
        away = np.sqrt(np.maximum(away, 0))
        return np.concatenate([along, away[:, None], np.ones_like(away[:, None])], axis=1), squares

    def _search(self, queries: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Distances, indices, and the number of axes to go on with."""
        count = len(queries)
        axes, targets, largest = self._bound(number)
        sources, squares = self._sources(queries - self._origin, axes)
        # Lower bounds on the squared distances, less |query|^2.
        bounds = (targets @ sources.T).reshape(-1, _GROUP, count)
        lowest = bounds.min(axis=1)
        group = lowest.argmin(axis=0)
        likely = group * _GROUP + bounds[group, :, np.arange(count)].argmin(axis=1)
        reached = np.square(queries - self.points[likely]).sum(axis=1)
        limit = reached - squares + self._error(squares, largest)
        group, query = np.nonzero(lowest <= limit)
        hit, member = np.nonzero(bounds[group, :, query] <= limit[query, None])
        rows, columns = query[hit], group[hit] * _GROUP + member
        if len(rows) * _PRODUCTS > count * targets.size:  # measuring takes longer than the product
            number = min(2 * number, len(axes))
        return *self._measured(queries, rows, columns), number

    def _measured(self, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances and indices of the nearest points among pairs of queries and points, one of each at least."""
        measured = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            difference = queries[rows[part]] - self.points[columns[part]]
            measured[part] = np.einsum("ij,ij->i", difference, difference)
        nearest = np.full(len(queries), np.inf, np.float32)
        np.minimum.at(nearest, rows, measured)
        indices = np.full(len(queries), len(self.points))
        winners = measured == nearest[rows]
        np.minimum.at(indices, rows[winners], columns[winners])
        return np.sqrt(nearest), indices
