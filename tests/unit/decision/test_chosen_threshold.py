import math

import numpy as np
import pytest
from defectflow.decision.chosen_threshold import calibrate, midpoint, nested_calibration
from defectflow.decision.pred_score import normalise
from defectflow.decision.threshold_strategies import STRATEGIES, just_above

# Every strategy with an option it can be given, and whether it sees both classes and only the order of scores.
TWO_CLASSES = [
    ("f1_adaptive", {}),
    ("youden", {}),
    ("youden", {"max_fpr": 0.25}),
    ("youden", {"max_fnr": 0.25}),
    ("youden", {"max_fpr": 0.5, "max_fnr": 0.5}),
    ("max_fpr", {"max_fpr": 0.25}),
    ("max_fnr", {"max_fnr": 0.25}),
    ("target_recall", {"recall": 0.75}),
]
GOOD_ONLY = [("normal_percentile", {"percentile": 90}), ("conformal", {"alpha": 0.2})]
RANKED = TWO_CLASSES + GOOD_ONLY
ALL = [*RANKED, ("normal_sigma", {"sigma": 2})]


def sample(seed, good=9, bad=6, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [good, bad]))
    return np.round(rng.normal(shift * labels, 1.0), 1), labels  # rounded: with ties


def every_cut(scores, labels):
    """(threshold, true positives, false positives) of every cut between scores, tried one by one."""
    values = np.unique(scores)
    for cut in [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]:
        bad = scores >= cut
        yield cut, int((bad & (labels == 1)).sum()), int((bad & (labels == 0)).sum())


def counts(scores, labels, threshold):
    return int((scores[labels == 1] >= threshold).sum()), int((scores[labels == 0] >= threshold).sum())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "strategy, options, gain, allowed",
    [
        ("f1_adaptive", {}, lambda tp, fp: (2 * tp / (6 + tp + fp), tp), lambda tp, fp: True),
        ("youden", {}, lambda tp, fp: (tp * 9 - fp * 6, tp), lambda tp, fp: True),
        ("youden", {"max_fpr": 0.2}, lambda tp, fp: (tp * 9 - fp * 6, tp), lambda tp, fp: fp <= 1),
        ("youden", {"max_fnr": 0.2}, lambda tp, fp: (tp * 9 - fp * 6, tp), lambda tp, fp: tp >= 5),
        ("max_fpr", {"max_fpr": 0.2}, lambda tp, fp: (tp, -fp), lambda tp, fp: fp <= 1),
        ("max_fnr", {"max_fnr": 0.2}, lambda tp, fp: (-fp, tp), lambda tp, fp: tp >= 5),
        ("target_recall", {"recall": 0.8}, lambda tp, fp: (-fp, tp), lambda tp, fp: tp >= 5),
    ],
)
def test_no_allowed_cut_beats_the_chosen_one(strategy, options, gain, allowed, seed):
    scores, labels = sample(seed)
    chosen = counts(scores, labels, calibrate(scores, labels, strategy, **options).value)
    assert allowed(*chosen)
    assert gain(*chosen) == max(gain(tp, fp) for _, tp, fp in every_cut(scores, labels) if allowed(tp, fp))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strategy, options", ALL)
def test_the_table_holds_every_cut_and_marks_the_verdicts_of_the_chosen_one(strategy, options, seed):
    scores, labels = sample(seed)
    found = calibrate(scores, labels, strategy, **options)
    table = found.table
    expected = [(tp, fp) for _, tp, fp in every_cut(scores, labels)]
    assert list(zip(table["true_positive"], table["false_positive"], strict=True)) == expected
    for row in table.itertuples():
        assert (row.true_positive, row.false_positive) == counts(scores, labels, row.threshold)
        assert row.recall == row.true_positive / 6 and row.false_positive_rate == row.false_positive / 9
        assert row.youden == pytest.approx(row.recall - row.false_positive_rate)
        assert row.f1 == 2 * row.true_positive / (6 + row.true_positive + row.false_positive)
    (chosen,) = table[table["chosen"]].itertuples()
    assert ((scores >= chosen.threshold) == (scores >= found.value)).all()
    assert (found.low, found.high, found.n_good, found.n_bad) == (scores.min(), scores.max(), 9, 6)


