import copy
import json
import re

import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError, write_json
from defectflow.core.tables import PREDICTIONS, SPLITS, read_table, write_table
from defectflow.metrics import metrics
from defectflow.reporting import leaderboard

MATRIX = {"true_negative": 10, "false_positive": 2, "false_negative": 1, "true_positive": 8}
METRICS = {
    "accuracy": 0.8, "precision": 0.7, "recall": 0.9, "f1": 0.79, "auroc": 0.85, "n_samples": 21,
    "threshold": {"value": 4.5, "strategy": "max_fpr", "options": {"max_fpr": 0.2}},
    "review": {"share_reviewed": 0.2, "missed_left": 0, "false_alarms_left": 1},
    "image": {
        "average_precision": 0.88, "false_positive_rate": 2 / 12, "leave_group_out": {"auroc": 0.6},
        "confusion_matrix": MATRIX,
    },
    "pixel": {"in_part": {"auroc": 0.9, "au_pro": 0.7}, "full_frame": {"auroc": 0.99, "au_pro": 0.95}},
    "segmentation": {
        "masks": {"sources": {"constant": 2, "template": 9}},
        "prior": {"constant": {"iou_mean": 0.92}, "template": {"iou_mean": 0.98}},
    },
    "confidence_intervals": {"auroc": [0.7, 0.95], "recall": [0.5, 1.0], "false_positive_rate": [0.05, 0.4]},
}  # fmt: skip
LABELS = np.repeat([0, 1], [12, 9])


def save(root, recipe, scores=None, **changes):
    """A run of 21 labelled images in three groups and one without a label; ``scores`` of the labelled ones."""
    path = root / "results" / recipe / "metrics.json"
    write_json(path, {**copy.deepcopy(METRICS), **changes})
    scores = np.linspace(0, 8, 21) if scores is None else scores
    table = pd.DataFrame(dict.fromkeys(PREDICTIONS, ""), index=range(22))
    table["image_id"] = table["filename"] = [f"i{k}" for k in range(22)]
    table["label"], table["raw_score"] = [*LABELS, None], [*scores, 99.0]
    table["predicted_label"] = (table["raw_score"] >= 4.5).astype(int)
    table["split"] = ["fold"] * 21 + ["unlabelled"]
    write_table(path.with_name("predictions.csv"), table, PREDICTIONS)
    splits = pd.DataFrame(dict.fromkeys(SPLITS, ""), index=range(22)).assign(image_id=table["image_id"])
    splits["group"] = [f"g{k % 7}" for k in range(22)]
    splits["fold"] = [str(k % 7) for k in range(21)] + [""]
    write_table(root / "splits.csv", splits, SPLITS)
    return path


def run(root, *paths):
    board = root / "results/demo/leaderboard.csv"
    args = ["--metrics", *map(str, paths), "--predictions", *(str(path.with_name("predictions.csv")) for path in paths)]
    args += ["--splits", str(root / "splits.csv"), "--table", str(board), "--page", str(board.with_suffix(".html"))]
    leaderboard.main(leaderboard.build_parser().parse_args(args))
    return pd.read_csv(board), board.with_suffix(".html").read_text()


def test_rows_are_sorted_and_the_main_run_is_marked(tmp_path):
    first = save(tmp_path, "demo/none/none/patchcore", auroc=0.49)
    second = save(tmp_path, "demo/template/zero_out/patchcore")
    third = save(tmp_path, "demo/template/crop/patchcore", auroc=None)
    table, _ = run(tmp_path, first, third, second)
    assert table["isolation"].tolist() == ["zero_out", "none", "crop"]  # unknown AUROC last
    assert table["main"].tolist() == [0, 1, 0]
    row = table.iloc[0]
    assert row[["dataset", "segmenter", "detector"]].tolist() == ["demo", "template", "patchcore"]
    assert row[["held_out_iou", "auroc", "auroc_low", "auroc_high", "group_out_auroc"]].tolist() == [
        0.98, 0.85, 0.7, 0.95, 0.6
    ]  # fmt: skip
    assert row[["pixel_auroc", "au_pro", "threshold", "n_samples"]].tolist() == [0.99, 0.95, 4.5, 21]
    assert row[["strategy", "share_reviewed", "missed_left", "false_alarms_left"]].tolist() == [
        "max_fpr, max_fpr 0.2", 0.2, 0, 1
    ]  # fmt: skip


def test_differences_are_those_of_the_scores_on_the_images_that_count(tmp_path):
    rng = np.random.default_rng(0)
    good, poor = LABELS * 3 + rng.normal(3, 0.5, 21), rng.normal(4, 1, 21)
    best = save(tmp_path, "demo/template/zero_out/patchcore", good, auroc=1.0)
    other = save(tmp_path, "demo/none/none/patchcore", poor, auroc=0.5)
    table, page = run(tmp_path, best, other)
    assert table.loc[0, "auroc_difference":"auroc_difference_p"].isna().all()  # the best has nothing to be compared to
    row = table.iloc[1]
    assert row["auroc_difference"] == pytest.approx(metrics.auroc(LABELS, poor) - metrics.auroc(LABELS, good))
    f1 = [metrics.rates(metrics.confusion(LABELS, scores >= 4.5))["f1"] for scores in (good, poor)]
    assert row["f1_difference"] == pytest.approx(f1[1] - f1[0])
    assert row["auroc_difference_high"] < 0 and row["auroc_difference_p"] < 0.05
    assert "every other run is worse by more than chance" in page


def test_two_equal_runs_are_the_same_on_the_page(tmp_path):
    paths = [save(tmp_path, f"demo/template/{name}/patchcore") for name in ("zero_out", "crop")]
    _, page = run(tmp_path, *paths)
    assert "cannot be distinguished" in page and page.count("the same</span>") >= 2


