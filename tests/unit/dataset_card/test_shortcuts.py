"""Whether good and bad photographs are told apart by how they were taken."""

import card_set
import numpy as np
import pytest
from defectflow.dataset_card.shortcuts import TOGETHER, shortcuts
from defectflow.metrics.metrics import auroc

LABELS = "0" * 60 + "1" * 40


def found(table):
    return {one.name: one for one in shortcuts(table)}


def test_darker_bad_photographs_are_told_with_the_auroc_of_brightness():
    table = card_set.table(LABELS)
    light = table["luminance"].where(table["label"] == 0, table["luminance"] - 25)
    one = found(table.assign(luminance=light))["brightness"]
    assert one.auroc == pytest.approx(auroc(table["label"], -light)) and one.how == "darker"
    assert one.clear and one.tells and one.interval[0] < one.auroc < one.interval[1]
    assert shortcuts(table.assign(luminance=light))[0].name == "brightness"


def test_chance_is_not_called_a_difference():
    seen = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        seen.append(found(card_set.table(LABELS, luminance=rng.random(100), sharpness=rng.random(100))))
    assert sum(one.clear for those in seen for one in those.values()) <= 3
    assert {TOGETHER, "brightness", "sharpness"} == set(seen[0])


def test_what_is_the_same_in_all_photographs_is_left_out():
    table = card_set.table(LABELS, luminance=100.0, sharpness=5.0)
    assert shortcuts(table) == []
    names = {one.name for one in shortcuts(table.assign(width=[60, 61] * 50))}
    assert names == {"number of pixels", "width to height", "bytes per pixel", TOGETHER}


def test_a_format_of_bad_photographs_alone_tells_them():
    table = card_set.table(LABELS, luminance=100.0, sharpness=5.0, format=["jpg"] * 60 + ["png"] * 40)
    (one,) = shortcuts(table)
    assert one.name == "format png" and one.auroc == 1 and one.how == "more often png" and one.interval[0] < 1


def test_several_weak_differences_are_found_together_and_held_out():
    rng = np.random.default_rng(1)
    shift = np.array([0.8 if c == "1" else 0 for c in LABELS])
    values = {name: rng.normal(size=100) + shift for name in ("luminance", "sharpness", "file_bytes", "clipped")}
    told = found(card_set.table(LABELS, **values))
    assert told[TOGETHER].auroc > max(one.auroc for name, one in told.items() if name != TOGETHER)
    assert told[TOGETHER].clear and shortcuts(card_set.table(LABELS, **values)) == shortcuts(
        card_set.table(LABELS, **values)
    )


def test_photographs_of_one_group_are_not_on_both_sides_of_a_fold():
    """Twenty bursts of five, each with a light of its own: within a burst all is known, between bursts nothing."""
    rng = np.random.default_rng(3)
    label = np.tile([0, 1], 10).repeat(5)
    light, sharp = (rng.random(20).repeat(5) + rng.normal(0, 1e-3, 100) for _ in range(2))
    text = "".join(map(str, label))
    groups = [f"g{i // 5}" for i in range(100)]
    grouped = found(card_set.table(text, luminance=light, sharpness=sharp, group=groups))
    alone = found(card_set.table(text, luminance=light, sharpness=sharp))
    assert grouped["brightness"].interval[1] - grouped["brightness"].interval[0] > 1.5 * (
        alone["brightness"].interval[1] - alone["brightness"].interval[0]
    )


def test_one_class_and_training_photographs_are_not_compared():
    assert shortcuts(card_set.table("0000--")) == []
    assert shortcuts(card_set.table("0011", split=["train", "train", "test", "test"])) == []
