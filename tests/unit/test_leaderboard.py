import copy

import pandas as pd
import pytest
from defectflow import leaderboard
from defectflow.files import UserError, write_json

METRICS = {
    "accuracy": 0.8, "precision": 0.7, "recall": 0.9, "f1": 0.79, "auroc": 0.85, "n_samples": 21,
    "threshold": {"value": 4.5},
    "image": {"average_precision": 0.88, "leave_group_out": {"auroc": 0.6}},
    "pixel": {"in_part": {"auroc": 0.9, "au_pro": 0.7}, "full_frame": {"auroc": 0.99, "au_pro": 0.95}},
    "segmentation": {
        "masks": {"sources": {"constant": 2, "template": 9}},
        "prior": {"constant": {"iou_mean": 0.92}, "template": {"iou_mean": 0.98}},
    },
    "confidence_intervals": {"auroc": [0.7, 0.95]},
}  # fmt: skip


def save(root, recipe, **changes):
    path = root / "results" / recipe / "metrics.json"
    write_json(path, {**copy.deepcopy(METRICS), **changes})
    return path


def run(*paths, main=None):
    out = paths[0].parents[4] / "leaderboard.csv"
    args = [
        "--metrics",
        *map(str, paths),
        "--out",
        str(out),
        *(["--main", "/".join(main.parent.parts[-4:])] if main else []),
    ]
    leaderboard.main(leaderboard.build_parser().parse_args(args))
    return pd.read_csv(out)


def test_rows_are_sorted_and_the_main_run_is_marked(tmp_path):
    first = save(tmp_path, "demo/none/none/patchcore", auroc=0.49)
    second = save(tmp_path, "demo/template/zero_out/patchcore")
    third = save(tmp_path, "demo/template/crop/patchcore", auroc=None)
    table = run(third, first, second, main=first)
    assert table["isolation"].tolist() == ["zero_out", "none", "crop"]  # unknown AUROC last
    assert table["main"].tolist() == [0, 1, 0]
    row = table.iloc[0]
    assert row[["dataset", "segmenter", "detector"]].tolist() == ["demo", "template", "patchcore"]
    assert row[["held_out_iou", "auroc", "auroc_low", "auroc_high", "group_out_auroc"]].tolist() == [
        0.98, 0.85, 0.7, 0.95, 0.6
    ]  # fmt: skip
    assert row[["pixel_auroc", "au_pro", "threshold", "n_samples"]].tolist() == [0.99, 0.95, 4.5, 21]


def test_a_run_without_masks_pixels_or_intervals(tmp_path):
    path = save(
        tmp_path,
        "demo/none/none/patchcore",
        pixel={"in_part": None, "full_frame": None},
        segmentation={},
        confidence_intervals={"auroc": None},
        image={"average_precision": None},
    )
    row = run(path).iloc[0]
    assert row[["held_out_iou", "auroc_low", "group_out_auroc", "pixel_auroc"]].isna().all()


def test_another_json_is_named(tmp_path):
    path = tmp_path / "results/d/s/i/p/metrics.json"
    write_json(path, {"loss": 1})
    with pytest.raises(UserError, match="not a metrics file"):
        run(path)


def test_a_path_that_is_no_recipe_is_named(tmp_path, monkeypatch):
    write_json(tmp_path / "metrics.json", METRICS)
    monkeypatch.chdir(tmp_path)
    args = ["--metrics", "metrics.json", "--out", "leaderboard.csv"]
    with pytest.raises(UserError, match="dataset/segmenter/isolation/detector"):
        leaderboard.main(leaderboard.build_parser().parse_args(args))


def test_the_iou_is_that_of_the_masks_in_use():
    train = {"sam2.1": {"iou_mean": 0.9}, "template": {"iou_mean": 0.97}, "use": "template"}
    assert leaderboard.held_out_iou({"train": train, "masks": {"sources": {"template": 4}}}) == 0.97
    assert leaderboard.held_out_iou({"train": train, "masks": {"sources": {"sam2.1": 4}}}) == 0.9
    assert leaderboard.held_out_iou({"train": train}) is None
