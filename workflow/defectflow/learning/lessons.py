"""What one photograph teaches: patches that are good after all, or patches of a defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from defectflow.annotations.ground_truth import Ambiguous, choose, profile, read
from defectflow.core.files import UserError
from defectflow.images.read_write import read_photograph
from defectflow.inspection.inspector import Inspector
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.sources.feedback import Feedback

KEPT = 100  # patches that a photograph is scored by again, or twice as many as its score averages
GOOD_EACH = 64  # patches that a photograph adds to what is good
CANDIDATES = 1024  # among so many, the farthest from the bank
DEFECT_EACH = 16  # patches that a photograph adds to what is known as a defect
NEAR_PEAK = 0.8  # share of the largest distance from which patches count as the defect, where nobody said where it is
IN_BOX = 0.5  # the same of those under a box, which holds good patches as well


class Farthest(NamedTuple):
    """The patches of one scale that a photograph is scored by again.

    Attributes:
        patches: float32 (k, d), `PatchCore.comparable`.
        distance, weight: float32 (k,), see `PatchCore.farthest`.
        position: of several scales int64 (k,), their cells in the grids of all scales, ascending; otherwise empty.
    """

    patches: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """A photograph that a person spoke about.

    Attributes:
        said: what.
        score: raw score by the parent.
        patches: number of patches on the part, of several scales at the finest.
        kept: of each scale: the patches that are farthest from the bank, the farthest first; of several scales those
            that the largest values of the map come from.
        teaches: of each scale float32 (m, d), `PatchCore.comparable`: what joins the good ones or the defects.
    """

    said: Feedback
    score: float
    patches: int
    kept: list[Farthest]
    teaches: list[np.ndarray]


def lesson(said: Feedback, inspector: Inspector, detector: PatchCore, settings: Any) -> Lesson:
    """Embed a photograph and take what it teaches.

    Args:
        said: about it.
        inspector: of the parent bundle.
        detector: of the same, without anything learned from people.
        settings: of the detector.

    Raises:
        UserError: the photograph or mask cannot be read, the part is not in it, or the box is not on the part.
    """
    photo = read_photograph(said.path, inspector.settings["depth"])
    ready = inspector.ready(photo)
    if ready.part and not ready.part.record["present"]:
        raise UserError(f"{said.path}: no part was found in it (line {said.line}: take it out)")
    patches, cells = inspector.embed(ready.item), ready.item.cells
    score, heat = detector.judge(patches, cells)
    averaged = 0 if settings.score == "max" else round(settings.top_fraction * len(heat))
    count = max(KEPT, 2 * averaged)

    def defect(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which of some cells, their values falling, are the defect: int64 (m,), indices of ``rows``."""
        inside = under(said, photo.shape[:2], ready.item.affine, cells[rows], inspector.settings["network"])
        level = values[inside].max() * (NEAR_PEAK if inside.all() else IN_BOX)
        found: np.ndarray = np.flatnonzero(inside & (values >= level))
        return found

    if detector.combination:
        kept = kept_of_scales(detector, patches, cells, count)
        if said.bad:
            rows = np.argsort(-heat, kind="stable")[: max(CANDIDATES, count)]
            teaches = seen_at(detector, patches, cells, rows[defect(heat[rows], rows)])
        else:
            parts = zip(detector.scales, detector.combination.split(cells), strict=True)
            teaches = [unlike(scale, patches[own]) for scale, (own, _) in parts]
        return Lesson(said, float(score), len(heat), kept, teaches)
    rows, distances, weights = detector.farthest(patches, max(CANDIDATES, count))
    far = detector.comparable(patches)[rows]
    taught = defect(distances, rows)[:DEFECT_EACH] if said.bad else spread(far, distances, GOOD_EACH)
    kept = [Farthest(far[:count], distances[:count], weights[:count], np.empty(0, np.int64))]
    return Lesson(said, float(score), len(heat), kept, [far[taught]])


def kept_of_scales(detector: PatchCore, patches: np.ndarray, cells: np.ndarray, count: int) -> list[Farthest]:
    """`Lesson.kept` of several scales, where ``count`` values of the map are kept."""
    assert detector.combination is not None, "there are several scales"
    rows, distances = detector.deciding(patches, cells, count)
    kept = []
    for scale, (own, _) in zip(detector.scales, detector.combination.split(cells[rows]), strict=True):
        weight = np.ones(len(rows[own]), np.float32)
        kept.append(Farthest(scale.comparable(patches[rows[own]]), distances[own], weight, cells[rows[own]]))
    return kept


