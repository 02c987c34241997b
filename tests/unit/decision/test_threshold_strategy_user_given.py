import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.decision.chosen_threshold import calibrate, nested_calibration
from defectflow.decision.threshold_strategies import strategy_of
from defectflow.decision.threshold_strategy_user_given import of_peaks

LABELS = np.array([0, 0, 0, 0, 1, 1])
SCORES = np.array([1.0, 2.0, 3.0, 5.0, 4.0, 6.0])


def cost(scores, labels, cut, miss, false_alarm, bad_share):
    missed, alarms = np.mean(scores[labels == 1] < cut), np.mean(scores[labels == 0] >= cut)
    return bad_share * miss * missed + (1 - bad_share) * false_alarm * alarms


@pytest.mark.parametrize("miss", [1, 10, 300])
@pytest.mark.parametrize("bad_share", [0.005, 0.1, 0.6])
def test_no_threshold_costs_less_than_the_chosen_one(miss, bad_share):
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [40, 15])
    scores = rng.normal(labels * 1.5, 1)
    told = {"miss": miss, "false_alarm": 2, "bad_share": bad_share}
    value = calibrate(scores, labels, "cost", **told).value
    costs = [cost(scores, labels, cut, **told) for cut in [*scores, scores.max() + 1]]
    assert cost(scores, labels, value, **told) == pytest.approx(min(costs))


def test_a_dear_miss_lowers_the_threshold_and_rare_defects_raise_it():
    told = {"miss": 100, "false_alarm": 1, "bad_share": 0.1}
    assert 3 < calibrate(SCORES, LABELS, "cost", **told).value <= 4
    assert calibrate(SCORES, LABELS, "cost", **told | {"bad_share": 0.0001}).value > 5
    # Of two equal costs the lower threshold, which misses less.
    assert calibrate(SCORES, LABELS, "cost", miss=0, false_alarm=0, bad_share=0.1).value == 1


def test_how_many_are_bad_among_the_labelled_does_not_matter():
    told = {"miss": 10, "false_alarm": 3, "bad_share": 0.2}
    many = np.repeat(SCORES, np.where(LABELS == 1, 5, 1)), np.repeat(LABELS, np.where(LABELS == 1, 5, 1))
    assert calibrate(*many, "cost", **told).value == calibrate(SCORES, LABELS, "cost", **told).value


@pytest.mark.parametrize(("labels", "kind"), [([0] * 6, "bad"), ([1] * 6, "good")])
def test_costs_need_both_kinds(labels, kind):
    with pytest.raises(ValueError, match=f"at least 1 {kind} images"):
        calibrate(SCORES, np.array(labels), "cost", miss=1, false_alarm=1, bad_share=0.5)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_of_bad_parts_lies_between(share):
    with pytest.raises(UserError, match="bad_share"):
        strategy_of("cost", {"miss": 1, "false_alarm": 1, "bad_share": share})


def test_a_fixed_threshold_is_the_same_in_every_fold_and_without_bad_images():
    found = nested_calibration(SCORES, LABELS, list("001122"), "fixed", value=2.5)
    assert [threshold.value for threshold in found.values()] == [2.5] * 3
    alone = calibrate(SCORES[:4], LABELS[:4], "fixed", value=2.5)
    assert alone.value == 2.5 and alone.table["chosen"].tolist() == [False, False, True, False, False]
    assert strategy_of("fixed", {"value": 2.5}).counting_all(SCORES) is None


def test_a_fixed_raw_score_says_nothing_of_maps():
    assert of_peaks("fixed", {"value": 2.5}) == ("auto", {})
    assert of_peaks("max_fpr", {"max_fpr": 0.1}) == ("max_fpr", {"max_fpr": 0.1})
