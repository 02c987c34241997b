"""Which photographs kinds are learned from, and that folds hold whole groups out."""

import numpy as np
import pytest
from defectflow.classification.kind_folds import deal, sample
from defectflow.core.files import UserError
from kinds_set import manifest_of


def test_kinds_with_few_photographs_are_left_out_and_named():
    table = manifest_of({"good": 6, "a": 5, "b": 2}, unlabelled=2)
    table.loc[table["image_id"] == "a-00", "defect_type"] = ""
    chosen = sample(table, 0)
    assert chosen.left_out == {"b": 2} and chosen.unnamed == 1
    assert sorted(chosen.table["class"].value_counts().items()) == [("a", 4), ("good", 6)]
    assert chosen.unit == "photographs"


def test_whole_groups_are_held_out_and_every_class_is_spread():
    chosen = sample(manifest_of({"good": 20, "a": 12, "b": 12}, burst=3), 3)
    assert chosen.unit == "groups"
    assert (chosen.table.groupby("group")["fold"].nunique() == 1).all()
    assert chosen.table["fold"].nunique() == 5
    assert (chosen.table.groupby("class")["fold"].nunique() >= 4).all()


def test_a_kind_of_one_group_is_held_out_photograph_by_photograph():
    table = manifest_of({"good": 9, "a": 6}, burst=3)
    table.loc[table["defect_type"] == "a", "group"] = "one burst"
    chosen = sample(table, 0)
    assert chosen.unit == "photographs"
    assert chosen.table.loc[chosen.table["class"] == "a", "fold"].nunique() > 1


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"a": 5, "b": 5}, "0 photographs are labelled good"),
        ({"good": 2, "a": 5}, "2 photographs are labelled good"),
        ({"good": 9, "a": 2}, "only good has 3 photographs or more"),
        ({"good": 9}, "labelled: good 9"),
    ],
)
def test_what_cannot_be_learned_is_refused(counts, said):
    with pytest.raises(UserError, match=said) as caught:
        sample(manifest_of(counts), 0)
    assert "\n" not in str(caught.value)


def test_the_seed_decides_the_folds():
    names = np.repeat(["a", "b"], 20)
    units = np.arange(40)
    assert (deal(names, units, 4, 0) == deal(names, units, 4, 0)).all()
    assert (deal(names, units, 4, 0) != deal(names, units, 4, 1)).any()