def unlike(detector: PatchCore, patches: np.ndarray) -> np.ndarray:
    """What a photograph that is good after all adds to the bank of one scale, from its patches there (p, d)."""
    rows, distances, _ = detector.farthest(patches, CANDIDATES)
    far = detector.comparable(patches)[rows]
    adds: np.ndarray = far[spread(far, distances, GOOD_EACH)]
    return adds


def seen_at(detector: PatchCore, patches: np.ndarray, cells: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """What each scale sees of a defect: the patches at its place, without those that look good.

    A patch looks good where it is nearer to the bank than one in twenty good ones: a defect that a scale does not show
    would be known there by what good parts have in the same place. Where no scale shows it, the finest learns it.

    Args:
        detector: of several scales.
        patches, cells: of the photograph, see `Detector.judge`.
        rows: int64 (k,), the patches of the finest scale that are the defect, the worst first.
    """
    assert detector.combination is not None, "there are several scales"
    seen, whole = [], []
    parts = zip(detector.scales, detector.combination.split(cells), detector.combination.units, strict=True)
    for number, (scale, (own, where), (middle, above)) in enumerate(parts):
        at = detector.combination.holding(cells[rows], number)
        at = at[np.sort(np.unique(at, return_index=True)[1])]
        place = np.searchsorted(where, at)
        place = place[(place < len(where)) & (where[np.minimum(place, len(where) - 1)] == at)]
        there = patches[own][place]
        shown = scale.distances(there) > middle + above
        seen.append(scale.comparable(there[shown][:DEFECT_EACH]))
        whole.append(scale.comparable(there[:DEFECT_EACH]))
    return seen if any(map(len, seen)) else [whole[0], *seen[1:]]


def under(
    said: Feedback, size: tuple[int, int], affine: np.ndarray, cells: np.ndarray, network: dict[str, Any]
) -> np.ndarray:
    """Which cells lie under the box or the mask of a row, at least one: bool (p,); all of them without either.

    Args:
        said: the row.
        size: (height, width) of the photograph.
        affine: float64 (2, 3), from pixels of the network's input to those of the photograph.
        cells: int64 (p,), flat indices in the grid.
        network: "grid" and "input_size", (height, width) each.

    Raises:
        UserError: the box or mask is outside of the photograph or not on the part.
    """
    if not said.box and not said.mask:
        return np.ones(len(cells), bool)
    grid, shape = network["grid"], network["input_size"]
    rows, columns = np.divmod(cells, grid[1])
    centres = np.stack([(columns + 0.5) * shape[1] / grid[1] - 0.5, (rows + 0.5) * shape[0] / grid[0] - 0.5])
    x, y = affine[:, :2] @ centres + affine[:, 2:]
    if said.box:
        x0, y0, x1, y1 = said.box
        if x1 > size[1] or y1 > size[0]:
            wide = f"{size[1]} x {size[0]}"
            raise UserError(f"{said.path}: the box of line {said.line} is outside of its {wide} pixels (correct it)")
        inside: np.ndarray = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        if not inside.any():  # smaller than a cell
            away = np.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2)
            reach = abs(affine[0, 0]) * shape[1] / grid[1]
            inside = away <= min(away.min(), reach)
    else:
        assert said.mask
        try:
            mask = read(said.mask, choose([profile(said.mask)]))  # as the workflow reads ground truth
        except Ambiguous as error:
            raise UserError(f"{said.mask}: {error} (line {said.line})") from None
        if mask.shape != size:
            raise UserError(
                f"{said.mask}: not of the size of its photograph, {size[1]} x {size[0]} pixels (line {said.line})"
            )
        at = np.rint([y, x]).astype(int)
        at = np.clip(at, 0, np.array(size)[:, None] - 1)
        inside = mask[at[0], at[1]]
    if not inside.any():
        raise UserError(f"{said.path}: nothing of the part is under the box or mask of line {said.line} (correct it)")
    return inside


def spread(patches: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
    """Rows of at most ``count`` patches that cover all, beside what is known: greedy k-center (Gonzalez 1985).

    Args:
        patches: float32 (p, d).
        distance: float32 (p,), of each to what is known.
        count: how many.
    """
    left, rows = distance.astype(np.float32).copy(), []
    for _ in range(min(count, len(patches))):
        row = int(left.argmax())
        if left[row] <= 0:
            break
        rows.append(row)
        np.minimum(left, np.linalg.norm(patches - patches[row], axis=1), out=left)
    return np.array(rows, np.int64)


def thinned(patches: Sequence[np.ndarray], most: int) -> np.ndarray:
    """At most ``most`` of all these patches (m, d each), those that cover the others best: float32 (n, d)."""
    whole: np.ndarray = np.concatenate(patches)
    if len(whole) <= most:
        return whole
    kept: np.ndarray = whole[np.sort(spread(whole, np.full(len(whole), np.inf), most))]
    return kept
