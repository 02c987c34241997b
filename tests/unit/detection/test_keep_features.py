import json

import pytest
from defectflow.core.files import UserError, read_json, write_json
from defectflow.detection import clean_features, keep_features


def make(folder, sizes, fold_banks=0, images=2):
    """Patch files of a run of these sizes in bytes, their reports, and banks of folds."""
    (folder / "features").mkdir(parents=True)
    reports = []
    for shard, size in enumerate(sizes):
        (folder / f"features/{shard}.safetensors").write_bytes(bytes(size))
        reports.append(folder / f"features/{shard}.json")
        write_json(reports[-1], {"images": images, "patches": size // 8, "dimensions": 2, "bytes": size})
    (folder / "banks.safetensors").write_bytes(bytes(16))
    (folder / "fold_banks.safetensors").write_bytes(bytes(fold_banks))
    return reports


def run(folder, reports, *more):
    args = ["--reports", *map(str, reports), "--banks", str(folder / "banks.safetensors")]
    args += ["--out", str(folder / "features.json"), *more]
    keep_features.main(keep_features.build_parser().parse_args(args))
    return read_json(folder / "features.json")


@pytest.mark.parametrize(
    ("keep", "size", "kept"),
    [("auto", 3_999_936, True), ("auto", 3_999_944, False), ("none", 64, False), ("all", 4_000_008, True)],
)
def test_features_and_banks_stay_up_to_a_megabyte_a_picture_or_as_they_are_told(tmp_path, keep, size, kept):
    reports = make(tmp_path, [size - 8, 8], fold_banks=48)  # of two shards, four pictures
    told = run(tmp_path, reports, "--keep", keep)
    assert told == {
        "keep_features": keep, "kept": kept, "images": 4, "patches": size // 8, "bytes": size,
        "fold_bank_bytes": 48, "dimensions": 2,
    }  # fmt: skip
    assert [path.with_suffix(".safetensors").exists() for path in reports] == [kept, kept]
    assert (tmp_path / "fold_banks.safetensors").exists()  # a bundle needs them
    assert all(path.exists() for path in reports) and (tmp_path / "banks.safetensors").exists()


def test_what_is_gone_already_is_no_error(tmp_path, capsys):
    reports = make(tmp_path, [80])
    (tmp_path / "features/0.safetensors").unlink()
    assert run(tmp_path, reports, "--keep", "none")["bytes"] == 80
    assert "0.0 MB freed" in capsys.readouterr().err


def test_cleaning_frees_the_features_of_all_runs_and_nothing_else(tmp_path, capsys):
    for run_folder in ("template/crop/patchcore", "none/none/padim"):
        make(tmp_path / "mine" / run_folder, [500_000, 500_000], fold_banks=1_000_000)
    other = tmp_path / "mine/template/prior.safetensors"
    other.write_text("stays")
    clean_features.main(clean_features.build_parser().parse_args([str(tmp_path / "mine")]))
    assert "6 files of features and banks of folds, 4.0 MB freed" in capsys.readouterr().err
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"0.json", "1.json", "banks.safetensors", "prior.safetensors"}
    assert json.loads(next(tmp_path.rglob("features/0.json")).read_text())["images"] == 2 and other.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder \(name a folder of results"):
        clean_features.main(clean_features.build_parser().parse_args([str(tmp_path / "nowhere")]))
