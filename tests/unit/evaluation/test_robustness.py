import numpy as np
import pandas as pd
import pytest
from defectflow.core.tables import SCORES
from defectflow.decision.decisions import assign_verdicts
from defectflow.evaluation.robustness import COLUMNS, robustness_figures, robustness_table
from sklearn.metrics import f1_score, roc_auc_score


def example(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 12)
    table = pd.DataFrame({"label": labels, "raw_score": rng.normal(2.0 * labels, 1), "detection": "fold"})
    table = table.assign(image_id=[f"i~{k}" for k in range(24)], fold=[str(k % 4) for k in range(24)])
    rows = [
        [f"{row.image_id}~{kind}~{strength:g}", row.image_id, "perturbed", "", row.raw_score + noise, "", np.nan]
        for row in table.itertuples()
        for kind, strength in (("blur", 0.5), ("blur", 2.0), ("rotate", 0.5), ("rotate", 2.0))
        for noise in [rng.normal(0, strength)]
    ]
    return assign_verdicts(table, "f1_adaptive").table, pd.DataFrame(rows, columns=SCORES)


def test_one_row_for_each_kind_and_strength_with_the_figures_of_its_copies():
    table, scores = example()
    found = robustness_table(table, scores)
    assert found.columns.tolist() == COLUMNS
    assert list(zip(found["perturbation"], found["strength"], strict=True)) == [
        ("none", 0), ("blur", 0.5), ("blur", 2), ("rotate", 0.5), ("rotate", 2)
    ]  # fmt: skip
    mine = scores[scores["image_id"].str.endswith("~rotate~2")].set_index("copy_of")
    own = table.set_index("image_id").loc[mine.index]
    called = mine["raw_score"] >= own["threshold"]  # the threshold of the source
    row = found.iloc[4]
    assert row["n"] == 24 and row["auroc"] == roc_auc_score(own["label"], mine["raw_score"])
    assert row["f1"] == pytest.approx(f1_score(own["label"], called))
    assert row["recall"] == called[own["label"] == 1].mean()
    assert row["false_positive_rate"] == called[own["label"] == 0].mean()
    assert row["changed_verdicts"] == (called != (own["predicted_label"] == 1)).mean() > 0
    assert found["changed_verdicts"][0] == 0 and found["auroc"][0] == roc_auc_score(table["label"], table["raw_score"])
    together = robustness_figures(table, scores)
    assert together["n_copies"] == 96 and together["auroc_of_the_sources"] == found["auroc"][0]
    assert [row["strength"] for row in together["table"]] == [0, 0.5, 2, 0.5, 2]
    assert together["changed_verdicts"] == pytest.approx(found["changed_verdicts"][1:].mean())


def test_without_copies_there_is_the_row_of_the_images_alone():
    table, scores = example()
    assert robustness_figures(table, scores[:0]) is None
    assert robustness_table(table, scores[:0])["perturbation"].tolist() == ["none"]


def test_copies_of_images_that_do_not_count_do_not_count():
    table, scores = example()
    some = table.assign(detection=np.where(table.index % 2, "calibration", "test"))
    assert robustness_table(some, scores)["n"].tolist() == [12] * 5
