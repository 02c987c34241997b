"""What the issue asks of verdicts, held against the functions that evaluate calls: separable sets, other scales."""

import numpy as np
import pandas as pd
import pytest
from defectflow.decision.decisions import assign_verdicts, is_calibration, is_evaluated
from defectflow.decision.pred_score import margins, normalise, two_digits
from defectflow.evaluation.image_metrics import image_figures

TWO_CLASSES = [
    ("f1_adaptive", {}),
    ("youden", {}),
    ("youden", {"max_fpr": 0.5, "max_fnr": 0.5}),
    ("max_fpr", {"max_fpr": 0.1}),
    ("max_fnr", {"max_fnr": 0.1}),
    ("target_recall", {"recall": 0.95}),
]
GOOD_ONLY = [("normal_percentile", {"percentile": 90}), ("conformal", {"alpha": 0.2})]
MAPS = {"exp": np.exp, "cube": lambda x: x**3, "log": np.log, "linear": lambda x: 1e4 * x - 3e4}


def table_of(scores, labels, folds=4):
    columns = {"label": labels, "raw_score": np.asarray(scores, float), "detection": "fold", "group_out_score": np.nan}
    names = [f"i{k}" for k in range(len(labels))]
    fold = [str(k % folds) for k in range(len(labels))]
    return pd.DataFrame(columns).assign(image_id=names, fold=fold, group="", group_fold="")


@pytest.mark.parametrize("strategy, options", TWO_CLASSES)
@pytest.mark.parametrize("seed", range(3))
def test_a_separable_set_has_no_error(strategy, options, seed):
    labels = np.repeat([0, 1], [14, 9])
    scores = np.random.default_rng(seed).uniform(1, 2, 23) + 3 * labels
    table = assign_verdicts(table_of(scores, labels), strategy, options, {"max_fpr": 0.0, "max_fnr": 0.0}).table
    image = image_figures(table, strategy, options, 0)["image"]
    assert image["f1"] == image["auroc"] == image["accuracy"] == 1.0
    assert (table["review"] == 0).all()  # and nobody has to look


@pytest.mark.parametrize("rescale", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("strategy, options", [*TWO_CLASSES, *GOOD_ONLY])
@pytest.mark.parametrize("seed", range(3))
def test_another_scale_of_scores_changes_no_auroc_and_no_verdict(strategy, options, rescale, seed):
    labels = np.repeat([0, 1], [24, 12])
    table = table_of(np.random.default_rng(seed).gamma(4, 0.5, 36) + 1.6 * labels, labels)
    before = assign_verdicts(table, strategy, options).table
    after = assign_verdicts(table.assign(raw_score=rescale(table["raw_score"])), strategy, options).table
    areas = [image_figures(t, strategy, options, 0)["image"]["auroc"] for t in (before, after)]
    assert areas[0] == areas[1] < 1
    same = before["predicted_label"] == after["predicted_label"]
    if (strategy, options) in GOOD_ONLY:
        assert same.all()
        return
    # The middle of a gap is no matter of order: an image between the two scores beside it may change sides.
    for row in before[~same].itertuples():
        others = table.loc[table["fold"] != row.fold, "raw_score"]
        assert others[others < row.threshold].max() < row.raw_score < others[others >= row.threshold].min()
    assert same.mean() > 0.9


def test_the_score_that_is_shown_never_contradicts_the_verdict():
    raw = np.linspace(-1, 3, 4001) + 1e-4
    for score, bad in zip(normalise(raw, 1.0, 0.0, 2.0), raw >= 1, strict=True):
        assert (two_digits(score) >= "0.50") == bad
    assert [two_digits(x) for x in (0, 0.29, 0.499999999, 0.5, 1)] == ["0.00", "0.29", "0.49", "0.50", "1.00"]


def test_photographs_come_in_the_order_of_the_scores_that_are_shown():
    raw, cut, width = np.random.default_rng(0).normal(1, 1, (3, 200)) * [[1], [0.1], [0.1]]
    score = normalise(raw, cut, 0.0, np.abs(width) + 0.5)  # each with a threshold and a scale of its own
    order = np.argsort(margins(score, raw, cut))
    assert (np.diff(score[order]) >= 0).all() and ((margins(score, raw, cut) >= 0) == (raw >= cut)).all()
    top = score == 1
    assert top.sum() > 2 and (np.diff((raw - cut)[order][top[order]]) >= 0).all()
    assert (margins(np.full(200, np.nan), raw, np.full(200, np.nan)) == raw).all()


def test_images_held_out_for_the_calibration_alone_are_judged_but_do_not_count():
    labels = np.tile([0, 0, 1], 8)
    table = table_of(np.random.default_rng(0).normal(2 * labels, 1), labels)
    side = np.where(np.arange(24) % 2, "calibration", "test")
    table = table.assign(detection=side, fold=side)
    judged = assign_verdicts(table, "f1_adaptive").table
    assert is_evaluated(judged).sum() == 12 and is_calibration(judged).all()
    from defectflow.decision.chosen_threshold import calibrate

    for own, other in (("test", "calibration"), ("calibration", "test")):
        rest = table[table["fold"] == other]
        expected = calibrate(rest["raw_score"].to_numpy(), rest["label"].to_numpy()).value
        assert (judged.loc[judged["fold"] == own, "threshold"] == expected).all()
    assert image_figures(judged, "f1_adaptive", {}, 0)["n_samples"] == 12
