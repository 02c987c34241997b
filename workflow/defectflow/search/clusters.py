"""Points in clusters: a near neighbour of each query at once, and which clusters may hold a nearer one.

The triangle inequality drops whole clusters, as in Elkan 2003, "Using the Triangle Inequality to Accelerate k-Means".
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_CLUSTERS = 128  # of 10,000 points; a cluster of fewer than 16 points would save nothing
_SMALLEST = 16
_ROUNDS = 8  # of Lloyd's algorithm: worse clusters would only leave a few more pairs
_SAMPLE = 24  # points of a cluster on average that all rounds but the last look at


def _beginnings(ordered: np.ndarray) -> np.ndarray:
    """Where each value of sorted ones begins (np.unique imports numpy.ma at its first use, which takes 14 ms)."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))


class Places(NamedTuple):
    """Queries among the clusters.

    Attributes:
        queries: float32 (m, k).
        squares: float32 (m,), their squared norms.
        apart: float32 (m, clusters), lower bounds on the distances to the centres.
        own: int64 (m,), the cluster whose centre is nearest.
    """

    queries: np.ndarray
    squares: np.ndarray
    apart: np.ndarray
    own: np.ndarray


class Grouping(NamedTuple):
    """What takes time to find of clusters.

    Attributes:
        centres: float32 (clusters, k).
        order: int64 (n,), the points, those of a cluster next to each other.
        begin: int64 (clusters,), where each begins in that order.
    """

    centres: np.ndarray
    order: np.ndarray
    begin: np.ndarray


class Clusters:
    """Points grouped around centres (k-means).

    Args:
        points: float32 (n, k), n >= 1.
        known: their `grouping`, found earlier; None: it is found.

    Attributes:
        grouping: of the points.
        sizes: int64 (clusters,), points of each.
    """

    def __init__(self, points: np.ndarray, known: Grouping | None = None) -> None:
        self.grouping = known or self._grouped(points)
        self._centres, self._order, begin = self.grouping
        self._squares = np.einsum("ij,ij->i", self._centres, self._centres)
        self._begin = np.append(begin, len(points))
        self._points = points[self._order]
        self._norms = np.einsum("ij,ij->i", self._points, self._points)
        self.sizes = np.diff(self._begin)
        away = self._points - np.repeat(self._centres, self.sizes, axis=0)
        self._radii = np.sqrt(np.maximum.reduceat(np.einsum("ij,ij->i", away, away), begin)) * np.float32(1 + 1e-5)

    @classmethod
    def _grouped(cls, points: np.ndarray) -> Grouping:
        count = max(1, min(_CLUSTERS, len(points) // _SMALLEST))
        centres = points[:: -(-len(points) // count)]
        sample = points[:: max(1, len(points) // (_SAMPLE * count))]
        for some in [*[sample] * (_ROUNDS - 1), points]:
            member = cls._nearest(some, centres)
            order = np.argsort(member, kind="stable")
            begin = _beginnings(member[order])
            sums = np.add.reduceat(some[order], begin, axis=0)
            centres = sums / np.diff(begin, append=len(some))[:, None].astype(np.float32)
        # The last means are those of the members; a centre that lost all of its points is gone.
        return Grouping(centres, order, begin)

    @staticmethod
    def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
        nearest: np.ndarray = (np.einsum("ij,ij->i", centres, centres) - 2 * (points @ centres.T)).argmin(axis=1)
        return nearest

    def places(self, queries: np.ndarray) -> Places:
        """Where queries (m, k) lie."""
        squares = np.einsum("ij,ij->i", queries, queries)
        apart = queries @ self._centres.T
        apart *= -2
        apart += self._squares
        own = apart.argmin(axis=1)
        # Rounded down: a longer one would not be a bound.
        error = np.float32(4 * queries.shape[1] * 2**-23)
        apart += (1 - error) * squares[:, None] - error * self._squares
        return Places(queries, squares, np.sqrt(np.maximum(apart, 0, out=apart), out=apart), own)

    def likely(self, places: Places) -> np.ndarray:
        """For each query the index of the nearest point of its own cluster, int64 (m,), up to rounding."""
        result = np.empty(len(places.own), np.int64)
        order = np.argsort(places.own, kind="stable")
        begin = _beginnings(places.own[order])
        for number, rows in zip(places.own[order[begin]], np.split(order, begin[1:]), strict=True):
            part = slice(self._begin[number], self._begin[number + 1])
            products = places.queries[rows] @ self._points[part].T
            products *= -2
            products += self._norms[part]
            result[rows] = self._order[part][products.argmin(axis=1)]
        return result

    def near(self, places: Places, reached: np.ndarray) -> np.ndarray:
        """Which clusters may hold a point nearer than ``reached``, float32 (m,): bool (m, clusters)."""
        near: np.ndarray = places.apart - self._radii <= reached[:, None] * np.float32(1 + 1e-5)
        return near

    def pairs(self, places: Places, near: np.ndarray, limit: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Queries and points, int64 (pairs,) each, whose squared distance is at most ``limit``.

        Args:
            places: of the queries.
            near: bool (m, clusters), where to look.
            limit: float32 (m,), less the squared norms of the queries; rounding errors have to be in it.
        """
        for number in np.flatnonzero(near.any(axis=0)):
            rows = np.flatnonzero(near[:, number])
            part = slice(self._begin[number], self._begin[number + 1])
            products = places.queries[rows] @ self._points[part].T
            products *= -2
            products += self._norms[part]
            row, column = np.nonzero(products <= limit[rows, None])
            yield rows[row], self._order[part][column]
