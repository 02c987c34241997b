"""Survey: one shard of images read and measured, whatever labels and annotations say."""

import cv2
import numpy as np
import pytest
from defectflow.core.files import read_json, sha256_of
from defectflow.core.tables import MANIFEST, read_table
from defectflow.data.ingest import build_parser as ingest_parser
from defectflow.data.ingest import main as ingest
from defectflow.data.survey import build_parser, main


@pytest.fixture
def folder(tmp_path):
    """Twelve small photographs, one of them cut off in the middle."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"images/p{number:02d}.jpg"), rng.integers(0, 255, (40, 60, 3)).astype(np.uint8))
    torn = tmp_path / "images/p03.jpg"
    torn.write_bytes(torn.read_bytes()[:700])
    return tmp_path


def survey(folder, shard):
    name = shard.replace("/", "-")
    given = ["--images", folder / "images", "--shard", shard, "--out", folder / f"{name}.csv"]
    main(build_parser().parse_args([str(a) for a in [*given, "--report", folder / f"{name}.json"]]))
    return read_table(folder / f"{name}.csv", MANIFEST), read_json(folder / f"{name}.json")


def test_shards_hold_every_image_once_and_sound_ones_only(folder):
    (first, told), (second, more) = survey(folder, "0/2"), survey(folder, "1/2")
    ids = sorted([*first["image_id"], *second["image_id"]])
    assert ids == [f"p{n:02d}" for n in range(12) if n != 3]
    assert len(first) and len(second) and len(told) + len(more) == 12
    assert (told | more)["p03.jpg"]["problem"] and not (told | more)["p04.jpg"]["problem"]
    row = first.iloc[0]
    assert row["sha256"] == sha256_of(row["path"]) and (row["width"], row["height"]) == (60, 40)


def test_a_picture_of_numbers_beyond_1_is_a_problem_and_not_a_white_one(folder):
    numbers = 3 * np.random.default_rng(0).random((40, 60), np.float32)
    cv2.imwrite(str(folder / "images/p04.tif"), numbers)
    table, told = survey(folder, "0/1")
    assert "only 0 (black) to 1 (white) is read (save it as 8 or 16 bits)" in told["p04.tif"]["problem"]
    assert not any(path.endswith(".tif") for path in table["path"])


def test_a_new_image_leaves_the_other_shard_as_it_was(folder):
    before = {shard: survey(folder, shard)[0]["image_id"].tolist() for shard in ("0/2", "1/2")}
    cv2.imwrite(str(folder / "images/new.png"), np.full((40, 60, 3), 9, np.uint8))
    after = {shard: survey(folder, shard)[0]["image_id"].tolist() for shard in ("0/2", "1/2")}
    assert sorted(len(after[s]) - len(before[s]) for s in before) == [0, 1]


def test_ingest_takes_the_findings_over_and_says_the_same(folder):
    survey(folder, "0/2"), survey(folder, "1/2")
    given = ["--images", folder / "images", "--on-problem", "leave_out"]
    surveys = ["--surveys", folder / "1-2.json", folder / "0-2.json"]
    for name, extra in (("alone", []), ("surveyed", surveys)):
        out = ["--out", folder / f"{name}.csv", "--report", folder / f"{name}.json"]
        ingest(ingest_parser().parse_args([str(a) for a in [*given, *extra, *out]]))
    assert (folder / "alone.csv").read_bytes() == (folder / "surveyed.csv").read_bytes()
    assert (folder / "alone.json").read_bytes() == (folder / "surveyed.json").read_bytes()
