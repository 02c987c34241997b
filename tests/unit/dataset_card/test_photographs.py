"""The table of photographs: classes, and what the survey measured."""

import json

import card_set
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.core.tables import MANIFEST, write_table
from defectflow.dataset_card.photographs import class_order, judged, photographs, shows_bursts


def test_classes_are_good_kinds_of_defect_and_no_label():
    table = card_set.table("0011-1", defect_type=["", "", "dent", "good", "", ""])
    assert table["class"].tolist() == ["good", "good", "dent", "good (a kind)", "no label", "bad, kind unknown"]
    assert class_order(table) == ["good", "dent", "good (a kind)", "bad, kind unknown", "no label"]
    assert card_set.table("011")["class"].tolist() == ["good", "bad", "bad"]


def test_photographs_of_a_training_split_are_not_judged():
    table = card_set.table("000-1", split=["train", "train", "test", "", "test"])
    assert judged(table)["image_id"].tolist() == ["p002", "p004"]
    assert len(judged(card_set.table("00-1"))) == 3


def test_bursts_are_groups_of_several():
    assert not shows_bursts(card_set.table("001")) and not shows_bursts(card_set.table("001", group=list("abc")))
    assert shows_bursts(card_set.table("001", group=["a", "a", ""]))


def test_measurements_come_from_the_survey_by_name(tmp_path):
    known = card_set.table("01").assign(path=["data/x/b.JPEG", "data/x/deep/a"])
    write_table(tmp_path / "manifest.csv", known, MANIFEST)
    told = {"b.JPEG": (90.5, 0.25, 7.0, 1234), "deep/a": (30.0, 0.0, 3.0, 99)}
    keys = ("luminance", "clipped", "sharpness", "file_bytes")
    for number, (name, values) in enumerate(told.items()):
        (tmp_path / f"{number}.json").write_text(json.dumps({name: dict(zip(keys, values, strict=True))}))
    found = photographs(tmp_path / "manifest.csv", [tmp_path / "1.json", tmp_path / "0.json"], "data/x")
    assert found["name"].tolist() == ["b.JPEG", "deep/a"] and found["format"].tolist() == ["jpg", "none"]
    assert found[list(keys)].to_numpy().tolist() == [list(map(float, values)) for values in told.values()]
    assert np.isclose(found["luminance"], [90.5, 30]).all()
    with pytest.raises(UserError, match=r"deep/a was not surveyed \(run survey"):
        photographs(tmp_path / "manifest.csv", [tmp_path / "0.json"], "data/x")