@pytest.mark.parametrize("strategy, options", TWO_CLASSES)
def test_a_separable_set_has_no_error_and_is_cut_in_the_middle_of_the_gap(strategy, options):
    # anomalib 2.7 puts the cut on the lowest defect (5) and then asks for score > 5: one defect lost.
    scores, labels = np.arange(1.0, 8.0), np.array([0, 0, 0, 0, 1, 1, 1])
    assert calibrate(scores, labels, strategy, **options).value == 4.5


def test_agrees_with_anomalib_up_to_the_midpoint():
    import torch
    from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(labels, 1.2).astype(np.float32)
    theirs = float(_F1AdaptiveThreshold()(torch.tensor(scores), torch.tensor(labels)))
    ours = calibrate(scores, labels, "f1_adaptive").value
    below = scores[scores < np.float32(theirs)].max()
    assert below < ours <= theirs
    assert ((scores >= ours) == (scores >= np.float32(theirs))).all()


def test_ties_go_to_the_lowest_threshold():
    scores, labels = np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0])
    assert calibrate(scores, labels, "youden").value == 1.0  # J = 0 everywhere at best: everything is called bad
    scores, labels = np.array([1.0, 2, 3, 4]), np.array([0, 1, 0, 1])
    assert calibrate(scores, labels, "youden").value == 1.5


# --- Raw scores on another scale ----------------------------------------------------------------------------------
MAPS = [np.exp, lambda x: x**3 + 5 * x, np.arctan, lambda x: 1e6 * x - 3e7, lambda x: np.floor(10 * x) / 7]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rescale", MAPS)
@pytest.mark.parametrize("strategy, options", RANKED)
def test_a_monotone_map_of_the_scores_changes_no_verdict_on_the_calibration_images(strategy, options, rescale, seed):
    scores, labels = sample(seed)
    mapped = rescale(scores)
    assert len(np.unique(mapped)) == len(np.unique(scores))  # strictly increasing on these
    before = scores >= calibrate(scores, labels, strategy, **options).value
    assert (before == (mapped >= calibrate(mapped, labels, strategy, **options).value)).all()


@pytest.mark.parametrize("strategy, options", GOOD_ONLY)
def test_limits_on_good_images_are_rank_based_for_new_images_too(strategy, options):
    scores, labels = sample(1)
    new = np.linspace(-3, 4, 200)
    before = new >= calibrate(scores, labels, strategy, **options).value
    assert (before == (np.exp(new) >= calibrate(np.exp(scores), labels, strategy, **options).value)).all()


def test_the_middle_of_a_gap_does_move_for_new_images_within_the_gap():
    # What docs/verdicts.md says of it: no order of scores tells where in a gap the threshold should be.
    scores, labels, new = np.array([0.0, 4.0]), np.array([0, 1]), 3.0
    assert new >= calibrate(scores, labels, "f1_adaptive").value
    assert not np.exp(new) >= calibrate(np.exp(scores), labels, "f1_adaptive").value


# --- Good images only ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy, options", [*GOOD_ONLY, ("normal_sigma", {"sigma": 2})])
def test_strategies_of_good_images_look_at_no_bad_one(strategy, options):
    scores, labels = sample(2)
    good = scores[labels == 0]
    expected = calibrate(good, np.zeros(len(good)), strategy, **options).value
    assert calibrate(scores, labels, strategy, **options).value == expected


@pytest.mark.parametrize("percentile, n_called_bad", [(100, 0), (99.5, 0), (99, 1), (90, 10), (50, 50), (1e-9, 99)])
def test_percentile_of_a_hundred_good_images(percentile, n_called_bad):
    good = np.random.default_rng(0).permutation(np.arange(100.0))
    threshold = calibrate(good, np.zeros(100), "normal_percentile", percentile=percentile).value
    assert (good >= threshold).sum() == n_called_bad


def test_sigma_is_the_control_limit_of_the_good_images():
    good = np.array([1.0, 2.0, 3.0])
    assert calibrate(good, np.zeros(3), "normal_sigma", sigma=3).value == pytest.approx(5.0)  # 2 + 3 x 1
    assert calibrate(np.append(good, 50), [0, 0, 0, 1], "normal_sigma", sigma=3).value == pytest.approx(5.0)


