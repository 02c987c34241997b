import numpy as np
import pytest
from defectflow import thresholds
from defectflow.thresholds import calibrate, f1_adaptive, just_above, midpoint, nested_calibration, normalise, youden


def brute_force(scores, labels, gain):
    """Best gain over every cut between scores, tried one by one."""
    values = np.unique(scores)
    cuts = [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]
    return max(gain(scores >= cut, labels == 1) for cut in cuts)


def f1_of(predicted, bad):
    return 2 * (predicted & bad).sum() / (predicted.sum() + bad.sum())


def youden_of(predicted, bad):
    return predicted[bad].mean() - predicted[~bad].mean()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rule, gain", [(f1_adaptive, f1_of), (youden, youden_of)])
def test_no_cut_beats_the_chosen_one(rule, gain, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation([0] * 9 + [1] * 6)
    scores = np.round(rng.normal(labels, 1.0), 1)  # rounded: with ties
    chosen = rule(scores, labels)
    assert gain(scores >= chosen, labels == 1) == pytest.approx(brute_force(scores, labels, gain))


def test_separable_scores_are_cut_in_the_middle():
    # anomalib 2.7 puts the cut on the lowest defect (5) and then asks for score > 5: one defect lost.
    scores, labels = np.arange(1.0, 8.0), np.array([0, 0, 0, 0, 1, 1, 1])
    assert f1_adaptive(scores, labels) == 4.5
    assert youden(scores, labels) == 4.5


def test_agrees_with_anomalib_up_to_the_midpoint():
    import torch
    from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(labels, 1.2).astype(np.float32)
    theirs = float(_F1AdaptiveThreshold()(torch.tensor(scores), torch.tensor(labels)))
    ours = f1_adaptive(scores, labels)
    below = scores[scores < np.float32(theirs)].max()
    assert below < ours <= theirs
    assert ((scores >= ours) == (scores >= np.float32(theirs))).all()


def test_ties_go_to_the_lowest_threshold():
    scores, labels = np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0])
    assert youden(scores, labels) == 1.0  # J = 0 everywhere at best: everything is called bad
    scores, labels = np.array([1.0, 2, 3, 4]), np.array([0, 1, 0, 1])
    assert youden(scores, labels) == 1.5


@pytest.mark.parametrize("rule", [f1_adaptive, youden])
def test_single_class_calibration(rule):
    good = rule(np.array([1.0, 3.0, 2.0]), np.zeros(3, int))
    assert 3.0 < good < 3.0001
    assert rule(np.array([1.0, 3.0, 2.0]), np.ones(3, int)) == 1.0


@pytest.mark.parametrize("rule", [f1_adaptive, youden])
@pytest.mark.parametrize("cap", [0.0, 0.1, 0.25, 1.0])
def test_the_cap_on_false_positives_holds(rule, cap):
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 20)
    scores = rng.normal(0.7 * labels, 1.0)
    chosen = rule(scores, labels, max_fpr=cap)
    assert (scores[labels == 0] >= chosen).mean() <= cap
    if cap == 1.0:
        assert chosen == rule(scores, labels)


def test_cap_that_only_a_threshold_above_all_meets():
    scores, labels = np.array([1.0, 2.0, 9.0]), np.array([1, 1, 0])
    assert youden(scores, labels, max_fpr=0.0) > 9.0


@pytest.mark.parametrize("scores, labels", [([], []), ([np.nan, 1.0], [0, 1]), ([1.0, 2.0], [0, 2]), ([1.0, 2.0], [0])])
def test_impossible_input_is_refused(scores, labels):
    with pytest.raises(ValueError):
        f1_adaptive(np.array(scores), np.array(labels))


def test_midpoint_survives_nine_digits_or_is_the_upper_score():
    assert midpoint(1.0, 2.0) == 1.5
    low, high = 1.00000001, 1.00000002
    assert low < midpoint(low, high) <= high
    low = 0.1234567890123
    high = np.nextafter(low, 1)
    assert midpoint(low, high) == high


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 9.99999999, 123456.789, 1e-20])
def test_just_above(value):
    above = just_above(value)
    assert above > value
    assert float(f"{above:.9g}") == above
    assert above - value < 1e-7 * max(1.0, abs(value))


def test_normalised_scores_tell_the_same_verdict_also_as_text():
    rng = np.random.default_rng(0)
    raw = np.concatenate([rng.normal(5, 2, 300), 5 + np.array([-1e-16, -1e-9, -1e-12, 0, 1e-12, 1e-9]), [5.0]])
    score = normalise(raw, np.full(len(raw), 5.0), 0.0, 10.0)
    assert score.min() >= 0 and score.max() <= 1
    assert ((score >= 0.5) == (raw >= 5.0)).all()
    text = np.array([float(f"{value:.9g}") for value in score])
    assert ((text >= 0.5) == (raw >= 5.0)).all()
    assert normalise(np.array([6.0]), np.array([5.0]), 0.0, 10.0)[0] == pytest.approx(0.6)  # anomalib's formula


def test_normalise_without_a_range_and_with_gaps():
    assert normalise(np.array([2.0, 1.0]), np.array([2.0, 2.0]), 2.0, 2.0).tolist() == [0.5, 0.0]
    assert np.isnan(normalise(np.array([np.nan, 1.0]), np.array([1.0, np.nan]), 0.0, 1.0)).all()


def test_a_fold_has_no_part_in_its_own_threshold():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=12), np.tile([0, 1], 6)
    folds = [str(i // 4) for i in range(12)]
    first = nested_calibration(scores, labels, folds)["1"]
    changed = scores.copy()
    changed[4:8] += 100.0
    assert nested_calibration(changed, labels, folds)["1"] == first
    assert first == calibrate(np.delete(scores, range(4, 8)), np.delete(labels, range(4, 8)))
    assert (first.n_good, first.n_bad) == (4, 4)
    assert nested_calibration(scores, labels, ["0"] * 12) == {}  # no other fold: nothing to calibrate on


def test_every_strategy_of_the_config_exists():
    assert set(thresholds.STRATEGIES) == {"f1", "youden"}
