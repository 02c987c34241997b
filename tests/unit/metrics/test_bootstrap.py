"""The paired comparison, against scikit-learn, DeLong's test written out pair by pair, and simulation."""

import numpy as np
import pytest
from defectflow.metrics.bootstrap import paired_bootstrap, weighted_auroc, weighted_f1
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score


def two_runs(seed, good=80, bad=60, gain=0.0):
    """Labels and the scores of two runs whose errors go together; the second is better by ``gain``."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [good, bad])
    common = rng.normal(0, 1, good + bad)
    first, second = (common + rng.normal(0, 0.7, good + bad) + (1 + more) * labels for more in (0.0, gain))
    return labels, first, second


def delong(labels, first, second):
    """AUROC difference and its standard error (DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988), pair by pair."""
    parts = []
    for scores in (first, second):
        good, bad = scores[labels == 0], scores[labels == 1]
        won = np.array([[1.0 if b > g else 0.5 if b == g else 0.0 for g in good] for b in bad])
        parts.append((won.mean(axis=1), won.mean(axis=0), won.mean()))
    (bad1, good1, area1), (bad2, good2, area2) = parts
    s10, s01 = np.cov(bad1, bad2), np.cov(good1, good2)
    contrast = np.array([-1, 1])
    variance = contrast @ (s10 / len(bad1) + s01 / len(good1)) @ contrast
    return area2 - area1, np.sqrt(variance)


def test_weighted_figures_are_those_of_scikit_learn_also_with_ties():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60)
    weights = rng.integers(0, 4, (5, 60))
    for row, area, f1 in zip(
        weights, weighted_auroc(weights, labels, scores), weighted_f1(weights, labels, scores > 4), strict=True
    ):
        assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=row))
        assert f1 == pytest.approx(f1_score(labels, scores > 4, sample_weight=row))


def test_a_class_without_weight_is_undefined_not_a_figure():
    labels, scores = np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0])
    weights = np.array([[1, 1, 0], [0, 0, 1]])
    assert np.isnan(weighted_auroc(weights, labels, scores)).all()
    assert np.isnan(weighted_f1(weights, labels, scores > 2)).tolist() == [True, False]


def test_interval_and_p_agree_with_delong():
    for seed in range(3):
        labels, first, second = two_runs(seed, gain=0.25)
        found = paired_bootstrap(weighted_auroc, labels, first, second, np.arange(140))
        value, error = delong(labels, first, second)
        assert found.value == pytest.approx(value)
        assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.12)
        assert found.p == pytest.approx(2 * norm.sf(abs(value) / error), abs=0.05)
        assert (found.n, found.n_units) == (140, 140)


def test_pairing_tells_apart_what_separate_intervals_do_not():
    labels, first, _ = two_runs(5)
    second = first + 0.35 * labels
    alone = [
        paired_bootstrap(weighted_auroc, labels, np.zeros(140), scores, np.arange(140)) for scores in (first, second)
    ]
    assert alone[0].high > alone[1].low  # the intervals of the two runs overlap
    assert paired_bootstrap(weighted_auroc, labels, first, second, np.arange(140)).p < 0.01


def test_photographs_of_a_group_count_once():
    labels, first, second = two_runs(3, 20, 20, gain=0.4)
    tenfold = [np.repeat(values, 10) for values in (labels, first, second)]
    groups = np.repeat(np.arange(40), 10)
    grouped = paired_bootstrap(weighted_auroc, *tenfold, groups)
    once = paired_bootstrap(weighted_auroc, labels, first, second, np.arange(40))
    wrong = paired_bootstrap(weighted_auroc, *tenfold, np.arange(400))
    assert (grouped.high - grouped.low) == pytest.approx(once.high - once.low, rel=0.15)
    assert (wrong.high - wrong.low) < 0.5 * (once.high - once.low)
    assert grouped.n_units == 40


def test_without_a_difference_p_is_seldom_small():
    small = 0
    for seed in range(60):
        labels, first, second = two_runs(100 + seed, 40, 40)
        small += paired_bootstrap(weighted_auroc, labels, first, second, np.arange(80), resamples=400).p <= 0.05
    assert small <= 8  # 3 expected; 9 or more have a probability of 0.3 %


def test_equal_runs_and_reversed_ones():
    labels, first, second = two_runs(2, gain=0.5)
    same = paired_bootstrap(weighted_f1, labels, first > 0.5, first > 0.5, np.arange(140))
    assert same[:4] == (0, 0, 0, 1)
    there = paired_bootstrap(weighted_auroc, labels, first, second, np.arange(140), seed=4)
    back = paired_bootstrap(weighted_auroc, labels, second, first, np.arange(140), seed=4)
    assert there.value == -back.value and there.low == pytest.approx(-back.high) and there.p == back.p


def test_the_seed_decides():
    labels, first, second = two_runs(2)
    args = (weighted_auroc, labels, first, second, np.arange(140))
    assert paired_bootstrap(*args, seed=1) == paired_bootstrap(*args, seed=1) != paired_bootstrap(*args, seed=2)


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1]])
def test_one_class_or_none_gives_no_difference(labels):
    scores = np.arange(len(labels))
    assert paired_bootstrap(weighted_auroc, np.array(labels), scores, scores, scores) is None


def test_groups_of_both_kinds_may_leave_a_class_out_of_a_resample():
    labels, scores = np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 1.5, 1.2])
    found = paired_bootstrap(weighted_auroc, labels, scores, -scores, ["a", "a", "a", "b"])
    assert np.isfinite(found[:4]).all()
