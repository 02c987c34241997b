"""Which photographs of a mostly good set stand far from all others.

A forward search, as robust statistics use it against outliers that hide each other (N. Billor, A. Hadi, P. Velleman,
BACON: blocked adaptive computationally efficient outlier nominators, 2000): begin with the photographs that most others
resemble, and let in what is no farther from these than they are from each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from defectflow.decision.outlying_good import tail_level
from defectflow.labelling.photograph_distances import Compared

FEWEST = 10  # photographs that can say which of them stand far from the others
# Share of the set that has to show something similar before it counts as usual. Up to this share of bad photographs
# the search finds those that are alike.
SHARE = 0.3
# If the distance to that share of the set is at most this times the distance to the nearest photograph, in half of the
# photographs, they are one cloud, and what is far from it is unusual. Otherwise they are many different views: a
# photograph that is far from most others is then as usual as any, and to leave it out would cost its view: far is only
# what stands out by both distances.
COMPACT = 1.5
STANDS_OUT = 0.3  # as in `outlying_good.LEVELS`


class Far(NamedTuple):
    """What :func:`far_photographs` returns.

    Attributes:
        distance: float (n,), of each photograph from the others; NaN where there are none to compare with.
        limit: what is farther stands far.
        far: bool (n,).
        compact: whether the photographs are one cloud.
    """

    distance: np.ndarray
    limit: float
    far: np.ndarray
    compact: bool


def far_photographs(compared: Compared, rows: np.ndarray | None = None) -> Far:
    """Find the photographs that stand far from all others.

    Args:
        compared: distances between them.
        rows: bool (n,), the photographs to look at, which hold all references; None: all. The others are never far,
            and their distances are those from the photographs that are not.
    """
    rows = np.ones(len(compared.image_ids), bool) if rows is None else rows
    every = np.ones(len(compared.references), bool)
    usual = compared.farthest_cell(every, lambda count: max(2, round(SHARE * count)))
    nearest = compared.farthest_cell(every, lambda count: 1)
    known = rows & np.isfinite(usual) & (nearest > 0)
    count, none = int(known.sum()), np.zeros(len(rows), bool)
    if count < FEWEST:
        return Far(nearest, np.inf, none, False)
    compact = bool(np.median(usual[known] / nearest[known]) <= COMPACT)
    ranked = np.flatnonzero(known)[usual[known].argsort(kind="stable")]
    inner = ranked[: count - round(SHARE * count)]
    if compact:
        core = none.copy()
        core[inner] = True
        distance = compared.farthest_cell(core[compared.references], lambda count: 1)
        inside = distance[core & np.isfinite(distance)]
        # The distances of the core end where it was cut: as far as one of so many would lie by their tail is usual too.
        limit = max(float(inside.max()), tail_level(inside, 1 / count))
    else:
        distance, limit = usual, _limit(usual[known])
        # By both: photographs of one view among many are all as far from the other views.
        known &= nearest > _limit(nearest[known])
    return Far(distance, limit, known & (distance > limit), compact)


def _limit(distances: np.ndarray) -> float:
    """The largest of distances, float (m,), that does not stand out from the smaller ones."""
    scores = np.sort(distances)
    last = len(scores) - round(SHARE * len(scores))
    while last < len(scores) and scores[last] <= tail_level(scores[:last], STANDS_OUT / len(scores)):
        last += 1
    return float(scores[last - 1])