@pytest.mark.parametrize("n, alpha", [(19, 0.05), (60, 0.05), (60, 0.1), (99, 0.1), (250, 0.01), (29, 0.1)])
def test_conformal_keeps_the_false_alarm_rate_over_a_thousand_draws(n, alpha):
    rng = np.random.default_rng(n)
    draws, new = 1000, 200
    # Skewed and heavy-tailed: the guarantee knows no distribution.
    calls = np.array(
        [(rng.lognormal(0, 2, new) >= conformal_of(rng.lognormal(0, 2, n), alpha)).mean() for _ in range(draws)]
    )
    expected = math.floor(alpha * (n + 1) + 1e-9) / (n + 1)  # exact for scores without ties
    error = calls.std() / math.sqrt(draws)
    assert expected <= alpha + 1e-9 and abs(calls.mean() - expected) < 4 * error
    assert calls.mean() <= alpha + 4 * error


def test_conformal_with_ties_errs_on_the_safe_side():
    rng = np.random.default_rng(0)
    calls = [(rng.integers(0, 6, 200) >= conformal_of(rng.integers(0, 6, 30), 0.2)).mean() for _ in range(1000)]
    assert np.mean(calls) <= 0.2


def conformal_of(good, alpha):
    return calibrate(good, np.zeros(len(good)), "conformal", alpha=alpha).value


@pytest.mark.parametrize("alpha, needed", [(0.05, 19), (0.1, 9), (0.01, 99), (0.5, 1), (0.03, 33), (0.3, 3)])
def test_conformal_names_how_many_good_images_the_level_needs(alpha, needed):
    assert conformal_of(np.arange(float(needed)), alpha) > needed - 1  # enough: just above the largest
    with pytest.raises(ValueError, match=rf"at least {needed} good images .* there are {needed - 1}$"):
        calibrate(np.arange(float(needed)), [0] * (needed - 1) + [1], "conformal", alpha=alpha)


# --- Edge cases ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["f1_adaptive", "youden"])
def test_with_one_class_only_its_verdicts_are_right(strategy):
    good = calibrate([1.0, 3.0, 2.0], [0, 0, 0], strategy).value
    assert 3.0 < good < 3.0001
    assert calibrate([1.0, 3.0, 2.0], [1, 1, 1], strategy).value == 1.0


def test_a_cap_on_the_only_class_is_used_up():
    scores = np.arange(10.0)
    assert calibrate(scores, np.zeros(10), "max_fpr", max_fpr=0.2).value == 7.5
    assert calibrate(scores, np.ones(10), "max_fnr", max_fnr=0.2).value == 1.5
    assert calibrate(scores, np.ones(10), "target_recall", recall=0.8).value == 1.5


@pytest.mark.parametrize(
    "strategy, options, label, needed",
    [
        ("youden", {"max_fnr": 0.1}, 0, "1 bad"),
        ("max_fnr", {"max_fnr": 0.1}, 0, "1 bad"),
        ("target_recall", {"recall": 0.9}, 0, "1 bad"),
        ("youden", {"max_fpr": 0.1}, 1, "1 good"),
        ("max_fpr", {"max_fpr": 0.1}, 1, "1 good"),
        ("normal_percentile", {"percentile": 99}, 1, "1 good"),
        ("normal_sigma", {"sigma": 3}, 1, "2 good"),
        ("conformal", {"alpha": 0.5}, 1, "1 good"),
    ],
)
def test_a_class_that_is_needed_and_absent_is_named(strategy, options, label, needed):
    with pytest.raises(ValueError, match=f"at least {needed} images"):
        calibrate([1.0, 2.0], [label, label], strategy, **options)


@pytest.mark.parametrize("strategy, options", ALL)
def test_equal_scores_get_one_verdict_or_none(strategy, options):
    request = ([2.0] * 12, [0] * 8 + [1] * 4, strategy)
    if len(options) == 2:  # both errors capped: neither verdict on everything will do
        with pytest.raises(ValueError, match=r"FPR <= 0.5 and FNR <= 0.5"):
            calibrate(*request, **options)
        return
    value = calibrate(*request, **options).value
    assert value == pytest.approx(2.0, abs=1e-7)
    all_bad = strategy in ("f1_adaptive", "youden", "max_fnr", "target_recall") and "max_fpr" not in options
    assert (value <= 2.0) == all_bad


def test_a_single_image():
    assert calibrate([2.0], [0], "f1_adaptive").value > 2.0
    assert calibrate([2.0], [1], "f1_adaptive").value == 2.0
    assert calibrate([2.0], [0], "normal_percentile", percentile=99.5).value > 2.0
    with pytest.raises(ValueError, match="at least 2 good images"):
        calibrate([2.0], [0], "normal_sigma", sigma=3)
    with pytest.raises(ValueError, match="at least 19 good images"):
        calibrate([2.0], [0], "conformal", alpha=0.05)


