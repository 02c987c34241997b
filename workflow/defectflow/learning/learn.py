"""Teach a bundle by a table of feedback, and take it back.

What was learned lies in a folder of the bundle, ``taught-VERSION``, with the parent's bundle.json; the parent's own
files stay as they are. Each lesson starts from the parent and the whole table. Replacing bundle.json is the one step
that puts a lesson, or the parent, into force.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic, atomic_dir, read_json, sha256_of, write_json
from defectflow.inspection.bundle_files import MANIFEST, Bundle, entry_of, read_bundle
from defectflow.inspection.held_out import HeldOut, read_held_out
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.mask_and_score import read_bank, settings_of
from defectflow.inspection.runtimes import pick
from defectflow.learning.lessons import NEAR_PEAK, Lesson, lesson
from defectflow.learning.rescoring import Taught, of_run
from defectflow.learning.threshold_after_lessons import Outcome, outcome_of
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.methods.patchcore.known_defects import DEFECTS, GOOD_AFTER_ALL
from defectflow.methods.patchcore.scales import named
from defectflow.sources.feedback import Feedback, read_feedback

PREFIX = "taught-"
ALIKE = 0.5  # a patch said to be good is suspicious, if a known defect is nearer than this share of what good ones are


@dataclass(frozen=True)
class Parent:
    """The bundle before anything was learned from people: as a bundle, and the bytes of its bundle.json."""

    bundle: Bundle
    manifest: bytes


def parent_of(folder: Path) -> Parent:
    """The parent of a bundle, which may be the bundle itself.

    Raises:
        UserError: it is a .zip, or not a complete bundle.
    """
    if folder.is_file():
        raise UserError(f"{folder}: cannot teach a .zip (unpack it, teach the folder, pack it again)")
    bundle = read_bundle(folder)
    taught = bundle.settings.get("taught")
    path = bundle.path(f"{PREFIX}{taught['version']}/parent.json") if taught else folder / MANIFEST
    return Parent(Bundle(folder, read_json(path)), path.read_bytes())


def learn(folder: Path, table: Path, force: bool = False, progress: Any = lambda rows: rows, say: Any = print) -> None:
    """Teach a bundle by all rows of a table, in place of whatever it was taught before.

    Args:
        folder: the bundle.
        table: see `feedback.read_feedback`.
        force: also where the F1 of the run's held-out photographs falls.
        progress: wraps the rows while photographs are read.
        say: is given each line to print.

    Raises:
        UserError: bundle or table are not fit for it, or the lesson makes the inspector worse; nothing has changed.
    """
    parent = parent_of(folder)
    bundle = parent.bundle
    method = bundle.settings["detector"]["method"]
    if method != PatchCore.name:
        raise UserError(f"{folder}: its detector {method} cannot be taught (bundle a run with patchcore)")
    tensors, metadata = read_bank(bundle)
    held, rows = read_held_out(bundle), read_feedback(table)
    refuse_photographs_of_the_run(rows, held, table)
    settings = settings_of(bundle, "detector")
    detector = PatchCore(tensors, metadata, settings)
    if detector.combination and held.position is None:
        raise UserError(f"{folder}: too old to teach several scales (make the bundle again)")
    inspector = Inspector(bundle, pick("auto", bundle), "fp32", 1, 1)
    lessons = [lesson(row, inspector, detector, settings) for row in progress(rows)]
    lessons.sort(key=lambda one: (one.said.sha256, one.said.box or (), str(one.said.mask or "")))
    for line in suspicions(lessons, held, detector, bundle.settings["threshold"]["value"]):
        say(line)
    outcome = outcome_of(lessons, held, bundle.settings, detector, settings)
    for line in told(lessons, outcome, bundle.settings["threshold"]["value"]):
        say(line)
    if outcome.worse and not force:
        raise UserError(
            f"{folder}: not changed, because it would judge the held-out photographs of its run worse (look at the "
            "rows of the table again, or use --force)"
        )
    say(f"{folder}: version {write(parent, table, lessons, outcome)}")


def forget(folder: Path) -> str:
    """Make a bundle what it was before it was taught, byte for byte; returns a line to print."""
    parent = parent_of(folder)
    replace_manifest(folder, parent.manifest, keep=None)
    return f"{folder}: as it was before anybody taught it"


def refuse_photographs_of_the_run(rows: Iterable[Feedback], held: HeldOut, table: Path) -> None:
    """Raise a UserError for a photograph that the run learned from or was measured on."""
    for row in rows:
        if (name := held.name_of(row.sha256)) is not None:
            called = f" ({name})" if name else ""
            raise UserError(
                f"{table}, line {row.line}: {row.path.name} is a photograph of the run{called}: correct its label "
                "there, run again and make the bundle again"
            )


def suspicions(lessons: Sequence[Lesson], held: HeldOut, detector: PatchCore, threshold: float) -> list[str]:
    """A line for each photograph that is said to be good and looks like a known defect.

    Known are the defects of the table, and what is farthest from good in the bad photographs that the run found.
    """
    run, found = of_run(held, detector), dict[int, str]()
    for scale, (bank, photographs, owner) in enumerate(zip(detector.scales, run.scales, run.owners, strict=True)):
        names = [(one.said.path.name, one.teaches[scale]) for one in lessons if one.said.bad]
        for number, photograph in enumerate(held.photographs):
            own = owner == number
            if photograph["label"] == 1 and held.score[number] >= threshold and own.any():
                far = photographs.distance[own] >= NEAR_PEAK * photographs.distance[own].max()
                names.append((photograph["name"], photographs.patches[own][far]))
        names = [(name, patches) for name, patches in names if len(patches)]
        for row, one in enumerate(lessons):
            if one.said.bad or not names or row in found or not len(one.kept[scale].distance):
                continue
            peak = int(one.kept[scale].distance.argmax())
            strangest = one.kept[scale].patches[peak : peak + 1]
            away = [float(bank.between(strangest, patches)[0]) for _, patches in names]
            nearest = int(np.argmin(away))
            if away[nearest] < ALIKE * one.kept[scale].distance[peak]:
                found[row] = names[nearest][0]
    return [
        f"warning: {one.said.path.name} (line {one.said.line}) is said to be good, and where it is strangest it looks "
        f"like {found[row]}, which is bad: please look at it again"
        for row, one in enumerate(lessons)
        if row in found
    ]


def told(lessons: Sequence[Lesson], outcome: Outcome, threshold: float) -> list[str]:
    """What was learned and what it does, for people."""
    bad, taught = sum(one.said.bad for one in lessons), outcome.taught
    now = outcome.threshold["value"]
    return [
        f"{counted(len(lessons), 'row')} ({len(lessons) - bad} good, {bad} bad): {many(taught.good)} patches are good "
        f"after all, {many(taught.defects)} are of defects; threshold {threshold:.4g} -> {now:.4g}",
        "the run's photographs, of which the table has none:",
        f"  {errors_text(outcome.before)}; now {errors_text(outcome.after)}",
        "those of the table, each judged without its own row:",
        f"  {errors_text(outcome.own_before)}; now {errors_text(outcome.own_after)}",
    ]


def many(patches: Sequence[np.ndarray]) -> int:
    """Number of patches of all scales."""
    return sum(map(len, patches))


def errors_text(found: dict[str, float | int | None]) -> str:
    """`threshold_after_lessons.errors` in words."""
    f1 = "" if found["f1"] is None else f", F1 {found['f1']:.3f}"
    return f"{found['false_alarms']} false alarms of {found['good']}, {found['missed']} missed of {found['bad']}{f1}"


def write(parent: Parent, table: Path, lessons: Sequence[Lesson], outcome: Outcome) -> str:
    """Put a lesson into force; returns the version, which depends on parent, table, photographs and masks."""
    folder, content = parent.bundle.folder, table.read_bytes()
    digest = hashlib.sha256(parent.manifest + content + "".join(one.said.sha256 for one in lessons).encode())
    for one in lessons:  # the table names the mask alone, which may have been painted anew
        if one.said.mask:
            digest.update(sha256_of(one.said.mask).encode())
    version = f"{len(lessons)}-{digest.hexdigest()[:8]}"
    name = f"{PREFIX}{version}"
    settings = dict(parent.bundle.settings)
    if read_bundle(folder).settings.get("taught", {}).get("version") == version:
        return version
    with atomic_dir(folder / name) as target:
        (target / "parent.json").write_bytes(parent.manifest)
        (target / "feedback.csv").write_bytes(content)
        with atomic(target / "patches.safetensors") as temporary:
            save_file(tensors_of(outcome.taught), temporary)
        write_json(target / "learned.json", {"version": version, **record(lessons, outcome, settings)})
    settings["files"] = settings["files"] | {
        f"{name}/{path.name}": entry_of(path) for path in sorted((folder / name).iterdir())
    }
    settings["threshold"] = settings["threshold"] | outcome.threshold
    settings["review"] = list(outcome.review) if outcome.review else settings["review"]
    key = "taught" if len(outcome.taught.good) == 1 else "taught_scales"
    settings["detector"] = settings["detector"] | {key: True}  # refused by versions that do not know of it
    settings["taught"] = {
        "version": version,
        "rows": len(lessons),
        "parent": hashlib.sha256(parent.manifest).hexdigest(),
        "patches": f"{name}/patches.safetensors",
    }
    replace_manifest(folder, (json.dumps(settings, indent=2, allow_nan=False) + "\n").encode(), keep=name)
    return version


def tensors_of(taught: Taught) -> dict[str, np.ndarray]:
    """What was taught as tensors of a bank, see `bank_in_numpy.PatchCore`."""
    tensors = dict[str, np.ndarray]()
    for scale, (good, defects) in enumerate(zip(*taught, strict=True)):
        tensors |= named({GOOD_AFTER_ALL: good, DEFECTS: defects}, scale)
    return tensors


def record(lessons: Sequence[Lesson], outcome: Outcome, parent: dict[str, Any]) -> dict[str, Any]:
    """Content of learned.json, but for the version."""
    value, now = parent["threshold"]["value"], outcome.threshold["value"]
    return {
        "threshold": {"before": value, "after": now},
        "photographs_of_the_run": {"before": outcome.before, "after": outcome.after},
        "photographs_of_the_table": {"before": outcome.own_before, "after": outcome.own_after},
        "meaning": "before and after: errors on held-out photographs. Those of the run are in no row of the table; "
        "each is judged by a bank and a threshold without it. Those of the table were chosen because they were wrong, "
        "so that they improve by chance too; after: each is judged without what it taught itself.",
        "patches": {"good_after_all": many(outcome.taught.good), "defects": many(outcome.taught.defects)},
        "scores_of_the_run": outcome.scores.tolist(),
        "rows": [
            {
                "line": one.said.line, "filename": one.said.path.name, "sha256": one.said.sha256,
                "said": "bad" if one.said.bad else "good", "score_before": one.score, "score_after": float(score),
            }
            for one, score in zip(lessons, outcome.own_scores, strict=True)
        ],
    }  # fmt: skip


def replace_manifest(folder: Path, content: bytes, keep: str | None) -> None:
    """Replace bundle.json, then remove what earlier lessons left, but ``keep``."""
    with atomic(folder / MANIFEST) as temporary:
        temporary.write_bytes(content)
    for path in folder.glob(f"{PREFIX}*"):
        if path.name != keep:
            shutil.rmtree(path)
