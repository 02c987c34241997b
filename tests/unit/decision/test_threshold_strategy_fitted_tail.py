import numpy as np
import pytest
from defectflow.decision.chosen_threshold import calibrate
from defectflow.decision.threshold_strategies import STRATEGIES, strategy_of
from defectflow.decision.threshold_strategy_fitted_tail import tail_level
from scipy import stats


@pytest.mark.parametrize("alpha", [0.05, 0.02])
@pytest.mark.parametrize("n", [12, 40, 200])
@pytest.mark.parametrize(
    "scores", [stats.norm(5), stats.gumbel_r(), stats.lognorm(0.6)], ids=["normal", "gumbel", "log"]
)
def test_the_promised_rate_of_false_alarms_comes_out_whatever_the_tail(scores, n, alpha):
    rng = np.random.default_rng(n)
    levels = [tail_level(np.sort(scores.rvs(n, random_state=rng)), alpha) for _ in range(60)]
    rates = np.array([scores.sf(level.value) for level in levels])
    error = 3 * rates.std() / np.sqrt(len(rates))
    assert 0.7 * alpha - error < rates.mean() < 1.3 * alpha + error
    inside = [level.interval[0] <= rate <= level.interval[1] for level, rate in zip(levels, rates, strict=True)]
    assert np.mean(inside) > 0.7 and all(low < alpha < high for low, high in (level.interval for level in levels))


def test_the_largest_score_promises_no_rate_and_the_tail_does():
    """With few good images the largest score is exceeded often, with many hardly ever."""
    rng, rates = np.random.default_rng(0), {}
    for n in (12, 300):
        draws = [rng.normal(size=n) for _ in range(40)]
        for strategy, options in (("f1_adaptive", {}), ("tail", {"alpha": 0.05})):
            cuts = [calibrate(scores, np.zeros(n), strategy, **options).value for scores in draws]
            rates[n, strategy] = stats.norm.sf(cuts).mean()
    assert rates[12, "f1_adaptive"] > 0.07 and rates[300, "f1_adaptive"] < 0.01
    assert 0.02 < rates[12, "tail"] < 0.08 and 0.03 < rates[300, "tail"] < 0.07


def test_scale_and_place_of_the_scores_do_not_matter_and_neither_do_bad_ones():
    good = np.random.default_rng(1).gamma(3, size=30)
    cut = calibrate(good, np.zeros(30), "tail", alpha=0.05).value
    assert calibrate(100 * good + 7, np.zeros(30), "tail", alpha=0.05).value == pytest.approx(100 * cut + 7)
    scores, labels = np.append(good, [50.0, 60.0]), np.repeat([0, 1], [30, 2])
    assert calibrate(scores, labels, "tail", alpha=0.05).value == cut
    assert calibrate(good, np.zeros(30), "tail", alpha=0.01).value > cut


def test_a_defect_among_the_good_ones_does_not_lift_the_threshold():
    good = np.append(np.random.default_rng(2).normal(10, 1, 29), 40.0)
    rule, ordered = strategy_of("tail", {"alpha": 0.05}), np.sort(good)
    cut = calibrate(good, np.zeros(30), "tail", alpha=0.05).value
    assert cut == calibrate(good[:29], np.zeros(29), "tail", alpha=0.05).value < 14 < rule.counting_all(ordered)
    assert rule.promise(ordered).n_good == 29


def test_equal_scores_and_too_few():
    assert calibrate([2.0] * 12, np.zeros(12), "tail", alpha=0.05).value == pytest.approx(2.0)
    assert calibrate(np.arange(8.0), np.zeros(8), "tail", alpha=0.05).value > 7
    with pytest.raises(ValueError, match="at least 8 good images"):
        calibrate(np.arange(7.0), np.zeros(7), "tail", alpha=0.05)


@pytest.mark.parametrize(
    ("n_good", "n_bad", "name"),
    [(12, 0, "tail"), (12, 4, "tail"), (12, 5, "f1_adaptive"), (11, 4, "f1_adaptive"), (40, 24, "f1_adaptive")],
)
def test_auto_looks_at_how_many_are_labelled(n_good, n_bad, name):
    chosen = strategy_of("auto", {}).settled(n_good, n_bad)
    assert chosen.name == name and chosen.read_by("evaluate") == ({"alpha": 0.05} if name == "tail" else {})
    scores = np.arange(float(n_good + n_bad))
    labels = np.repeat([0, 1], [n_good, n_bad])
    expected = calibrate(scores, labels, name, **chosen.read_by("evaluate"))
    assert calibrate(scores, labels, "auto").value == expected.value


def test_other_strategies_are_what_they_are():
    for name in set(STRATEGIES.classes) - {"auto", "cost", "fixed"}:
        rule = strategy_of(name, STRATEGIES.classes[name].compared)
        assert rule.settled(3, 0) is rule


def test_conformal_promises_with_the_spread_of_an_order_statistic():
    rng = np.random.default_rng(3)
    promise = strategy_of("conformal", {"alpha": 0.05}).promise(np.arange(99.0))
    cuts = [np.sort(rng.random(99))[94] for _ in range(2000)]
    np.testing.assert_allclose(promise.interval, np.quantile(1 - np.array(cuts), [0.05, 0.95]), atol=0.005)
    assert strategy_of("f1_adaptive", {}).promise(np.arange(99.0)) is None
