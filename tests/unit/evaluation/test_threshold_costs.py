import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError
from defectflow.evaluation.threshold_costs import Costs, at_threshold, band_shares, known_of, of_strategy, sum_interval
from defectflow.metrics.metrics import wilson

COSTS = Costs(miss=100, false_alarm=5, look=1, bad_share=0.1)


def table(good, bad, groups=None, folds=5):
    raw = np.array([*good, *bad], float)
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(len(raw))],
            "group": "" if groups is None else groups,
            "label": np.repeat([0.0, 1.0], [len(good), len(bad)]),
            "detection": "fold",
            "fold": [str(k % folds) for k in range(len(raw))],
            "raw_score": raw,
        }
    )


def test_the_figures_of_a_known_case():
    known = known_of(table(range(10), [5.5, 8.5, 11.5, 12.5]))
    found = at_threshold(known, 8.0, COSTS)
    assert found["confusion_matrix"] == {
        "true_negative": 8, "false_positive": 2, "false_negative": 1, "true_positive": 3,
    }  # fmt: skip
    assert (found["missed"], found["false_alarms"], found["good_reviewed"], found["bad_reviewed"]) == (1, 2, 0, 0)
    thousand = {name: entry["value"] for name, entry in found["per_thousand"].items()}
    # Of 1,000 parts 100 are bad, of which a quarter is missed; a fifth of the 900 good ones is a false alarm.
    assert thousand == pytest.approx({"missed": 25, "false_alarms": 180, "looks": 0, "cost": 25 * 100 + 180 * 5})
    assert found["miss_rate"]["interval"] == wilson(1, 4)


def test_a_person_decides_what_lies_in_the_band():
    known = known_of(table(range(10), [5.5, 8.5, 11.5, 12.5]))
    found = at_threshold(known, 8.0, COSTS, (5.0, 9.0))
    # 5, 6, 7, 8 and 5.5, 8.5 go to a person; 9 is left as a false alarm.
    assert (found["missed"], found["false_alarms"], found["good_reviewed"], found["bad_reviewed"]) == (0, 1, 4, 2)
    assert found["per_thousand"]["looks"]["value"] == pytest.approx(900 * 0.4 + 100 * 0.5)
    assert found["per_thousand"]["cost"]["value"] == pytest.approx(900 * 0.1 * 5 + 360 + 50)
    assert band_shares(known, (5.0, 9.0)) == {"max_fpr": 0.1, "max_fnr": 0.0}


def test_no_error_among_few_photographs_is_not_a_promise_of_none():
    known = known_of(table(range(10), [20, 21, 22]))
    cost = at_threshold(known, 15.0, COSTS)["per_thousand"]["cost"]
    assert cost["value"] == 0 == cost["interval"][0] and cost["interval"][1] > 1000


def test_photographs_of_a_group_count_once_in_an_interval():
    groups = [f"g{k // 4}" for k in range(48)]
    values = list(range(24)), list(range(10, 34))
    alone, together = known_of(table(*values)), known_of(table(*values, groups=groups))
    assert (alone.unit, together.unit, together.n_good, together.n_bad) == ("images", "groups", 6, 6)
    widths = [np.ptp(at_threshold(known, 15.0, COSTS)["miss_rate"]["interval"]) for known in (alone, together)]
    assert widths[1] > 1.5 * widths[0]


def test_a_label_that_does_not_occur_has_no_figures():
    found = at_threshold(known_of(table(range(10), [])), 8.0, COSTS)
    assert found["miss_rate"] is None and found["per_thousand"]["missed"] is None
    assert found["per_thousand"]["cost"] is None and found["false_alarm_rate"]["value"] == 0.2
    with pytest.raises(UserError, match="labelled good and bad"):
        band_shares(known_of(table(range(10), [])), (1, 2))


def test_the_interval_of_a_sum_holds_its_value_as_often_as_it_says():
    rng = np.random.default_rng(0)
    weights, shares, n = (80.0, 3.0), (0.1, 0.2), 40
    true = sum(w * p for w, p in zip(weights, shares, strict=True))
    held = 0
    for _ in range(1000):
        counts = rng.binomial(n, shares)
        terms = [(w, {"value": c / n, "interval": wilson(int(c), n)}) for w, c in zip(weights, counts, strict=True)]
        low, high = sum_interval(terms)
        held += low <= true <= high
    assert 930 < held < 990


def test_a_strategy_is_measured_on_thresholds_that_it_chose_on_other_folds():
    # One bad image far below the others pulls the threshold down, except the one that it is judged by.
    data = table(np.arange(20.0), [*np.arange(30.0, 40.0), 2.0])
    known = known_of(data)
    found = of_strategy(data, known, COSTS, "max_fnr", {"max_fnr": 0.0})
    alone = at_threshold(known, found["threshold"], COSTS)
    assert alone["missed"] == 0 and found["missed"] == 1 and found["band"] is None
    banded = of_strategy(data, known, COSTS, "f1_adaptive", {}, {"max_fpr": 0.0, "max_fnr": 0.0})
    assert banded["band"][0] <= banded["threshold"] <= banded["band"][1] and banded["good_reviewed"] > 0


def test_the_cost_strategy_costs_least_where_it_is_chosen():
    rng = np.random.default_rng(2)
    data = table(rng.normal(0, 1, 60), rng.normal(2, 1, 30))
    known = known_of(data)
    options = {"miss": COSTS.miss, "false_alarm": COSTS.false_alarm, "bad_share": COSTS.bad_share}
    value = of_strategy(data, known, COSTS, "cost", options)["threshold"]
    costs = [at_threshold(known, cut, COSTS)["per_thousand"]["cost"]["value"] for cut in known.raw_score]
    assert at_threshold(known, value, COSTS)["per_thousand"]["cost"]["value"] == pytest.approx(min(costs))


def test_a_strategy_that_cannot_be_applied_says_why():
    data = table(range(12), [])
    found = of_strategy(data, known_of(data), COSTS, "max_fnr", {"max_fnr": 0.1})
    assert "at least 1 bad images" in found["problem"] and "config.yaml" not in found["problem"]
    lone = table(range(3), range(3), folds=1)
    assert "label" in of_strategy(lone, known_of(lone), COSTS, "f1_adaptive", {})["problem"]


@pytest.mark.parametrize("wrong", [{"miss": -1}, {"look": float("inf")}, {"bad_share": 0}, {"bad_share": 1}])
def test_costs_are_checked(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Costs(**wrong).check()
