import numpy as np
import pandas as pd
import pytest
from defectflow.decision import chosen_threshold
from defectflow.decision.decisions import assign_verdicts, with_calibration
from defectflow.evaluation.image_metrics import calibration_curve, image_figures, units_of
from defectflow.metrics.intervals import auroc_interval
from defectflow.metrics.metrics import confusion, wilson
from sklearn.calibration import calibration_curve as sklearns_curve


def scored(scores, labels, folds, groups=None, group_out=None, group_folds=None):
    """A gathered table of labelled images."""
    columns = {"label": labels, "raw_score": np.asarray(scores, float), "fold": folds, "detection": "fold"}
    columns |= {"group_fold": group_folds or "", "group_out_score": np.nan if group_out is None else group_out}
    return pd.DataFrame(columns).assign(image_id=[f"i{k}" for k in range(len(labels))], group=groups or "")


def random_table(seed=0, n=60, k=5):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [2 * n // 3, n // 3])
    return scored(rng.normal(1.5 * labels, 1.0), labels, [str(i % k) for i in range(n)])


def test_the_calibration_curve_is_sklearns():
    table = assign_verdicts(random_table(), "f1_adaptive").table
    bins = calibration_curve(table)["bins"]
    filled = [b for b in bins if b["n"]]
    share, _ = sklearns_curve(table["label"], table["pred_score"], n_bins=10)
    assert [b["share_bad"] for b in filled] == pytest.approx(share)
    assert sum(b["n"] for b in bins) == 60 and sum(b["n_bad"] for b in bins) == 20
    assert all(b["interval"] == wilson(b["n_bad"], b["n"]) for b in bins)
    assert [b["low"] for b in bins] == pytest.approx(np.arange(10) / 10)
    few = calibration_curve(assign_verdicts(random_table(n=6, k=2), "f1_adaptive").table)["bins"]
    assert next(b for b in few if not b["n"])["share_bad"] is None


def test_every_figure_has_an_interval_around_it():
    part = image_figures(assign_verdicts(random_table(), "f1_adaptive").table, "f1_adaptive", {}, seed=0)
    spread = part["confidence_intervals"]["bootstrap"]
    assert (spread["unit"], spread["n_units"]) == ("images", 60)
    names = "auroc average_precision accuracy precision recall f1 false_positive_rate false_negative_rate"
    for name in names.split():
        assert spread[name][0] < part["image"][name] < spread[name][1], name
    for name, count in part["image"]["confusion_matrix"].items():
        assert spread["confusion_matrix"][name][0] <= count <= spread["confusion_matrix"][name][1]
    tn, fp, fn, tp = part["image"]["confusion_matrix"].values()
    assert part["confidence_intervals"]["recall"] == wilson(tp, tp + fn)
    assert part["confidence_intervals"]["false_negative_rate"] == wilson(fn, tp + fn)
    table = random_table()
    area = auroc_interval(table["label"].to_numpy(), table["raw_score"].to_numpy(), table["image_id"])
    assert part["confidence_intervals"]["auroc"] == area and tn + fp == 40


def test_where_all_images_are_right_no_interval_is_without_width():
    table = assign_verdicts(scored(np.arange(12.0), [0] * 6 + [1] * 6, list("012345") * 2), "f1_adaptive").table
    table["predicted_label"] = table["label"]
    found = image_figures(table, "f1_adaptive", {}, seed=0)["confidence_intervals"]
    assert found["auroc"][1] == 1.0 and 0.5 < found["auroc"][0] < 0.8
    spread = found["bootstrap"]
    for name in ("auroc", "average_precision", "accuracy", "precision", "recall", "f1"):
        assert spread[name][0] < spread[name][1] == 1.0, name
    for name in ("false_positive_rate", "false_negative_rate"):
        assert spread[name][1] > spread[name][0] == 0.0, name
    assert spread["recall"] == wilson(6, 6) and spread["confusion_matrix"]["true_positive"] == [6 * wilson(6, 6)[0], 6]


@pytest.mark.parametrize(
    "groups, expected",
    [
        (list("aabcdefghijk"), ("groups", 11)),
        ([*"aabcd", "", *"abcde", ""], ("groups", 7)),  # an image without a group is one of its own
        (list("aaabbbcccddd"), ("images", 12)),  # two groups of a class cannot be resampled
        (list("aaaaaabcdefg"), ("images", 12)),  # all good ones of one session would be drawn as they are every time
        (["" for _ in range(12)], ("images", 12)),
    ],
)
def test_groups_are_resampled_where_there_are_enough_of_either_class(groups, expected):
    unit, units = units_of(scored(range(12), [0] * 6 + [1] * 6, list("010101010101"), groups))
    assert (unit, units.nunique()) == expected


def test_the_second_protocol_has_verdicts_by_thresholds_without_the_group():
    rng = np.random.default_rng(3)
    labels = np.tile([0, 0, 1], 8)
    groups = [f"g{i // 6}" for i in range(24)]
    apart = rng.normal(1.5 * labels, 1.0)
    table = scored(apart + 0.1, labels, [str(i % 4) for i in range(24)], groups, apart, [g[1:] for g in groups])
    without = {
        group: np.where(np.array(groups) == group, np.nan, rng.normal(1.5 * labels, 1.0)) for group in set(groups)
    }
    scores = pd.concat(
        pd.DataFrame(
            {"protocol": "group", "judged_fold": group[1:], "image_id": table["image_id"], "raw_score": values}
        )
        for group, values in without.items()
    )
    table = with_calibration(table, scores.dropna())
    found = image_figures(assign_verdicts(table, "f1_adaptive").table, "f1_adaptive", {}, 0)["image"]["leave_group_out"]
    called = np.empty(24)
    for group in set(groups):
        mine = np.array(groups) == group
        others = without[group][~mine]
        called[mine] = apart[mine] >= chosen_threshold.calibrate(others, labels[~mine], "f1_adaptive").value
    assert found["confusion_matrix"] == confusion(labels, called) and found["n_samples"] == 24
    assert found["recall"] == called[labels == 1].mean()
    # Too few images outside a group for the strategy: the ranking is still told.
    table = assign_verdicts(table, "f1_adaptive").table
    found = image_figures(table, "conformal", {"alpha": 1 / 14}, 0)["image"]["leave_group_out"]
    assert found["recall"] is None and found["auroc"] > 0.5

    # Where a group and another one hold all good images there is no such score, and no verdict.
    table = table.drop(columns=[name for name in table if name.endswith(("/0", "/1", "/2"))])
    found = image_figures(assign_verdicts(table, "f1_adaptive").table, "f1_adaptive", {}, 0)["image"]["leave_group_out"]
    mine = np.array(groups) == "g3"
    assert found["confusion_matrix"] == confusion(labels[mine], called[mine])
