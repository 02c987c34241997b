import copy
from pathlib import Path

import pytest
from defectflow.evaluation import claims
from defectflow.metrics import metrics
from scipy.stats import beta

MATRIX = {"true_negative": 38, "false_positive": 2, "false_negative": 0, "true_positive": 24}


def told(sentences):
    return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")


def figures(matrix=MATRIX, **image):
    tn, fp, fn, tp = matrix.values()
    return {
        "n_samples": tn + fp + fn + tp,
        "image": {
            "auroc": 0.93, "n_good": tn + fp, "n_bad": fn + tp, "n_groups": 18, "confusion_matrix": matrix,
            **metrics.rates(matrix), **image,
        },
        "confidence_intervals": {
            "auroc": [0.85, 0.99],
            "recall": metrics.wilson(tp, tp + fn),
            "false_positive_rate": metrics.wilson(fp, tn + fp),
        },
        "threshold": {},
        "baseline": {"accuracy": metrics.ratio(max(tn + fp, fn + tp), sum(matrix.values())), "majority_class": "good"},
        "by_defect": {"crack": {"n": 12}, "hole": {"n": 4}},
        "pixel": {"n_bad_with_mask": 24},
        "review": None,
    }  # fmt: skip


def test_no_miss_is_told_with_the_rate_it_still_allows():
    text = told(claims.proven(figures()))
    assert "None of the 24 bad photographs were missed. That still fits a miss rate of up to 14 %" in text
    assert "2 of the 40 good photographs were called bad" in text and "between 1.4 % and 17 %" in text


def test_misses_are_told_as_one_minus_recall():
    text = told(claims.proven(figures(MATRIX | {"false_negative": 1, "true_positive": 23})))
    assert "1 of the 24 bad photographs was missed. The miss rate in the long run is between 0.7 % and 20 %." in text


def test_an_auroc_that_may_be_chance_is_not_called_better_than_guessing():
    sure, unsure = figures(), figures()
    unsure["confidence_intervals"]["auroc"] = [0.48, 0.9]
    assert "better than guessing" in claims.proven(sure)[0]
    assert "better than guessing" not in told(claims.proven(unsure)) and "guessing (50 %)" in told(
        claims.proven(unsure)
    )


def test_worse_than_guessing_asks_for_the_labels():
    data = figures(auroc=0.08)
    data["confidence_intervals"]["auroc"] = [0.0, 0.3]
    text = told(claims.proven(data))
    assert "worse than guessing (50 %). Are the labels swapped?" in text and "better" not in text


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.001])
def test_the_number_without_error_is_the_smallest_whose_exact_limit_is_below_the_rate(rate):
    n = claims.without_error(rate)

    def limit(n):
        return beta.ppf(0.95, 1, n)  # Clopper-Pearson, one-sided, no error in n

    assert limit(n) <= rate < limit(n - 1)


def test_alarms_in_use_follow_from_a_million_parts_counted():
    found = figures()
    found["image"]["recall"], found["confidence_intervals"]["false_positive_rate"] = 0.8, [0.0, 0.05]
    bad, good = 10_000, 990_000  # one part in a hundred is bad
    assert claims.alarms_in_use(found) == pytest.approx(0.8 * bad / (0.8 * bad + 0.05 * good))
    found["image"]["recall"] = None
    assert claims.alarms_in_use(found) is None


def test_no_false_alarm_does_not_make_every_alarm_real():
    text = told(claims.not_proven(figures(MATRIX | {"true_negative": 40, "false_positive": 0})))
    assert "as few as 10 % of the alarms may be real" in text


def test_the_page_on_verdicts_states_the_same_numbers():
    page = (Path(__file__).parents[3] / "docs/verdicts.md").read_text()
    needed = [f"{claims.without_error(rate):,}" for rate in (0.1, 0.05, 0.02, 0.01, 0.001)]
    assert f"| photographs without one error | {' | '.join(needed)} |" in page
    real = [0.9 * bad / (0.9 * bad + 0.05 * (1 - bad)) for bad in (1 / 3, 0.1, 0.01, 0.001)]
    assert f"| alarms that are real | {' | '.join(f'{share:.0%}'.replace('%', ' %') for share in real)} |" in page


def test_what_is_not_proven_names_what_was_too_few():
    text = told(claims.not_proven(figures()))
    assert "299 bad photographs" in text and "hole fewer than ten" in text and "18 groups" in text
    apart = figures(leave_group_out={"auroc": 0.75})
    assert "with whole sessions held out the AUROC is 75 %" in told(claims.not_proven(apart))


def test_one_class_or_none():
    good_only = figures({"true_negative": 9, "false_positive": 1, "false_negative": 0, "true_positive": 0}, auroc=None)
    assert not any("missed" in text for text in claims.proven(good_only))
    assert claims.not_proven(good_only)[0].startswith("How many defects are missed")
    nothing = figures(dict.fromkeys(MATRIX, 0), auroc=None)
    nothing["n_samples"], nothing["by_defect"] = 0, {}
    assert claims.proven(nothing) == [] and len(claims.not_proven(nothing)) >= 2


def test_the_review_band_is_told_with_what_is_left():
    data = copy.deepcopy(figures())
    data["review"] = {
        "n_images": 64,
        "n_reviewed": 9,
        "share_reviewed": 9 / 64,
        "missed_left": 0,
        "false_alarms_left": 1,
    }
    assert "no missed defects and 1 false alarm are left" in claims.proven(data)[-1]


SHARES = [(0, "0 %"), (1, "100 %"), (0.05, "5 %"), (0.042, "4.2 %"), (0.5, "50 %"), (0.938, "93.8 %")]
SHARES += [(0.9996, "99.96 %"), (0.0001, "0.01 %")]  # nearly all is not all


@pytest.mark.parametrize(("share", "text"), SHARES)
def test_percentages(share, text):
    assert told([claims.percent(share)]) == text


def test_photographs_without_sessions_are_not_called_so_many_groups():
    text = told(claims.not_proven(figures(n_groups=64)))
    assert "64 groups" not in text and "column group" in text
    assert "18 groups" in told(claims.not_proven(figures()))
