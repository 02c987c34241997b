import numpy as np
import pytest
from defectflow.metrics import intervals
from defectflow.metrics.bootstrap import bootstrap
from defectflow.metrics.intervals import auroc_interval, with_width
from defectflow.metrics.metrics import wilson
from scipy.stats import norm


def two_classes(good, bad):
    return np.repeat([0, 1], [good, bad])


@pytest.mark.parametrize("good, bad", [(6, 6), (12, 9), (40, 24), (1, 1), (300, 3)])
def test_at_the_rim_the_interval_has_a_width_and_stays_within_0_and_1(good, bad):
    labels = two_classes(good, bad)
    units = np.arange(len(labels)).astype(str)
    top, bottom = (auroc_interval(labels, sign * labels, units) for sign in (1.0, -1.0))
    assert top[1] == 1.0 and 0 < top[0] < 0.99
    assert bottom == pytest.approx([0.0, 1 - top[0]])


def test_the_ends_are_where_the_measured_value_is_as_unlikely_as_asked():
    # By hand, Newcombe (2006), method 5: 12 good, 9 bad, 100 of 108 pairs.
    labels, scores = two_classes(12, 9), np.r_[np.arange(12.0), np.full(9, 20.0)]
    scores[12] = 3.5  # below 8 of 12 good ones
    low, high = auroc_interval(labels, scores, np.arange(21).astype(str))
    value, half = 100 / 108, 21 / 2 - 1
    for end in (low, high):
        variance = end * (1 - end) / 108 * (1 + half * ((1 - end) / (2 - end) + end / (1 + end)))
        assert abs(value - end) == pytest.approx(1.959964 * variance**0.5, rel=1e-4)
    assert low < value < high < 1


@pytest.mark.parametrize("good, bad", [(6, 6), (12, 9)])
@pytest.mark.parametrize("area", [0.5, 0.9, 0.99])
def test_nineteen_of_twenty_intervals_hold_the_true_value_also_near_1(good, bad, area):
    rng, labels = np.random.default_rng(1), two_classes(good, bad)
    units, shift = np.arange(len(labels)).astype(str), norm.ppf(area) * 2**0.5
    spans = [auroc_interval(labels, rng.normal(shift * labels), units) for _ in range(300)]
    assert 0.92 <= np.mean([low <= area <= high for low, high in spans]) <= 1


@pytest.mark.parametrize("area, least", [(0.5, 0.88), (0.97, 0.92)])
def test_photographs_of_one_session_are_not_taken_for_independent(area, least):
    rng, labels = np.random.default_rng(2), two_classes(24, 24)
    sessions = np.repeat(np.arange(12), 4)
    shift, held, alone = norm.ppf(area) * 2**0.5, 0, 0
    for _ in range(200):
        common = rng.normal(size=12)[sessions]
        scores = shift * labels + 0.7**0.5 * common + 0.3**0.5 * rng.normal(size=48)
        low, high = auroc_interval(labels, scores, sessions)
        held += low <= area <= high
        low, high = auroc_interval(labels, scores, np.arange(48))
        alone += low <= area <= high
    assert held / 200 >= least > alone / 200 - 0.02


def test_at_the_rim_groups_count_and_not_their_photographs():
    labels = two_classes(20, 20)
    groups = np.repeat(np.arange(10), 4)
    few = auroc_interval(two_classes(5, 5), two_classes(5, 5).astype(float), np.arange(10))
    assert auroc_interval(labels, labels.astype(float), groups) == pytest.approx(few)


def test_copies_in_a_group_say_no_more_than_one_photograph():
    rng = np.random.default_rng(0)
    labels = two_classes(12, 9)
    scores = rng.normal(1.5 * labels)
    once = auroc_interval(labels, scores, np.arange(21))
    tenfold = auroc_interval(*(np.repeat(v, 10) for v in (labels, scores)), np.repeat(np.arange(21), 10))
    assert tenfold == pytest.approx(once, abs=0.02)


def test_one_class_has_no_interval():
    assert auroc_interval(np.zeros(3), np.arange(3.0), list("abc")) is None
    assert auroc_interval(np.array([]), np.array([]), []) is None


def test_a_bootstrap_with_a_width_stays_as_it_is():
    labels = two_classes(12, 9)
    scores = np.random.default_rng(0).normal(labels)
    called = (scores > 0.5).astype(int)
    units = np.arange(21).astype(str)
    spread = bootstrap(labels, scores, called, units, resamples=100)
    assert with_width(spread, labels, called, units, [0.1, 0.2]) == spread


def test_a_figure_at_the_rim_gets_wilsons_of_the_units_it_is_about():
    labels = two_classes(8, 4)
    called = labels.copy()
    called[0] = 1  # one false alarm: recall and false negatives alone are at the rim
    units = np.repeat(list("abcdef"), 2)
    spread = with_width(bootstrap(labels, labels, called, units, resamples=100), labels, called, units, [0.4, 1.0])
    assert spread["recall"] == wilson(2, 2) and spread["false_negative_rate"] == wilson(0, 2)
    assert spread["true_positive"] == [4 * wilson(2, 2)[0], 4] and spread["auroc"] == [0.4, 1.0]


@pytest.mark.parametrize(
    "interval, text",
    [
        ([0.5, 0.9], ("0.50", "0.90")),
        ([0.123, 0.456], ("0.12", "0.46")),
        ([0.9991, 1.0], ("0.99", "1.00")),  # outwards, not "1.00 to 1.00"
        ([0.0, 0.0004], ("0.00", "0.01")),
        ([0.5001, 0.5002], ("0.50", "0.51")),
        ([0.3, 0.3], ("0.30", "0.30")),
    ],
)
def test_an_interval_never_looks_like_one_number(interval, text):
    assert intervals.text(interval) == text


def test_below_one_half_by_more_than_chance():
    assert intervals.reversed_order([0.0, 0.3]) and not intervals.reversed_order([0.2, 0.5])
    assert not intervals.reversed_order(None)


def test_three_against_three_in_perfect_order_may_be_chance():
    found = auroc_interval(two_classes(3, 3), np.arange(6.0), list("abcdef"))
    assert found[1] == 1.0 and not intervals.better_than_chance(found) and not intervals.reversed_order(found)
    assert intervals.better_than_chance([0.51, 0.9]) and not intervals.better_than_chance(None)
