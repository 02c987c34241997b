import numpy as np
import pytest
from defectflow.decision.chosen_threshold import calibrate
from defectflow.decision.outlying_good import FEWEST, limit, tail_level
from defectflow.decision.threshold_strategies import just_above

KINDS = {
    "bell": lambda rng, n: rng.normal(5, 1, n),
    "gumbel": lambda rng, n: rng.gumbel(5, 1, n),
    "skew": lambda rng, n: rng.lognormal(0, 0.3, n),
    "even": lambda rng, n: rng.uniform(1, 2, n),
}


def ordinary(seed=0, n=29):
    return np.sort(np.random.default_rng(seed).gumbel(1, 0.1, n))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [12, 30, 100])
def test_on_ordinary_scores_few_are_set_aside_and_false_alarms_stay_those_of_the_largest_score(kind, n):
    rng = np.random.default_rng(1)
    draws = [np.sort(KINDS[kind](rng, n)) for _ in range(400)]
    found = [limit(scores) for scores in draws]
    assert np.mean([entry.aside > 0 for entry in found]) < 0.36
    new = KINDS[kind](rng, 4000)
    alarms, largest = (np.mean([(new > value).mean() for value in values]) for values in (
        [entry.value for entry in found], [scores[-1] for scores in draws]
    ))  # fmt: skip
    assert alarms < largest + (0.02 if n > 20 else 0.06)


@pytest.mark.parametrize("far", [1, 2])
def test_one_or_two_far_ones_do_not_set_the_limit(far):
    plain = 0
    for seed in range(60):
        scores = ordinary(seed)
        found = limit(np.append(scores, [3.0, 3.2][:far]))
        assert found.aside >= far and found.value <= scores[-1]
        plain += found.aside > far  # a plain one set aside as well
    assert plain <= 12


def test_more_than_two_are_part_of_what_good_looks_like():
    scores = np.append(ordinary(), np.linspace(3, 3.4, 5))
    assert limit(scores) == (3.4, 0)


def test_with_too_few_others_the_largest_counts():
    scores = np.append(ordinary(n=FEWEST - 1), 9.0)
    assert limit(scores).value == 9.0 and limit(np.array([2.0])) == (2.0, 0)
    assert limit(np.full(30, 2.0)) == (2.0, 0)  # without any spread nothing is far


def test_the_limit_follows_the_unit_of_the_scores():
    scores = np.append(ordinary(), 3.0)
    assert limit(7 * scores).value == pytest.approx(7 * limit(scores).value)


def test_the_level_is_exceeded_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(3000):
        scores = rng.exponential(2.0, 30) + 1
        shares.append(np.exp(-(tail_level(scores, 0.05) - 1) / 2))  # the true probability of exceeding it
    assert np.mean(shares) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("strategy, options", [("f1_adaptive", {}), ("youden", {})])
def test_thresholds_of_good_images_only_are_not_set_by_one_far_above_the_others(strategy, options):
    scores = ordinary()
    with_speck = np.append(scores, 3.0)
    value = calibrate(with_speck, np.zeros(30), strategy, **options).value
    assert value == just_above(scores[-1])
    assert calibrate(scores, np.zeros(29), strategy, **options).value == just_above(scores[-1])
    labels = np.append(np.zeros(30), 1)  # with a bad image the labels decide
    assert calibrate(np.append(with_speck, 4.0), labels, strategy, **options).value == pytest.approx(3.5)


def test_youden_with_a_cap_on_false_alarms_keeps_it():
    scores = np.append(ordinary(), 3.0)
    assert calibrate(scores, np.zeros(30), "youden", max_fpr=0.0).value == just_above(3.0)
