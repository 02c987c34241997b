"""Scores of photographs after a lesson, from their farthest patches and without looking at them again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from defectflow.inspection.held_out import HeldOut
from defectflow.learning.lessons import Farthest, Lesson, thinned
from defectflow.methods.numpy_detector import pool
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.methods.patchcore.known_defects import toward_defects

PARTS = 5  # that the photographs people spoke about are left out in
MOST_DEFECTS = 2000


class Taught(NamedTuple):
    """Patches learned from people, of each scale float32 (m, d): good ones, and those of defects."""

    good: list[np.ndarray]
    defects: list[np.ndarray]


class Scored(NamedTuple):
    """Photographs to score again.

    Attributes:
        scales: their patches of each scale, those of all photographs one after the other.
        owners: of each scale int64 (k,): which photograph a patch is of, ascending.
        counts: int64 (n,), patches on the part, at the finest scale.
        units: of several scales float64 (n, scales, 2), see `HeldOut`; otherwise None.
    """

    scales: list[Farthest]
    owners: list[np.ndarray]
    counts: np.ndarray
    units: np.ndarray | None


def of_run(held: HeldOut, detector: PatchCore) -> Scored:
    """The photographs of the run."""
    kept, empty = held.kept.astype(np.float32), np.empty(0, np.int64)
    if not detector.combination:
        one = Farthest(detector.comparable(kept), held.distance, held.weight, empty)
        return Scored([one], [held.owner], held.patches, None)
    assert held.position is not None, "several scales have positions"
    scales, owners = [], []
    for scale, own in zip(detector.scales, detector.combination.members(held.position), strict=True):
        patches = scale.comparable(kept[own])
        scales.append(Farthest(patches, held.distance[own], held.weight[own], held.position[own]))
        owners.append(held.owner[own])
    return Scored(scales, owners, held.patches, held.units)


def of_lessons(lessons: Sequence[Lesson], detector: PatchCore) -> Scored:
    """The photographs that people spoke about, at least one."""
    scales, owners = [], []
    for kept in zip(*(one.kept for one in lessons), strict=True):
        owners.append(np.repeat(np.arange(len(lessons)), [len(one.patches) for one in kept]))
        scales.append(Farthest(*(np.concatenate(field) for field in zip(*kept, strict=True))))
    units = np.array([detector.combination.units] * len(lessons)) if detector.combination else None
    return Scored(scales, owners, np.array([one.patches for one in lessons]), units)


def taught_by(lessons: Sequence[Lesson], growth: float, detector: PatchCore) -> Taught:
    """What these lessons teach together; good patches are at most ``growth`` times those of the bank, at each scale."""
    good, defects = list[np.ndarray](), list[np.ndarray]()
    for number, scale in enumerate(detector.scales):
        none = [np.empty((0, scale.dimensions), np.float32)]
        of_good, of_bad = ([one.teaches[number] for one in lessons if one.said.bad == bad] for bad in (False, True))
        good.append(thinned(none + of_good, max(1, round(growth * scale.size))))
        defects.append(thinned(none + of_bad, MOST_DEFECTS))
    return Taught(good, defects)


def rescore(photographs: Scored, taught: Taught, detector: PatchCore, settings: Any) -> np.ndarray:
    """Raw scores float64 (n,) with what was taught."""
    distances = []
    for scale, kept, good, defects in zip(detector.scales, photographs.scales, *taught, strict=True):
        distance = kept.distance
        if len(good) and len(distance):
            distance = np.minimum(distance, scale.between(kept.patches, good))
        if len(defects) and len(distance):
            distance = toward_defects(distance, scale.between(kept.patches, defects))
        distances.append(distance)
    counts = photographs.counts
    firsts = [pairwise(np.searchsorted(owner, np.arange(len(counts) + 1))) for owner in photographs.owners]
    scores = np.empty(len(counts))
    for number, spans in enumerate(zip(*firsts, strict=True)):
        begin, end = spans[0]
        own = distances[0][begin:end]
        if detector.combination:
            assert photographs.units is not None, "several scales have units"
            parts = [slice(*span) for span in spans]
            position = np.concatenate([one.position[p] for one, p in zip(photographs.scales, parts, strict=True)])
            found = [distance[p] for distance, p in zip(distances, parts, strict=True)]
            own = detector.combination.with_units(photographs.units[number]).combined(found, position)
        if settings.score == "max" and not detector.combination:
            winner = int(own.argmax())
            scores[number] = photographs.scales[0].weight[begin + winner] * own[winner]
        else:  # the others are nearer than these and count for nothing
            scores[number] = pool(np.pad(own, (0, counts[number] - len(own))), settings)
    return scores


def left_out(lessons: Sequence[Lesson], growth: float, detector: PatchCore, settings: Any) -> np.ndarray:
    """Scores of the lessons' own photographs, each with what the others taught: float64 (n,).

    In PARTS parts by content, so that the order of the table does not matter.
    """
    scores = np.empty(len(lessons))
    part = parts(lessons)
    for number in np.unique(part):
        others = [one for one, own in zip(lessons, part, strict=True) if own != number]
        these = [one for one, own in zip(lessons, part, strict=True) if own == number]
        taught = taught_by(others, growth, detector)
        scores[part == number] = rescore(of_lessons(these, detector), taught, detector, settings)
    return scores


def parts(lessons: Sequence[Lesson]) -> np.ndarray:
    """The part of each lesson, int64 (n,); rows about one photograph are in the same."""
    names = sorted({one.said.sha256 for one in lessons})
    return np.array([names.index(one.said.sha256) % PARTS for one in lessons])