def test_without_an_auroc_no_run_is_called_the_best(tmp_path):
    paths = [save(tmp_path, f"demo/none/none/{name}", auroc=None) for name in ("patchcore", "padim")]
    _, page = run(tmp_path, *paths)
    assert "Nothing to compare yet." in page
    assert "the best" not in page and "best AUROC" not in page and "How to read the differences" not in page


def test_a_run_without_an_auroc_is_not_called_worse(tmp_path):
    first = save(tmp_path, "demo/template/crop/patchcore")
    _, page = run(tmp_path, first, save(tmp_path, "demo/none/none/padim", auroc=None, scores=np.full(21, np.nan)))
    assert "worse by more than chance" not in page and "1 of the others cannot be compared" in page
    _, alone = run(tmp_path, first)
    assert "It is the only run" in alone and "the best" not in alone


def test_the_page_links_the_reports_and_holds_every_threshold_rule(tmp_path):
    path = save(tmp_path, "demo/template/zero_out/patchcore")
    _, page = run(tmp_path, path)
    assert 'href="template/zero_out/patchcore/report.html"' in page
    for rule in ("max_fpr, max_fpr 0.2", "youden", "normal_sigma, sigma 3", "conformal, alpha 0.05"):
        assert f"<code>{rule}</code>" in page
    assert re.search(r"needs at least 19 good images", page)  # told, not hidden


def test_a_threshold_chosen_on_photographs_without_a_label_is_not_chosen_again_on_the_labelled_ones(tmp_path):
    for source, shown in (("labels", True), ("assumed good", False)):
        path = save(tmp_path, "demo/none/none/patchcore", assumed={"threshold_from": source})
        assert ("Other thresholds" in run(tmp_path, path)[1]) == shown


@pytest.mark.parametrize("label, column", [(0, "Missed"), (1, "Called bad, good")])
def test_rules_count_no_errors_where_nothing_could_be_missed_or_be_called_bad(label, column, tmp_path):
    path = save(tmp_path, "demo/none/none/patchcore", auroc=None)
    table = read_table(path.with_name("predictions.csv"), PREDICTIONS)
    table["label"] = [label] * 21 + [None]
    write_table(path.with_name("predictions.csv"), table, PREDICTIONS)
    rule = {"value": 4.5, "strategy": "f1_adaptive", "options": {}}
    write_json(path, {**json.loads(path.read_text()), "threshold": rule})
    _, page = run(tmp_path, path)
    part = page.partition('id="thresholds"')[2]
    names = re.findall(r"<th[^>]*>(?:<button[^>]*>)?\s*([^<]+)", part)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL)]
    judged = [row for row in rows if len(row) == len(names)]
    assert judged and {row[names.index(column)] for row in judged} == {"–"}
    other = {"Missed": "Called bad, good", "Called bad, good": "Missed"}[column]
    assert all(row[names.index(other)].isdigit() for row in judged)


def test_a_run_without_masks_pixels_labels_or_review(tmp_path):
    path = save(
        tmp_path,
        "demo/none/none/patchcore",
        auroc=None,
        f1=None,
        pixel={"in_part": None, "full_frame": None},
        segmentation={},
        review=None,
        threshold={"value": None, "strategy": "f1_adaptive", "options": {}},
        confidence_intervals={"auroc": None, "recall": None, "false_positive_rate": None},
        image={"average_precision": None, "false_positive_rate": None, "confusion_matrix": MATRIX},
    )
    table, page = run(tmp_path, path)
    assert table.loc[0, ["held_out_iou", "auroc_low", "group_out_auroc", "pixel_auroc", "share_reviewed"]].isna().all()
    assert "Nothing to compare yet" in page and "Other thresholds" not in page


def test_another_json_is_named(tmp_path):
    path = save(tmp_path, "d/s/i/p")
    write_json(path, {"loss": 1})
    with pytest.raises(UserError, match="not a metrics file"):
        run(tmp_path, path)


def test_a_path_that_is_no_recipe_is_named(tmp_path, monkeypatch):
    path = save(tmp_path, "d/s/i/p")
    monkeypatch.chdir(path.parent)
    args = ["--metrics", "metrics.json", "--predictions", "predictions.csv", "--splits", str(tmp_path / "splits.csv")]
    with pytest.raises(UserError, match="dataset/segmenter/isolation/detector"):
        leaderboard.main(leaderboard.build_parser().parse_args([*args, "--table", "x.csv", "--page", "x.html"]))


def test_the_iou_is_that_of_the_masks_in_use():
    train = {"sam2.1": {"iou_mean": 0.9}, "template": {"iou_mean": 0.97}, "use": "template"}
    assert leaderboard.held_out_iou({"train": train, "masks": {"sources": {"template": 4}}}) == 0.97
    assert leaderboard.held_out_iou({"train": train, "masks": {"sources": {"sam2.1": 4}}}) == 0.9
    assert leaderboard.held_out_iou({"train": train}) is None


def test_one_session_does_not_make_noise_significant(tmp_path):
    rng = np.random.default_rng(1)
    scores = rng.normal(LABELS, 1.0)
    first = save(tmp_path, "demo/template/crop/patchcore", 4 + scores)
    second = save(tmp_path, "demo/none/none/patchcore", 4 + scores + rng.normal(0, 0.3, 21), auroc=0.8)
    splits = read_table(tmp_path / "splits.csv", SPLITS)
    write_table(tmp_path / "splits.csv", splits.assign(group="monday"), SPLITS)
    table, page = run(tmp_path, first, second)
    row = table.iloc[1]
    assert row["auroc_difference_low"] < row["auroc_difference"] < row["auroc_difference_high"]
    assert row["auroc_difference_p"] > 0.05 and "cannot be distinguished" in page
