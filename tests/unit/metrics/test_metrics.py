import numpy as np
import pytest
from defectflow.metrics import metrics
from defectflow.metrics.bootstrap import bootstrap
from defectflow.metrics.metrics import confusion, rates, wilson
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)


def test_confusion_and_rates():
    counts = confusion(np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1, 0]))
    assert list(counts.values()) == [2, 1, 1, 3]
    found = rates(counts)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["precision"] == found["recall"] == found["f1"] == 0.75
    assert found["specificity"] == pytest.approx(2 / 3) and found["false_positive_rate"] == pytest.approx(1 / 3)
    assert found["false_negative_rate"] == 0.25 and found["balanced_accuracy"] == pytest.approx((0.75 + 2 / 3) / 2)


def test_rates_without_a_denominator_are_none():
    found = rates(confusion(np.array([0, 0]), np.array([0, 0])))
    assert found["recall"] is found["precision"] is found["f1"] is found["balanced_accuracy"] is None
    assert found["specificity"] == 1.0
    assert set(rates(confusion(np.array([]), np.array([]))).values()) == {None}
    # Every defect missed is a failure, not an unknown.
    assert rates(confusion(np.array([0, 1]), np.array([0, 0])))["f1"] == 0.0


@pytest.mark.parametrize(
    "k, n, low, high", [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)]
)
def test_wilson_against_published_values(k, n, low, high):
    assert wilson(k, n) == pytest.approx([low, high], abs=1e-4)


def test_wilson_of_nothing():
    assert wilson(0, 0) is None


def test_auroc_needs_both_classes():
    assert metrics.auroc(np.zeros(3), np.arange(3)) is None
    assert metrics.average_precision(np.ones(3), np.arange(3)) is None
    assert metrics.auroc(np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 2.0])) == 0.875


def cases(seed=0, good=12, bad=9):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [good, bad])
    scores = np.round(rng.normal(labels, 1.0), 1)
    return labels, scores, (scores >= 0.7).astype(int), [f"i{k}" for k in range(good + bad)]


def sklearn_figures(labels, scores, predicted):
    tn, fp, fn, tp = confusion_matrix(labels, predicted, labels=[0, 1]).ravel()
    return {
        "auroc": roc_auc_score(labels, scores),
        "average_precision": average_precision_score(labels, scores),
        "accuracy": accuracy_score(labels, predicted),
        "precision": precision_score(labels, predicted),
        "recall": recall_score(labels, predicted),
        "f1": f1_score(labels, predicted),
        "false_positive_rate": fp / (fp + tn),
        "false_negative_rate": fn / (fn + tp),
        "true_negative": tn,
        "false_positive": fp,
        "false_negative": fn,
        "true_positive": tp,
    }


def test_the_bootstrap_is_sklearn_on_resampled_images():
    labels, scores, predicted, units = cases()
    draws, values = np.random.default_rng(4), []
    for _ in range(200):
        # np.unique sorts the names: i0, i1, i10, ...; good and bad images are resampled apart.
        order = np.argsort(units)
        good, bad = (order[labels[order] == label] for label in (0, 1))
        rows = np.concatenate([side[draws.integers(len(side), size=len(side))] for side in (good, bad)])
        values.append(sklearn_figures(labels[rows], scores[rows], predicted[rows]))
    found = bootstrap(labels, scores, predicted, units, seed=4, resamples=200)
    assert found.keys() == values[0].keys()
    for key, interval in found.items():
        assert interval == pytest.approx(np.quantile([v[key] for v in values], [0.025, 0.975])), key
        assert interval[0] <= sklearn_figures(labels, scores, predicted)[key] <= interval[1]


def test_whole_groups_are_resampled():
    # Ten copies of each image say no more than one: the interval by group is that of the ten times smaller set.
    labels, scores, predicted, units = cases()
    many = [np.repeat(v, 10) for v in (labels, scores, predicted)]
    small = bootstrap(labels, scores, predicted, units, seed=1, resamples=500)
    grouped = bootstrap(*many, np.repeat(units, 10), seed=1, resamples=500)
    apart = bootstrap(*many, [str(k) for k in range(len(many[0]))], seed=1, resamples=500)
    for key in ("auroc", "average_precision", "f1", "recall"):
        assert grouped[key] == pytest.approx(small[key])
        assert apart[key][1] - apart[key][0] < 0.6 * (grouped[key][1] - grouped[key][0])


def test_groups_of_both_classes_stay_together():
    labels = np.tile([0, 1], 6)
    found = bootstrap(labels, np.arange(12.0), labels, np.repeat(list("abcdef"), 2), resamples=200)
    # A good and a bad image in every group: no resample has other counts.
    assert found["true_negative"] == found["true_positive"] == [6, 6]
    assert found["auroc"][0] < found["auroc"][1]


def test_the_bootstrap_is_seeded_and_narrows_with_more_images():
    assert bootstrap(*cases(), seed=1) == bootstrap(*cases(), seed=1) != bootstrap(*cases(), seed=2)
    few, many = (bootstrap(*cases(3, n, n), resamples=400)["auroc"] for n in (10, 400))
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_what_a_resample_cannot_tell_is_left_out():
    good = bootstrap([0, 0, 0], [1.0, 2, 3], [0, 0, 1], list("abc"), resamples=50)
    assert good["auroc"] is good["recall"] is good["f1"] is None and good["accuracy"] is not None
    assert set(bootstrap([], [], [], []).values()) == {None}
