"""Scores for the choice of thresholds: by banks without the images to be judged, whatever the shards and threads."""

import numpy as np
import pytest
from defectflow.core.anomaly_maps import load_maps
from defectflow.core.files import UserError
from defectflow.core.tables import CALIBRATION, read_table
from defectflow.detection import calibrate
from defectflow.detection.feature_files import PatchFile
from defectflow.methods.method_settings import METHODS
from detector_set import run_fit, write_shard, write_splits
from settings_words import with_settings

IMAGES = [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("bad1", 1), ("bad2", 1)]
ROWS = [(name, label, "fold", str(k % 3), "") for k, (name, label) in enumerate(IMAGES)]


def run(folder, shards, splits, *extra):
    out = folder / "calibration.csv"
    outputs = ["--out", str(out), "--maps", str(out.with_suffix(".safetensors"))]
    more = with_settings(extra, METHODS, "patchcore")
    calibrate.main(
        calibrate.build_parser().parse_args(
            [
                "--features",
                *map(str, shards),
                "--splits",
                str(splits),
                *outputs,
                "--device",
                "cpu",
                *more,
            ]
        )
    )
    return out


@pytest.fixture
def shard(tmp_path):
    return write_shard(tmp_path / "0.safetensors", [(name, "", "") for name, _ in IMAGES])


def test_every_image_is_scored_once_for_every_other_fold(tmp_path, shard):
    table = read_table(run(tmp_path, [shard], write_splits(tmp_path / "splits.csv", ROWS)), CALIBRATION)
    fold = {name: f for name, _, _, f, _ in ROWS}
    expected = {(name, judged) for name in fold for judged in ("0", "1", "2") if judged != fold[name]}
    assert set(zip(table["image_id"], table["judged_fold"], strict=True)) == expected and len(table) == len(expected)
    scores = table.set_index(["image_id", "judged_fold"])["raw_score"]
    # "d" is of fold 0 as "a" is: judged fold 1 leaves the bank "c", judged fold 2 the bank "b".
    assert scores["a", "1"] != scores["a", "2"]
    assert scores.loc["bad1"].min() > scores.loc["a"].max()


def test_what_a_judged_image_looks_like_does_not_matter(tmp_path, shard):
    splits = write_splits(tmp_path / "splits.csv", ROWS)
    before = read_table(run(tmp_path, [shard], splits), CALIBRATION)
    names = ["bad9" if name == "b" else name for name, _ in IMAGES]  # other patches for an image of fold 1
    other = write_shard(tmp_path / "1.safetensors", [(name, "", "") for name in names])
    rows = [("bad9" if name == "b" else name, *rest) for name, *rest in ROWS]
    after = read_table(run(tmp_path, [other], write_splits(tmp_path / "splits.csv", rows)), CALIBRATION)
    of_fold = [table[table["judged_fold"] == "1"].reset_index(drop=True) for table in (before, after)]
    assert of_fold[0].equals(of_fold[1])
    rest = [table[table["judged_fold"] != "1"]["raw_score"].tolist() for table in (before, after)]
    assert rest[0] != rest[1]


def test_shards_threads_and_processes_do_not_matter(tmp_path, shard, monkeypatch):
    splits = write_splits(tmp_path / "splits.csv", ROWS)
    whole = run(tmp_path, [shard], splits, "--threads", "1").read_bytes()
    halves = [
        write_shard(tmp_path / f"half{k}.safetensors", [(name, "", "") for name, _ in part])
        for k, part in enumerate((IMAGES[:2], IMAGES[2:]))
    ]
    assert run(tmp_path, halves, splits, "--threads", "2").read_bytes() == whole
    maps = (tmp_path / "calibration.safetensors").read_bytes()
    monkeypatch.setattr("defectflow.detection.training_patches._FORKED", 0)
    assert run(tmp_path, halves, splits, "--threads", "2").read_bytes() == whole
    assert (tmp_path / "calibration.safetensors").read_bytes() == maps


@pytest.mark.parametrize("coarser", [[], [(2, 3)]])
@pytest.mark.parametrize("folds", [3, 14])  # with 14 an image is scored by one bank for several folds
def test_every_score_has_a_map_with_its_peak_where_the_patches_lie(tmp_path, folds, coarser):
    names = [f"{kind}{k}" for k in range(8) for kind in ("good", "bad")][: folds + 2]
    shard = write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names], coarser=coarser)
    rows = [(name, int(name < "c"), "fold", str(k % folds), "") for k, name in enumerate(names)]
    splits = write_splits(tmp_path / "splits.csv", rows)
    table = read_table(run(tmp_path, [shard], splits, "--neighbours", "1"), CALIBRATION)
    maps, patches = load_maps([tmp_path / "calibration.safetensors"]), PatchFile(shard)
    assert list(maps) == sorted(table["judged_fold"] + "/" + table["image_id"])
    assert set(table["judged_fold"]) == {str(k) for k in range(folds)} and not table.duplicated(CALIBRATION[:3]).any()
    for row in table.itertuples():
        entry = maps[f"{row.judged_fold}/{row.image_id}"]
        assert entry.grid_map.max() == pytest.approx(row.raw_score, rel=1e-6)
        np.testing.assert_array_equal(entry.affine, patches.affine[names.index(row.image_id)])


def test_two_folds_leave_nothing_to_learn_from(tmp_path, shard):
    rows = [(name, label, "fold", str(k % 2), "") for k, (name, label) in enumerate(IMAGES)]
    assert read_table(run(tmp_path, [shard], write_splits(tmp_path / "splits.csv", rows)), CALIBRATION).empty


def test_where_train_and_test_are_fixed_there_is_nothing_to_do(tmp_path, shard):
    rows = [(name, label, "test" if label else "train", "0" if label else "", "") for name, label in IMAGES]
    assert read_table(run(tmp_path, [shard], write_splits(tmp_path / "splits.csv", rows)), CALIBRATION).empty


def test_the_second_protocol_has_rows_of_its_own(tmp_path, shard):
    rows = [(name, label, "fold", str(k % 3), str(k // 2)) for k, (name, label) in enumerate(IMAGES)]
    table = read_table(run(tmp_path, [shard], write_splits(tmp_path / "splits.csv", rows)), CALIBRATION)
    assert table["protocol"].value_counts().to_dict() == {"fold": 12, "group": 8}
    # The groups 0 and 1 hold all good images: without both no bank is left.
    assert set(table.loc[(table["protocol"] == "group") & (table["judged_fold"] == "0"), "image_id"]) == {
        "bad1",
        "bad2",
    }


def test_options_out_of_range_are_told_as_by_the_fit(tmp_path, shard):
    splits = write_splits(tmp_path / "splits.csv", ROWS)
    with pytest.raises(UserError, match="coreset_ratio"):
        run(tmp_path, [shard], splits, "--coreset-ratio", "2")
    with pytest.raises(UserError, match="coreset_ratio"):
        run_fit(tmp_path, [shard], splits, "--coreset-ratio", "2")
    with pytest.raises(UserError, match="fraction"):
        run(tmp_path, [shard], splits, "--top-fraction", "1")
