import numpy as np
import pandas as pd
import pytest
from defectflow.decision.assumed_good import OF_GOOD_ONLY, assume

LEFT = ["p00", "p01"]


def table(good=0, bad=0, count=20):
    label = np.full(count, np.nan)
    label[2 : 2 + good], label[count - bad :] = 0, 1
    return pd.DataFrame({"image_id": [f"p{k:02}" for k in range(count)], "label": label})


def test_without_labels_all_but_those_left_out_are_taken_as_good():
    found = assume(table(), LEFT, "f1_adaptive", {})
    assert found.table["label"].isna().tolist() == [True, True] + [False] * 18 and found.table["label"].sum() == 0
    assert (found.strategy, found.options) == OF_GOOD_ONLY
    said = found.figures["said"]
    assert "all 20 were taken as mostly good" in said and "except 2 that stand far" in said
    assert "how many defects are missed is unknown" in said and "labels.csv" in said


@pytest.mark.parametrize(("count", "few"), [(9, True), (10, False)])
def test_too_few_to_show_what_stands_far_is_said(count, few):
    said = assume(table(count=count), [], "f1_adaptive", {}).figures["said"]
    assert ("too few to show that one of them stands far" in said) == few


def test_a_strategy_of_good_ones_alone_is_kept():
    found = assume(table(), [], "conformal", {"alpha": 0.1})
    assert (found.strategy, found.options) == ("conformal", {"alpha": 0.1}) and "candidates" not in found.figures[
        "said"
    ]


@pytest.mark.parametrize("good, bad", [(4, 9), (9, 4)])
def test_few_labels_count_but_choose_no_threshold(good, bad):
    found = assume(table(good, bad), LEFT, "f1_adaptive", {})
    assert (found.table["label"] == 1).sum() == bad and found.strategy == OF_GOOD_ONLY[0]
    assert found.figures["n_labelled"] == 13 and found.figures["threshold_from"] == "assumed good"
    assert "7 photographs without a label" in found.figures["said"]


def test_enough_labels_choose_the_threshold():
    given = table(5, 5)
    found = assume(given, LEFT, "f1_adaptive", {})
    assert found.table is given and found.strategy == "f1_adaptive" and found.figures["threshold_from"] == "labels"
    assert "missed is unknown" not in found.figures["said"]


@pytest.mark.parametrize(
    ("labels", "strategy", "options", "sentence"),
    [
        ((0, 0), "fixed", {"value": 2.0}, "is the given one (fixed, value 2): how many defects are missed is unknown"),
        ((0, 3), "max_fnr", {"max_fnr": 0.1}, "their scores and those of 3 photographs labelled bad (max_fnr,"),
        ((0, 3), "normal_sigma", {"sigma": 3}, "comes from their scores alone (normal_sigma, sigma 3): how many"),
        ((6, 1), "f1_adaptive", {}, "and those of 6 photographs labelled good (normal_percentile, percentile 95)"),
        ((6, 1), "f1_adaptive", {}, "how many defects are missed is known only of the 1 photograph labelled bad"),
    ],
)
def test_where_the_threshold_comes_from_is_said_as_it_is(labels, strategy, options, sentence):
    assert sentence in assume(table(*labels), LEFT, strategy, options).figures["said"]
