import numpy as np
import pytest
import torch
from defectflow.core import tables
from defectflow.core.anomaly_maps import load_maps
from defectflow.core.files import UserError, read_json
from defectflow.detection import score
from defectflow.methods.method_settings import METHODS
from detector_set import CELLS, GRID, patches_of, run_fit, write_shard, write_splits
from safetensors.torch import load_file
from settings_words import with_settings

NAMES = [
    ("good1", "", ""), ("good2", "", ""), ("good3", "", ""), ("bad1", "", ""), ("bad1~per1", "bad1", "perturbed"),
    ("good1~aug1", "good1", "augmented"), ("new", "", ""), ("kept", "", ""), ("held_bad", "", ""),
]  # fmt: skip
SPLITS = [
    ("good1", "0", "fold", "0", "A"),
    ("good2", "0", "fold", "1", "B"),
    ("good3", "0", "fold", "2", "B"),
    ("bad1", "1", "fold", "2", "A"),
    ("new", "", "unlabelled", "", ""),
    ("kept", "0", "train", "", ""),
    ("held_bad", "1", "test", "0", ""),
]


def run(folder, shard, banks, splits, *extra, method="patchcore", more=()):
    out = ["--scores", str(folder / "scores.csv"), "--maps", str(folder / "maps.safetensors"), "--threads", "2"]
    inputs = ["--features", str(shard), "--banks", str(banks), "--splits", str(splits), "--device", "cpu"]
    score.main(score.build_parser().parse_args([*inputs, *out, *more, *with_settings(extra, METHODS, method)]))
    return tables.read_table(folder / "scores.csv", tables.SCORES), load_maps([folder / "maps.safetensors"])


