"""Which photographs to label first: those whose labels say most about the threshold.

Few labels are best spent near the threshold (uncertainty sampling; B. Settles, Active learning literature survey, 2009,
section 3.1), as long as it is roughly known: the first few go from low to high scores. A photograph that looks almost
like one that is chosen or labelled already says little more, and comes later (section 5.3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from defectflow.decision.chosen_threshold import calibrate

SPREAD = 5  # labels from low to high scores before the threshold is trusted
LOWEST = 0.3  # share of the photographs, by score, that lie below the lowest of these
ALIKE = 0.5  # times the usual distance to the most similar photograph: as of one burst
WHY = {"spread": "from low to high scores, to find the threshold", "near": "near the threshold"}


class Next(NamedTuple):
    """A photograph to label: its row, and the key of WHY."""

    row: int
    why: str


def next_labels(score: np.ndarray, label: np.ndarray, threshold: float, look: np.ndarray, count: int) -> list[Next]:
    """The photographs to label, the most useful first.

    Args:
        score: float (n,), anomaly scores; NaN without one.
        label: float (n,), 0 good, 1 bad, NaN unknown.
        threshold: of the run; NaN for none. With labels of both kinds, the one with the largest F1 on these is used.
        look: float (n, d), what each photograph looks like: the more alike, the nearer.
        count: how many, at most.
    """
    labelled = np.flatnonzero(~np.isnan(label) & np.isfinite(score))
    if len(set(label[labelled].tolist())) == 2:
        threshold = calibrate(score[labelled], label[labelled].astype(int)).value
    pool = np.flatnonzero(np.isnan(label) & np.isfinite(score))
    ranked = pool[score[pool].argsort(kind="stable")]
    chosen: list[Next] = []
    if len(ranked) and (missing := SPREAD - len(labelled)) > 0:
        places = np.unique(np.linspace(LOWEST * len(ranked), len(ranked) - 1, min(missing, count, len(ranked))))
        chosen += [Next(int(ranked[int(place)]), "spread") for place in places]
    taken = {one.row for one in chosen}
    middle = np.searchsorted(score[ranked], threshold) - 0.5 if math.isfinite(threshold) else len(ranked)
    near = [int(ranked[k]) for k in np.abs(np.arange(len(ranked)) - middle).argsort(kind="stable")]
    near = [row for row in near if row not in taken]
    near = near[: 5 * count]
    usual = float(np.median([_nearest(look, row, ranked.tolist()) for row in near])) if near else 0.0
    known, later = [*taken, *labelled.tolist()], list[int]()
    for row in near:
        if len(chosen) == count:
            break
        if _nearest(look, row, known) < ALIKE * usual:
            later.append(row)
            continue
        chosen.append(Next(row, "near"))
        known.append(row)
    return chosen + [Next(row, "near") for row in later[: count - len(chosen)]]


def _nearest(look: np.ndarray, row: int, others: list[int]) -> float:
    """Distance of the look of a photograph from the nearest of others; infinity where there is none."""
    distances = np.linalg.norm(look[[other for other in others if other != row]] - look[row], axis=1)
    return float(np.nanmin(distances)) if np.isfinite(distances).any() else math.inf
