"""What a lesson changes: the threshold chosen again, and errors on held-out photographs before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from defectflow.core.files import UserError
from defectflow.decision.verdict_rule import decide, nine_digits
from defectflow.inspection.held_out import HeldOut
from defectflow.learning.lessons import Lesson
from defectflow.learning.rescoring import Taught, left_out, of_run, parts, rescore, taught_by
from defectflow.methods.patchcore.bank_in_numpy import PatchCore

COPIES = 20  # of a photograph of the run, so that whole numbers of copies stand for weights
BALANCED = ("f1_adaptive", "youden")  # strategies that weigh misses against false alarms and promise no rate
WORTH = 3  # photographs of the run that a new threshold of these has to judge better than the one before
GROWTH = 0.1  # by which the good patches of people may enlarge a bank


@dataclass(frozen=True)
class Outcome:
    """A lesson and what it does.

    Attributes:
        taught: the patches.
        threshold: {"value", "low", "high"} for new photographs.
        review: limits (low, high) of the review band, or None.
        before, after: `errors` on the photographs of the run, each judged by a threshold chosen without it.
        own_before, own_after: the same on the photographs that people spoke about; after: each without its own lesson.
        own_scores: float64 (n,), of these, each without its own lesson.
        scores: float64 (m,), of the photographs of the run.
    """

    taught: Taught
    threshold: dict[str, float]
    review: tuple[float, float] | None
    before: dict[str, float | int | None]
    after: dict[str, float | int | None]
    own_before: dict[str, float | int | None]
    own_after: dict[str, float | int | None]
    own_scores: np.ndarray
    scores: np.ndarray

    @property
    def worse(self) -> bool:
        """Whether the F1 of the photographs of the run falls, or without bad ones whether more are false alarms."""
        if self.before["f1"] is None or self.after["f1"] is None:
            return (self.after["false_alarms"] or 0) > (self.before["false_alarms"] or 0)
        return self.after["f1"] < self.before["f1"]


def outcome_of(
    lessons: Sequence[Lesson], held: HeldOut, parent: dict[str, Any], detector: PatchCore, settings: Any
) -> Outcome:
    """Learn from all lessons and choose the threshold again, by the strategy of the run.

    It is chosen on the photographs of the run and on those that people spoke about, each scored without itself (see
    `copies`). With few photographs the best of all thresholds is largely chance: for the strategies BALANCED the one
    before stays, unless another judges WORTH photographs of the run better.

    Args:
        lessons: one or more.
        held: photographs of the run.
        parent: bundle.json of the parent.
        detector: of the parent.
        settings: of the detector.

    Raises:
        UserError: the strategy cannot do with these photographs, or pandas is not installed.
    """
    try:
        from defectflow.decision.chosen_threshold import Threshold, calibrate, nested_calibration
    except ModuleNotFoundError as error:
        raise UserError(
            f"defectflow learn needs {error.name} to choose a threshold (pip install {error.name})"
        ) from None
    strategy, options = parent["threshold"]["strategy"], parent["threshold"]["options"]
    taught = taught_by(lessons, GROWTH, detector)
    said = np.array([int(one.said.bad) for one in lessons])
    own = nine_digits(left_out(lessons, GROWTH, detector, settings))
    old, new = nine_digits(held.score), nine_digits(rescore(of_run(held, detector), taught, detector, settings))
    run_folds = folds_of(held)
    scores, labels = np.concatenate([new, own]), np.concatenate([held.label, said])
    folds = np.array([*run_folds, *(f"people/{part}" for part in parts(lessons))])

    parents = decide(np.array([one.score for one in lessons]), parent["threshold"]["value"]).bad
    try:
        old_nested = nested_calibration(old, held.label, run_folds, strategy, **options)
        before = judged(old, [old_nested[fold].value for fold in run_folds])
        times = copies(held.label, before, said, parents)

        def again(kept: np.ndarray, previous: float) -> Threshold:
            """The threshold chosen on some of the photographs, bool (n + m,), in place of a previous one."""
            found = calibrate(np.repeat(scores, times * kept), np.repeat(labels, times * kept), strategy, **options)
            gain = (times * kept * np.subtract(*(wrong(scores, labels, at) for at in (previous, found.value)))).sum()
            stays = strategy in BALANCED and gain < WORTH * COPIES
            return replace(found, value=previous) if stays else found

        previous = {fold: found.value for fold, found in old_nested.items()}
        value = parent["threshold"]["value"]
        nested = {fold: again(folds != fold, previous.get(fold, value)).value for fold in np.unique(folds)}
        chosen = again(np.ones(len(folds), bool), value)
        review = None
        if held.review:
            many, kinds = np.repeat(scores, times), np.repeat(labels, times)
            edges = [calibrate(many, kinds, name, **{name: held.review[name]}).value for name in ("max_fnr", "max_fpr")]
            values = [chosen.value, *edges]
            review = min(values), max(values)
    except ValueError as error:
        raise UserError(f"{parent['name']}: {strategy}: {error} (add rows to the table)") from None
    count, after = len(old), judged(scores, [nested[fold] for fold in folds])
    return Outcome(
        taught,
        {"value": chosen.value, "low": chosen.low, "high": chosen.high},
        review,
        errors(held.label, before),
        errors(held.label, after[:count]),
        errors(said, parents),
        errors(said, after[count:]),
        own,
        new,
    )


def judged(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Whether photographs are called bad, each by its own threshold: bool (n,)."""
    bad: np.ndarray = decide(scores, np.array(thresholds)).bad
    return bad


