"""Held-out judgements: that nothing of a photograph is in what judges it."""

import numpy as np
import pytest
from defectflow.classification.cross_validation import class_names, cross_validate, judge_new, leave_kinds_out, namer_of
from defectflow.classification.settings import KindSettings
from kinds_set import described, manifest_of

SETTINGS = KindSettings.from_dict({}, "kinds").only_for("classify")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return described(tmp_path_factory.mktemp("kinds"), manifest_of({"good": 15, "a": 8, "b": 8, "c": 8}, unlabelled=4))


def labels_of(found):
    return np.array([class_names(found).index(name) for name in found.known["class"]])


def test_clear_kinds_are_told_apart(found):
    judged, labels = cross_validate(found, SETTINGS), labels_of(found)
    assert class_names(found) == ["good", "a", "b", "c"]
    assert (judged.chosen == labels).mean() > 0.9
    assert judged.chance.sum(axis=1) == pytest.approx(1)
    kind, share = judged.if_bad
    assert (kind > 0).all() and (kind == labels)[labels > 0].mean() > 0.9 and (share <= 1 + 1e-9).all()


def test_shuffled_labels_are_no_better_than_chance(found):
    rng = np.random.default_rng(0)
    accuracy = []
    for _ in range(4):
        items = found.items.copy()
        items.loc[: len(found.known) - 1, "class"] = rng.permutation(found.known["class"])
        shuffled = found._replace(items=items)
        accuracy.append((cross_validate(shuffled, SETTINGS).chosen == labels_of(shuffled)).mean())
    assert np.mean(accuracy) < 0.45  # always good: 0.38


def test_the_label_of_a_photograph_does_not_change_what_is_said_of_it(found):
    items = found.items.copy()
    assert items["class"][0] == "a"
    items.loc[0, "class"] = "b"
    one, other = (cross_validate(f, SETTINGS) for f in (found, found._replace(items=items)))
    for before, after in zip(one, other, strict=True):
        assert np.array_equal(before[0], after[0])
    assert not np.array_equal(one.logits, other.logits)  # of photographs that it is learned from


def test_new_photographs_are_judged_by_all(found):
    held_out = cross_validate(found, SETTINGS)
    namer = namer_of(found, held_out, SETTINGS)
    new = judge_new(found, namer)
    assert [class_names(found)[k] for k in new.chosen] == ["a"] * 4
    assert not new.unknown.any() and len(set(new.limit)) == 1
    none = found._replace(every=found.every[: len(found.known)], items=found.known)
    assert len(judge_new(none, namer).chosen) == 0


def test_a_kind_that_is_taken_away_is_far(found):
    unknown, far, away = leave_kinds_out(found)
    assert set(away) == {"a", "b", "c"} and unknown.sum() == 24
    assert far[unknown == 1].mean() > far[unknown == 0].mean()


def test_with_two_kinds_nothing_is_taken_away(tmp_path):
    unknown, far, away = leave_kinds_out(described(tmp_path, manifest_of({"good": 6, "a": 4, "b": 4})))
    assert len(unknown) == len(far) == len(away) == 0
