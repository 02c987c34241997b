"""Figures of kinds against counts made by hand."""

import numpy as np
import pytest
from defectflow.classification.cross_validation import Judged
from defectflow.classification.kind_figures import balanced, confusion_counts, figures, open_set_figures
from defectflow.metrics.metrics import wilson

NAMES = ["good", "a", "b"]
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


def judged(chosen, novelty=None) -> Judged:
    chance = np.eye(3)[np.asarray(chosen)] * 0.8 + 0.1
    chance /= chance.sum(axis=1, keepdims=True)
    far = np.zeros(len(chance)) if novelty is None else np.asarray(novelty, float)
    return Judged(np.log(chance), chance, far, np.full(len(chance), 0.5))


def test_figures_are_those_counted_by_hand():
    told = figures(NAMES, LABELS, judged([0, 0, 0, 1, 1, 0, 2, 1]))
    assert told["n"] == 8 and told["accuracy"] == 5 / 8 and told["interval"] == wilson(5, 8)
    assert told["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert told["majority"] == {"class": "good", "accuracy": 0.5, "balanced_accuracy": 1 / 3, "if_bad": 0.5}
    assert [(row["recall"], row["precision"]) for row in told["classes"]] == [
        (3 / 4, 3 / 4),
        (1 / 2, 1 / 3),
        (1 / 2, 1),
    ]
    assert told["confusion"]["counts"] == [[3, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert told["if_bad"]["n"] == 4


def test_without_a_choice_of_kinds_nothing_is_said_of_it():
    two = Judged(np.zeros((4, 2)), np.full((4, 2), 0.5), np.zeros(4), np.ones(4))
    told = figures(["good", "a"], np.array([0, 0, 1, 1]), two)
    assert told["if_bad"] is None and told["majority"]["if_bad"] is None


def test_the_interval_of_balanced_accuracy_holds_it():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [100, 20])
    value, (low, high) = balanced(labels, rng.random(120) < 0.7, 0)
    assert low < value < high and high - low > 0.05
    assert balanced(labels, np.ones(120, bool), 0) == (1.0, [1.0, 1.0])


def test_rows_are_what_it_is():
    assert confusion_counts(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 2], [1, 0]]


def test_open_set_figures():
    held_out = judged([0, 0, 0, 0, 1, 1, 2, 2], novelty=[9, 9, 9, 9, 0.1, 0.2, 0.3, 0.9])
    taken = (np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.3, 0.2]), ["a", "a", "a", "b"])
    told = open_set_figures(held_out, LABELS, taken, 0.5)
    assert told["auroc"] == 1 and told["by_kind"] == {"a": 1, "b": None}
    assert told["rejected_known"] == 1 / 4 and told["rejected_unknown"] == 1 / 2
    nothing = open_set_figures(held_out, LABELS, (np.zeros(0, int), np.zeros(0), []), 0.5)
    assert nothing["auroc"] is None and nothing["rejected_unknown"] is None
