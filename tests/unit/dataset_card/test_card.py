"""The stage: pages of real folders, with labels and without."""

import csv
import json
import re
from html import unescape

import card_set
import cv2
import numpy as np
import pytest
from conftest import make_coco_set, make_mvtec_set
from defectflow.core.files import UserError
from defectflow.dataset_card import card

FILES = {"card.md", "card.html", "card.json", "photographs.csv", "examples.jpg", "brightness.png", "sharpness.png"}


def text_of(folder) -> str:
    """The words of the page."""
    page = re.sub(r"<(style|script|svg).*?</\1>", "", (folder / "card.html").read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """The card of a set with folders, a split and masks; a copy and a torn photograph are left out."""
    folder = tmp_path_factory.mktemp("mvtec")
    good = make_mvtec_set(folder / "data") / "train/good"
    (good / "copy.png").write_bytes((good / "000.png").read_bytes())
    (good / "torn.png").write_bytes((good / "001.png").read_bytes()[:900])
    source = ["--mvtec", str(folder / "data")]
    return card_set.made(folder, source, "--about", '{"creator": "A & B"}')


def test_folders_give_classes_splits_examples_and_places(mvtec):
    assert {path.name for path in mvtec.iterdir()} == FILES | {"lorenz.png", "places.jpg"}
    page, text = text_of(mvtec), (mvtec / "card.md").read_text()
    for words in (
        "12 photographs: 9 good, 3 bad",
        "blot has fewer than 10 photographs",
        "3 bad photographs to measure",
    ):
        assert words in page and words in text, words
    assert "| good | 3 | 6 | 9 | 75\N{NO-BREAK SPACE}% |" in text and "Gini coefficient 0.25" in text
    assert "From the ground-truth masks of 3 of 3 bad photographs" in page
    assert "equal files 1, left out" in page and "left out 2: problems" in page and "A & B" in page
    assert cv2.imread(str(mvtec / "places.jpg")).shape[:2] == (640, 640)


def test_the_page_is_one_file_that_loads_nothing(mvtec):
    page = (mvtec / "card.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page) == [] and "default-src 'none'" in page
    assert page.count("<img src=") == 6 + 3 + 4 + 1 and page.count("<svg") == 3


def test_the_metadata_name_the_table_and_what_is_missing(mvtec):
    found = json.loads((mvtec / "card.json").read_text())
    rows = list(csv.DictReader((mvtec / "photographs.csv").open()))
    assert len(rows) == 12 and rows[0]["name"] == "test/blot/000.png"
    assert {row["label"] for row in rows} == {"good", "bad"} and rows[0]["has_mask"] == "true"
    assert found["creator"]["name"] == "A & B" and "license" not in found
    assert found["recordSet"][1]["data"][0] == {"classes/name": "good", "classes/photographs": 9}
    assert "The format also requires license, url, published: set them in about:" in text_of(mvtec)
    assert any("blot has fewer" in text for text in found["rai:dataLimitations"])
    assert str(mvtec.parent) not in (mvtec / "card.json").read_text() + (mvtec / "card.html").read_text()


def test_the_same_photographs_give_the_same_bytes(mvtec, tmp_path):
    again = card_set.made(tmp_path, ["--mvtec", str(mvtec.parent / "data")], "--about", '{"creator": "A & B"}')
    assert {path.name: path.read_bytes() for path in mvtec.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_sessions_and_unlabelled_photographs_of_a_table_are_shown(tmp_path):
    data = make_coco_set(tmp_path / "data")
    labels, outlines = str(data / "labels.csv"), str(data / "annotations.json")
    source = ["--images", str(data / "images"), "--labels", labels, "--annotations", outlines]
    page = text_of(card_set.made(tmp_path, source))
    assert "14 photographs: 8 good, 4 bad, 2 without a label; 7 sessions." in page
    assert "No session has both good and bad photographs" in page and "g6" in page
    assert "No outline of the part" not in page and "pixel metrics are not computed" in page


def test_photographs_without_a_label_have_a_card_that_says_so(tmp_path):
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"data/{number}.png"), rng.integers(0, 255, (40, 60 + number, 3)).astype(np.uint8))
    folder = card_set.made(tmp_path, ["--images", str(tmp_path / "data")])
    assert {path.name for path in folder.iterdir()} == FILES
    page = text_of(folder)
    assert "3 photographs: none is labelled" in page and "not searched for among photographs without labels" in page
    assert "Do good and bad differ" not in page and "Fewer than two labelled classes" in page


def test_what_is_not_json_is_one_clear_line_and_leaves_the_old_card(mvtec, tmp_path):
    given = [str(mvtec.parent / name) for name in ("manifest.csv", "0.json", "report.json")]
    words = ["--name", "x", "--manifest", given[0], "--surveys", given[1], "--ingest-report", given[2]]
    with pytest.raises(UserError, match="--about: not valid JSON"):
        card.main(card.build_parser().parse_args([*words, "--about", "{", "--out", str(tmp_path / "card")]))
    assert not (tmp_path / "card").exists()
