"""Scores of photographs after a lesson, from their farthest patches and without looking at them again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from defectflow.inspection.held_out import HeldOut
from defectflow.learning.lessons import Lesson, thinned
from defectflow.methods.numpy_detector import pool
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.methods.patchcore.known_defects import toward_defects

PARTS = 5  # that the photographs people spoke about are left out in
MOST_DEFECTS = 2000


class Taught(NamedTuple):
    """Patches learned from people, float32 (m, d) each: good ones, and those of defects."""

    good: np.ndarray
    defects: np.ndarray


class Scored(NamedTuple):
    """Photographs to score again: patches float32 (k, d), owner int64 (k,), distance, weight; counts int64 (n,)."""

    patches: np.ndarray
    owner: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    counts: np.ndarray


def of_run(held: HeldOut, detector: PatchCore) -> Scored:
    """The photographs of the run."""
    return Scored(
        detector.comparable(held.kept.astype(np.float32)), held.owner, held.distance, held.weight, held.patches
    )


def of_lessons(lessons: Sequence[Lesson]) -> Scored:
    """The photographs that people spoke about, at least one."""
    owner = np.repeat(np.arange(len(lessons)), [len(one.kept) for one in lessons])
    fields = (np.concatenate([getattr(one, name) for one in lessons]) for name in ("kept", "distance", "weight"))
    patches, distance, weight = fields
    return Scored(patches, owner, distance, weight, np.array([one.patches for one in lessons]))


def taught_by(lessons: Sequence[Lesson], most: int, dimensions: int) -> Taught:
    """What these lessons teach together, with at most ``most`` good patches."""
    none = [np.empty((0, dimensions), np.float32)]
    good, defects = ([one.teaches for one in lessons if one.said.bad == bad] for bad in (False, True))
    return Taught(thinned(none + good, most), thinned(none + defects, MOST_DEFECTS))


def rescore(photographs: Scored, taught: Taught, detector: PatchCore, settings: Any) -> np.ndarray:
    """Raw scores float64 (n,) with what was taught."""
    patches, owner, distance, weight, counts = photographs
    if len(taught.good):
        distance = np.minimum(distance, detector.between(patches, taught.good))
    if len(taught.defects):
        distance = toward_defects(distance, detector.between(patches, taught.defects))
    first = np.searchsorted(owner, np.arange(len(counts) + 1))
    scores = np.empty(len(counts))
    for number, (begin, end) in enumerate(pairwise(first)):
        own = distance[begin:end]
        if settings.score == "max":
            winner = begin + int(own.argmax())
            scores[number] = weight[winner] * distance[winner]
        else:  # the others are nearer than these and count for nothing
            scores[number] = pool(np.pad(own, (0, counts[number] - len(own))), settings)
    return scores


def left_out(lessons: Sequence[Lesson], most: int, detector: PatchCore, settings: Any) -> np.ndarray:
    """Scores of the lessons' own photographs, each with what the others taught: float64 (n,).

    In PARTS parts by content, so that the order of the table does not matter.
    """
    scores = np.empty(len(lessons))
    part = parts(lessons)
    for number in np.unique(part):
        others = [one for one, own in zip(lessons, part, strict=True) if own != number]
        these = [one for one, own in zip(lessons, part, strict=True) if own == number]
        taught = taught_by(others, most, these[0].kept.shape[1])
        scores[part == number] = rescore(of_lessons(these), taught, detector, settings)
    return scores


def parts(lessons: Sequence[Lesson]) -> np.ndarray:
    """The part of each lesson, int64 (n,); rows about one photograph are in the same."""
    names = sorted({one.said.sha256 for one in lessons})
    return np.array([names.index(one.said.sha256) % PARTS for one in lessons])
