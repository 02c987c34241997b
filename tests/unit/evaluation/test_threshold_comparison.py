import numpy as np
import pandas as pd
import pytest
from defectflow.decision.threshold_strategies import STRATEGIES
from defectflow.evaluation.threshold_comparison import ALTERNATIVES, alternatives


def table(good, bad, folds=5):
    raw = np.array([*good, *bad], float)
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(len(raw))],
            "group": "",
            "label": np.repeat([0.0, 1.0], [len(good), len(bad)]),
            "detection": "fold",
            "fold": [str(k % folds) for k in range(len(raw))],
            "raw_score": raw,
        }
    )


def test_every_strategy_stands_beside_the_one_of_the_run_which_comes_first():
    rows = alternatives(table(np.arange(40), np.arange(30, 60)), "youden", {"max_fpr": 0.2})
    assert [row["ours"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert (rows[0]["strategy"], rows[0]["options"]) == ("youden", {"max_fpr": 0.2})
    assert {row["strategy"] for row in rows} == set(STRATEGIES.classes) - {"auto", "cost", "fixed"} and len(
        rows
    ) == len(ALTERNATIVES) + 1
    assert rows[0]["f1_difference"].value == 0


def test_the_default_setting_is_not_listed_twice():
    rows = alternatives(table(np.arange(40), np.arange(30, 60)), "f1_adaptive", {})
    assert len(rows) == len(ALTERNATIVES)


def test_each_image_is_judged_by_a_threshold_chosen_without_its_fold():
    # The one good image with a high score must not raise the percentile that judges it.
    data = table([*range(39), 1000], range(100, 120))
    row = next(r for r in alternatives(data, "f1_adaptive", {}) if r["strategy"] == "normal_percentile")
    assert row["confusion_matrix"]["false_positive"] >= 1
    assert row["threshold"] < 100


def test_a_strategy_that_needs_more_images_says_so_and_the_others_are_told():
    rows = {row["strategy"]: row for row in alternatives(table(range(12), range(10, 19)), "f1_adaptive", {})}
    assert "19 good" in rows["conformal"]["problem"] and "config.yaml" not in rows["conformal"]["problem"]
    assert "problem" not in rows["youden"] and rows["youden"]["recall"] == pytest.approx(1, abs=0.4)


def test_without_bad_images_recall_is_unknown():
    rows = {row["strategy"]: row for row in alternatives(table(range(40), []), "f1_adaptive", {})}
    assert rows["normal_percentile"]["recall"] is None and rows["normal_percentile"]["f1_difference"] is None
    assert "problem" in rows["max_fnr"]
