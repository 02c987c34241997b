import numpy as np
import pytest
from defectflow import metrics
from defectflow.metrics import bootstrap_auroc, confusion, rates, wilson
from sklearn.metrics import roc_auc_score


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
    assert bootstrap_auroc(np.ones(3), np.arange(3)) is None
    assert metrics.auroc(np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 2.0])) == 0.875


def test_bootstrap_is_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 9])
    scores = np.round(rng.normal(labels, 1.0), 1)
    draws = np.random.default_rng(4)
    areas = []
    for _ in range(300):
        good = scores[:12][draws.integers(12, size=12)]
        bad = scores[12:][draws.integers(9, size=9)]
        areas.append(roc_auc_score(labels, np.concatenate([good, bad])))
    assert bootstrap_auroc(labels, scores, seed=4, resamples=300) == pytest.approx(np.quantile(areas, [0.025, 0.975]))


def test_bootstrap_is_seeded_and_narrows_with_more_images():
    rng = np.random.default_rng(0)

    def interval(n, seed=0):
        labels = np.repeat([0, 1], n)
        return bootstrap_auroc(labels, rng.normal(labels, 1.0), seed, 400)

    labels, scores = np.repeat([0, 1], 20), np.random.default_rng(2).normal(np.repeat([0, 1], 20), 1.0)
    assert bootstrap_auroc(labels, scores, 1) == bootstrap_auroc(labels, scores, 1)
    assert bootstrap_auroc(labels, scores, 1) != bootstrap_auroc(labels, scores, 2)
    few, many = interval(10), interval(400)
    assert many[1] - many[0] < (few[1] - few[0]) / 2
