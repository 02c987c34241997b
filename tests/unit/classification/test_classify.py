"""The stage classify: its files, what it says of each photograph, and what a person has to know first."""

import json

import pandas as pd
import pytest
from defectflow.classification import classify
from defectflow.classification.descriptor_files import write_descriptors
from kinds_set import described, manifest_of


def run(folder, manifest, *more, strength=3.0):
    write_descriptors(folder / "d", described(folder, manifest, strength))
    words = ["--name", "set <1>", "--descriptors", str(folder / "d"), "--threads", "1", "--out", str(folder / "kinds")]
    classify.main(classify.build_parser().parse_args([*words, *more]))
    table = pd.read_csv(folder / "kinds/kinds.csv", keep_default_na=False)
    return json.loads((folder / "kinds/kinds.json").read_text()), table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    return folder, *run(folder, manifest_of({"good": 12, "a": 8, "b": 8, "c": 8, "d": 1}, unlabelled=2))


def test_every_photograph_has_a_kind_and_a_probability(made):
    _, told, table = made
    assert list(table.columns) == classify.COLUMNS and len(table) == 38
    assert table["kind_probability"].between(0, 1).all()
    new = table[table["class"] == ""]
    assert list(new["kind"]) == ["a", "a"] and list(new["fold"]) == ["", ""]
    known = table[table["class"] != ""]
    right = (known["kind"] == known["class"]).mean()
    assert told["accuracy"] - 0.1 <= right <= told["accuracy"]  # but for known ones that are called unknown
    assert told["accuracy"] > 0.85 and told["majority"]["accuracy"] == pytest.approx(12 / 36, abs=1e-5)
    assert told["left_out"] == {"fewer_than_three": {"d": 1}, "bad_without_a_kind": 0}


def test_the_page_says_what_was_left_out(made):
    folder, _, _ = made
    page = (folder / "kinds/kinds.html").read_text()
    assert "d is left out: 1 photograph, and a kind needs three." in page
    assert "set &lt;1&gt;" in page and "Confusion matrix" in page and "held out one by one" in page
    assert (folder / "kinds/confusion.png").is_file()


def test_a_second_run_gives_the_same_bytes(made, tmp_path):
    folder, told, _ = made
    again, _ = run(tmp_path, manifest_of({"good": 12, "a": 8, "b": 8, "c": 8, "d": 1}, unlabelled=2))
    assert again == told
    for name in ("kinds.json", "kinds.csv", "kinds.html", "confusion.png"):
        assert (tmp_path / "kinds" / name).read_bytes() == (folder / "kinds" / name).read_bytes()


def test_kinds_that_are_not_to_be_seen_are_chance_and_the_figures_say_so(tmp_path):
    told, _ = run(tmp_path, manifest_of({"good": 12, "a": 12, "b": 12}), strength=0.0)
    assert told["interval"][0] < 0.5 and told["if_bad"]["interval"][0] < 0.5 < told["if_bad"]["interval"][1] + 0.2


def test_two_groups_of_one_kind_are_enough(tmp_path):
    told, table = run(tmp_path, manifest_of({"good": 8, "a": 4}, burst=2))
    assert told["protocol"]["held_out_together"] == "groups" and told["n"] == 12
    assert table["kind_probability"].notna().all()


def test_two_classes_have_no_choice_of_kinds(tmp_path, capsys):
    told, table = run(tmp_path, manifest_of({"good": 8, "a": 8}), "--settings", '{"head": "nearest"}')
    assert told["if_bad"] is None and told["open_set"]["auroc"] is None
    assert "kind, if bad" not in capsys.readouterr().out
    assert set(table["kind"]) <= {"good", "a", classify.UNKNOWN}