def test_caps_that_exclude_each_other():
    scores, labels = np.array([1.0, 2.0, 9.0]), np.array([1, 1, 0])
    assert calibrate(scores, labels, "youden", max_fpr=0.0).value > 9.0  # only a threshold above all keeps it
    with pytest.raises(ValueError, match="no threshold has FPR <= 0 and FNR <= 0"):
        calibrate(scores, labels, "youden", max_fpr=0.0, max_fnr=0.0)


@pytest.mark.parametrize("cap, allowed", [(0.1, 3), (0.3, 9), (0.7, 21)])
def test_a_share_that_is_no_binary_fraction_is_counted_exactly(cap, allowed):
    # 0.1 x 30 is not 3 in binary: a cap must not lose an image to that.
    assert (np.arange(30) >= calibrate(np.arange(30.0), np.zeros(30), "max_fpr", max_fpr=cap).value).sum() == allowed


@pytest.mark.parametrize("strategy, options", ALL)
@pytest.mark.parametrize(
    "scores, labels",
    [([], []), ([np.nan, 1.0], [0, 1]), ([np.inf, 1.0], [0, 1]), ([1.0, 2.0], [0, 2]), ([1.0, 2.0], [0])],
)
def test_impossible_input_is_refused(scores, labels, strategy, options):
    with pytest.raises(ValueError, match=r"finite|labels"):
        calibrate(np.array(scores), np.array(labels), strategy, **options)


@pytest.mark.parametrize(
    "strategy, options, message",
    [
        ("f1", {}, "'f1' is not one of f1_adaptive"),
        ("f1_adaptive", {"max_fpr": 0.1}, "'max_fpr' is not an option of f1_adaptive"),
        ("conformal", {}, "conformal needs alpha"),
        ("conformal", {"alpha": 0}, "alpha: 0 must be above 0"),
        ("conformal", {"alpha": 1}, "alpha: 1 must be below 1"),
        ("normal_percentile", {"percentile": 101}, "percentile: 101 is greater"),
        ("normal_sigma", {"sigma": 0}, "sigma: 0 must be above 0"),
        ("normal_sigma", {"sigma": math.nan}, "sigma: nan is not a finite"),
        ("max_fpr", {"max_fpr": 1.5}, "max_fpr: 1.5 is greater"),
        ("max_fnr", {"max_fnr": -0.1}, "max_fnr: -0.1 is less"),
        ("target_recall", {"recall": 2}, "recall: 2 is greater"),
    ],
)
def test_an_impossible_request_is_refused(strategy, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate([1.0, 2.0, 3.0], [0, 0, 1], strategy, **options)


# --- Numbers as text ----------------------------------------------------------------------------------------------
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


# --- Nested -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy, options", [*ALL, ("conformal", {"alpha": 0.25})])
def test_a_fold_has_no_part_in_its_own_threshold(strategy, options):
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=12), np.tile([0, 1], 6)
    folds = [str(i // 4) for i in range(12)]
    first = nested_calibration(scores, labels, folds, strategy, **options)["1"]
    changed, flipped = scores.copy(), labels.copy()
    changed[4:8] += 100.0
    flipped[4:8] = 1 - flipped[4:8]
    assert nested_calibration(changed, labels, folds, strategy, **options)["1"] == first
    outside = np.delete(scores, range(4, 8)), np.delete(labels, range(4, 8))
    assert first == calibrate(*outside, strategy, **options)
    assert (first.n_good, first.n_bad) == (4, 4)
    assert nested_calibration(scores, labels, ["0"] * 12) == {}  # no other fold: nothing to calibrate on
    # A flipped label moves the thresholds of others, never the one it is judged by.
    assert nested_calibration(scores, flipped, folds, strategy, **options)["1"] == first


def test_a_fold_that_leaves_too_few_images_is_named():
    scores, labels = np.arange(6.0), np.array([0, 0, 0, 0, 1, 0])
    with pytest.raises(ValueError, match=r"^fold 2, .*at least 1 bad images"):
        nested_calibration(scores, labels, ["0", "0", "1", "1", "2", "2"], "max_fnr", max_fnr=0.1)


def test_every_rule_is_a_strategy():
    assert set(STRATEGIES.classes) == {
        "f1_adaptive", "youden", "max_fpr", "max_fnr", "target_recall",
        "normal_percentile", "normal_sigma", "conformal", "tail", "auto", "cost", "fixed",
    }  # fmt: skip