def wrong(scores: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Which photographs a threshold judges wrongly, int64 (n,)."""
    found: np.ndarray = (decide(scores, threshold).bad != (labels == 1)).astype(np.int64)
    return found


def copies(label: np.ndarray, called: np.ndarray, said: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """How often each photograph counts where the threshold is chosen, those of the run first: int64 (n + m,).

    People speak of what was judged wrongly. Were each row to count like a photograph of the run, wrong ones would be
    far too many and the threshold too low or too high for all others (benchmarks/learning.py). So rows share the weight
    that the run gives to their kind (bad or good, judged rightly or wrongly): they say what such photographs are like,
    and the run how many there are. A kind that the run does not have weighs as much as half a photograph.

    Args:
        label: int64 (n,), of the photographs of the run.
        called: bool (n,), whether the run calls them bad.
        said: int64 (m,), what people said, 1 bad.
        bad: bool (m,), whether the parent calls those bad.

    >>> copies(np.array([0, 0, 1]), np.array([False, False, True]), np.array([1, 1]), np.array([False, False])).tolist()
    [20, 20, 20, 5, 5]
    """
    kind_of_run, kind_of_row = 2 * label + called, 2 * said + bad
    weight = np.ones(len(label) + len(said))
    kinds = np.concatenate([kind_of_run, kind_of_row])
    for kind in np.unique(kind_of_row):
        weight[kinds == kind] = max((kind_of_run == kind).sum(), 0.5) / (kinds == kind).sum()
    times: np.ndarray = np.maximum(1, np.rint(COPIES * weight)).astype(np.int64)
    return times


def folds_of(held: HeldOut) -> list[str]:
    """Folds of the photographs of the run; five by their content where it had none."""
    folds = [one["fold"] for one in held.photographs]
    if len(set(folds)) > 1:
        return folds
    order = np.argsort([one["sha256"] for one in held.photographs])
    return [str(rank % 5) for rank in np.argsort(order)]


def errors(labels: np.ndarray, bad: np.ndarray) -> dict[str, float | int | None]:
    """Numbers of photographs and of errors, and F1 (None without a bad photograph).

    >>> errors(np.array([0, 0, 1, 1]), np.array([True, False, True, False]))
    {'good': 2, 'bad': 2, 'false_alarms': 1, 'missed': 1, 'f1': 0.5}
    """
    alarms, missed = int((bad & (labels == 0)).sum()), int((~bad & (labels == 1)).sum())
    positive = int((labels == 1).sum())
    hits = positive - missed
    f1 = 2 * hits / (positive + hits + alarms) if positive else None
    return {"good": int((labels == 0).sum()), "bad": positive, "false_alarms": alarms, "missed": missed, "f1": f1}