@pytest.fixture
def data(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", NAMES)
    splits = write_splits(tmp_path / "splits.csv", SPLITS)
    return tmp_path, shard, run_fit(tmp_path, [shard], splits, "--coreset-ratio", "1")[0], splits


def test_each_image_meets_its_bank(data):
    table, maps = run(*data)
    assert table[["image_id", "bank", "group_bank"]].to_numpy().tolist() == [
        ["good1", "fold/0", "group/A"],
        ["good2", "fold/1", "group/B"],
        ["good3", "fold/2", "group/B"],
        ["bad1", "fold/2", "group/A"],
        ["bad1~per1", "fold/2", "group/A"],
        ["new", "all", ""],
        ["held_bad", "all", ""],
    ]
    assert table["group_out_score"].isna().tolist() == [False] * 5 + [True] * 2
    assert list(maps) == ["bad1", "good1", "good2", "good3", "held_bad", "new"]
    scores = table.set_index("image_id")["raw_score"]
    assert scores[["bad1", "held_bad"]].min() > 5 * scores[["good1", "good2", "good3", "new"]].max()
    assert scores["good1"] > 0.1  # its own patches are not in its bank


def test_map_holds_the_distances(data):
    banks = load_file(data[2])
    _, maps = run(*data)
    expected = torch.cdist(patches_of("bad1", True, False), banks["fold/2"]).min(dim=1).values
    np.testing.assert_allclose(maps["bad1"].grid_map.ravel(), expected, rtol=1e-5)
    assert maps["bad1"].grid_map.argmax() == 7
    assert maps["bad1"].affine.tolist() == [[1, 0, 3], [0, 1, 0]]
    assert maps["bad1"].input_size == (32, 40)


@pytest.mark.parametrize("most", ["2000000", "80"])  # of 120 patches of good images
def test_two_scales_make_one_map(tmp_path, most):
    shard = write_shard(tmp_path / "0.safetensors", NAMES, coarser=[(2, 2)])
    splits = write_splits(tmp_path / "splits.csv", SPLITS)
    banks, report = run_fit(tmp_path, [shard], splits, "--max-patches", most)
    found, summary = load_file(banks), read_json(report)["banks"]["fold/0"]
    assert found.keys() >= {"all", "all/scale1", "all/units", "fold/0", "fold/0/scale1", "group/A/units"}
    assert summary["size"] == summary["patches"] == len(found["fold/0"]) + len(found["fold/0/scale1"])
    assert read_json(report)["patches_read"] <= int(most) and len(found["all"]) > 3 * len(found["all/scale1"]) > 0
    table, maps = run(tmp_path, shard, banks, splits)
    for row in table[table["kind"] == ""].itertuples():
        assert maps[row.image_id].grid_map.shape == GRID
        assert maps[row.image_id].grid_map.max() == pytest.approx(row.raw_score, rel=1e-6)
    assert maps["bad1"].grid_map.argmax() == 7


def test_background_is_the_lowest(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", NAMES, cells=range(5, CELLS - 5))
    splits = write_splits(tmp_path / "splits.csv", SPLITS)
    banks, _ = run_fit(tmp_path, [shard], splits, "--coreset-ratio", "1")
    _, maps = run(tmp_path, shard, banks, splits)
    grid_map = maps["bad1"].grid_map
    assert grid_map.shape == GRID
    assert (grid_map[0] == grid_map.min()).all() and (grid_map[-1] == grid_map.min()).all()
    assert grid_map.ravel().argmax() == 7


def test_methods_of_the_image_score(data):
    _, maps = run(*data, "--score", "top_k_mean", "--top-fraction", "0.1")
    table, _ = run(*data, "--score", "top_k_mean", "--top-fraction", "0.1")
    top = np.sort(maps["bad1"].grid_map.ravel())[-2:]
    scores = table.set_index("image_id")["raw_score"]
    assert scores["bad1"] == pytest.approx(top.mean(), rel=1e-6)
    table, _ = run(*data, "--neighbours", "1")
    assert table.set_index("image_id")["raw_score"]["bad1"] == pytest.approx(top[-1], rel=1e-6)
    table, _ = run(*data, "--score", "percentile", "--top-fraction", "0.5")
    assert table.set_index("image_id")["raw_score"]["bad1"] == pytest.approx(np.median(maps["bad1"].grid_map), rel=1e-6)


def test_same_bytes_whatever_the_threads(data):
    run(*data)
    first = [(data[0] / name).read_bytes() for name in ("scores.csv", "maps.safetensors")]
    run(*data, "--threads", "1")
    assert [(data[0] / name).read_bytes() for name in ("scores.csv", "maps.safetensors")] == first


def test_bank_along_principal_axes(data):
    folder, shard, banks, splits = data
    exact = run(*data)[0].set_index("image_id")["raw_score"]
    banks, _ = run_fit(folder, [shard], splits, "--bank-dtype", "pca_float16")  # 6 dimensions, all needed for 99 %
    scores = run(folder, shard, banks, splits)[0].set_index("image_id")["raw_score"]
    assert load_file(banks)["all/axes"].shape == (6, 6)
    assert scores.to_numpy() == pytest.approx(exact.to_numpy(), rel=2e-3) and not scores.equals(exact)


def test_pixel_difference(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", NAMES, pixels=True)
    splits = write_splits(tmp_path / "splits.csv", SPLITS)
    banks, _ = run_fit(tmp_path, [shard], splits, "--method", "pixel_difference")
    table, maps = run(tmp_path, shard, banks, splits, method="pixel_difference")
    mean = torch.stack([patches_of(name, False, True) for name in ("good1", "good1~aug1", "good2", "kept")]).mean(0)
    expected = (patches_of("bad1", True, True) - mean).norm(dim=1)
    np.testing.assert_allclose(maps["bad1"].grid_map.ravel(), expected, rtol=1e-5)
    assert table.set_index("image_id")["raw_score"]["bad1"] == pytest.approx(float(expected[7]), rel=1e-6)


def test_empty_shard(data):
    write_shard(data[1], [])
    table, maps = run(*data)
    assert len(table) == len(maps) == 0


def test_stale_banks_are_refused(data):
    folder, shard, banks, splits = data
    changed = [(n, label, d, {"2": "9"}.get(f, f), g) for n, label, d, f, g in SPLITS]
    write_splits(splits, changed)
    with pytest.raises(UserError, match="no bank 'fold/9'"):
        run(folder, shard, banks, splits)
    write_splits(splits, SPLITS)
    write_shard(shard, NAMES, pixels=True)
    with pytest.raises(UserError, match="fitted with backbone test, the features have pixels"):
        run(folder, shard, banks, splits)
    assert not (folder / "scores.csv").exists()


def test_bad_fraction(data):
    folder, shard, banks, splits = data
    with pytest.raises(UserError, match="top_fraction: 0 must be above 0"):
        run(folder, shard, banks, splits, "--top-fraction", "0")


def test_an_image_left_out_by_ingest_is_not_scored(data):
    folder, shard, banks, splits = data
    before, _ = run(folder, shard, banks, splits)
    write_splits(splits, [row for row in SPLITS if row[0] != "good1"])
    table, maps = run(folder, shard, banks, splits)
    assert set(before["image_id"]) - set(table["image_id"]) >= {"good1"} and "good1" not in maps


def test_banks_of_folds_in_a_file_of_their_own_give_the_same_scores(data):
    folder, shard, _, splits = data
    table, _ = run(*data)
    apart = ["--fold-banks", str(folder / "fold_banks.safetensors")]
    own, _ = run_fit(folder, [shard], splits, "--coreset-ratio", "1", more=apart)
    assert set(load_file(own)) == {"all"} and "fold/0" in load_file(apart[1])
    again, _ = run(*data, more=apart)
    assert again.equals(table)
    with pytest.raises(UserError, match="no bank 'fold/0'"):
        run(*data)


def test_banks_of_folds_of_another_fit_are_refused(data):
    folder, shard, _, splits = data
    apart = ["--fold-banks", str(folder / "fold_banks.safetensors")]
    run_fit(folder, [shard], splits, "--distance", "cosine", more=apart)
    run_fit(folder, [shard], splits)
    with pytest.raises(UserError, match=r"fold_banks.safetensors: belongs to other banks than .*banks.safetensors"):
        run(*data, more=apart)
