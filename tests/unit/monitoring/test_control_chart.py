import numpy as np
import pytest
from defectflow.monitoring import control_chart as chart


@pytest.mark.parametrize("references", [12, 100])
def test_charts_of_what_has_not_changed_give_one_false_alarm_in_two_thousand(references):
    charts, steps, many = 6, 2000, 60
    random = np.random.default_rng(5)
    height = chart.limit(references, charts)
    found = 0
    for _ in range(many * charts):
        known, values = random.lognormal(size=references), random.lognormal(size=steps)
        found += len(chart.excursions(chart.ewma(chart.normal_scores(values, known)), height))
        found += len(chart.differing(values, known, charts))
    assert found <= 1.35 * many * steps / chart.PER_ALARM


@pytest.mark.parametrize("shift, references", [(1.5, 40), (2.0, 15), (-1.5, 100)])
def test_a_shift_is_noticed_within_fifty_and_dated(shift, references):
    random, seen, dated = np.random.default_rng(6), [], []
    for _ in range(60):
        known = random.normal(size=references)
        values = np.concatenate([random.normal(size=200), random.normal(size=50) + shift])
        path = chart.ewma(chart.normal_scores(values, known))
        alarms = [a for a in chart.excursions(path, chart.limit(references, 6)) if a.noticed >= 200]
        seen.append(bool(alarms) and alarms[0].up == (shift > 0))
        dated += [alarm.first - 200 for alarm in alarms[:1]]
    assert np.mean(seen) >= 0.9
    assert abs(np.median(dated)) <= 8


def test_one_outlier_is_no_drift_and_neither_are_single_defects():
    known = np.random.default_rng(7).normal(size=50)
    values = np.random.default_rng(8).normal(size=300)
    values[::25] = 1e6
    assert chart.excursions(chart.ewma(chart.normal_scores(values, known)), chart.limit(50, 6)) == []


def test_a_change_of_spread_alone_is_found_by_the_test_of_two_samples():
    random = np.random.default_rng(9)
    known = random.normal(size=100)
    values = np.concatenate([random.normal(size=100), 5 * random.normal(size=50)])
    assert [block.first for block in chart.differing(values, known, 6)] == [100]


def test_the_limit_is_wider_with_fewer_references():
    assert chart.limit(12, 6) > chart.limit(100, 6) > 0
