"""Labels are kept at once, many at a time, can be taken back, and stand in labels.csv."""

import os
import sqlite3
import time

import pytest
from defectflow.core.files import UserError
from defectflow.desk.pictures.label_store import LabelStore
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.project import Project
from defectflow.sources.labels_csv import read_labels
from desk_client import Desk, photograph

NAMES = [f"{name}.png" for name in "abcd"]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "part")
    for number, name in enumerate(NAMES):
        (desk.project.photographs / name).write_bytes(photograph(number))
    return desk


def table(desk):
    return {row["filename"]: (row["label"], row["defect_type"]) for row in read_labels(desk.project.labels)}


def test_labels_go_to_the_table_at_each_change(desk):
    assert desk.post("/api/labels/put", names=NAMES[:2], label="good")["changed"] == 2
    assert desk.post("/api/labels/put", names=["c.png"], label="unsure")["rows"][0][:1] == ["c.png"]
    desk.post("/api/labels/put", names=["b.png", "d.png"], kind="scratch, deep")
    assert table(desk) == {"a.png": ("0", ""), "b.png": ("1", "scratch, deep"), "d.png": ("1", "scratch, deep")}
    desk.post("/api/labels/put", names=["b.png"], label="good")
    assert table(desk)["b.png"] == ("0", "")  # what is good has no kind of defect
    rows = {row[0]: tuple(row[2:4]) for row in desk.get("/api/labels/list")["photographs"]}
    assert rows["c.png"] == ("unsure", "") and rows["d.png"] == ("bad", "scratch, deep")


def test_steps_are_taken_back_one_after_the_other(desk):
    desk.post("/api/labels/put", names=NAMES, label="good")
    desk.post("/api/labels/put", names=["a.png"], label="bad")
    assert desk.post("/api/labels/undo")["rows"][0][::2][:2] == ["a.png", "good"]
    assert len(desk.post("/api/labels/undo")["rows"]) == 4 and table(desk) == {}
    assert desk.post("/api/labels/undo")["rows"] == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"names": ["../a.png"], "label": "good"}, "no such photograph"),
        ({"names": ["a.png"], "label": "fine"}, "not a label"),
        ({"names": ["a.png"], "kind": 'a "b"'}, "quotes"),
        ({"names": ["a.png"], "kind": "a\nb"}, "printable"),
        ({"names": "a.png", "label": "good"}, "names"),
        ({"names": ["a.png"], "label": "good", "who": "A\nB"}, "printable"),
        ({"names": ["a.png"], "label": "good", "settles": True}, "who settles"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(desk, change, text):
    assert text in desk.post("/api/labels/put", status=422, **change)["error"]
    assert table(desk) == {}


def test_a_table_that_was_edited_by_hand_is_read_again(desk):
    desk.post("/api/labels/put", names=NAMES[:2], label="good")
    desk.post("/api/labels/put", names=["c.png"], label="unsure")
    desk.project.labels.write_text("filename,label,group\na.png,bad,monday\nd.png,good,monday\n")
    rows = {row[0]: row[2] for row in desk.get("/api/labels/list")["photographs"]}
    assert rows == {"a.png": "bad", "b.png": "", "c.png": "unsure", "d.png": "good"}
    desk.post("/api/labels/put", names=["d.png"], label="bad")
    rows = {row["filename"]: (row["label"], row["group"]) for row in read_labels(desk.project.labels)}
    assert rows == {"a.png": ("1", "monday"), "d.png": ("1", "monday")}


def test_a_wrong_table_is_said_to_be(desk):
    desk.project.labels.write_text("filename,label\nelsewhere.png,good\n")
    assert "line 2" in desk.get("/api/labels/list", status=422)["error"]


@pytest.mark.parametrize("second", ["a.png,bad", "./a.png,bad"])
def test_a_table_with_two_rows_for_a_photograph_is_left_as_it_is(desk, second):
    text = f"filename,label\na.png,good\n{second}\n"
    desk.project.labels.write_text(text)
    assert "lines 2 and 3: good and bad" in desk.get("/api/labels/list", status=422)["error"]
    assert desk.project.labels.read_text() == text


def test_a_desk_that_is_killed_before_the_table_is_written_loses_no_label(desk, tmp_path, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt

    desk.post("/api/labels/put", names=["a.png"], label="good")
    project = Project(tmp_path / "part")
    store = LabelStore(project, PhotographIndex(project))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LabelStore, "_export", killed)
        store.put(["b.png"], "bad", "dent")
    assert table(desk) == {"a.png": ("0", "")}
    again = Desk(tmp_path / "part")
    assert len(again.get("/api/labels/list")["photographs"]) == 4
    assert table(again) == {"a.png": ("0", ""), "b.png": ("1", "dent")}


def test_a_failed_write_is_a_whole_one_or_none(desk, monkeypatch):
    project = Project(desk.project.folder)
    store = LabelStore(project, PhotographIndex(project))

    def fails(self, database, name, told):
        if name == "b.png":
            raise sqlite3.OperationalError("disk I/O error")
        return write(self, database, name, told)

    write = LabelStore._write
    monkeypatch.setattr(LabelStore, "_write", fails)
    with pytest.raises(sqlite3.OperationalError):
        store.put(NAMES, "good")
    assert store.all() == {} and table(desk) == {}


def test_rows_of_photographs_that_are_gone_do_not_stop_a_run(desk):
    desk.post("/api/labels/put", names=NAMES, label="good")
    (desk.project.photographs / "a.png").unlink()
    desk.client.get("/api/photographs/list")
    time.sleep(2.1)  # a listing of the disk holds for two seconds
    desk.post("/api/labels/put", names=["b.png"], label="bad")
    assert set(table(desk)) == set(NAMES[1:])


def test_what_to_look_at_comes_from_the_latest_run(desk):
    for run, why in (("found/crop/old", "old"), ("found/crop/patchcore", "close to the threshold")):
        folder = desk.project.results / "part" / run
        folder.mkdir(parents=True)
        (folder / "next_to_label.csv").write_text(
            f"place,filename,raw_score,threshold,why,image_id\n1,b.png,1,1,{why},b\n"
        )

    os.utime(desk.project.results / "part/found/crop/old/next_to_label.csv", (1, 1))
    lists = desk.get("/api/labels/list")["lists"]
    assert lists == {"next": [{"name": "b.png", "why": "close to the threshold"}], "check": [], "candidates": []}


def test_two_windows_see_each_others_labels(desk, tmp_path):
    other = Desk(tmp_path / "part")
    other.post("/api/labels/put", names=["a.png"], label="bad")
    desk.post("/api/labels/put", names=["b.png"], label="good")
    assert table(desk) == {"a.png": ("1", ""), "b.png": ("0", "")}
    with pytest.raises(UserError):
        LabelStore(desk.project, PhotographIndex(desk.project)).put(["none.png"], "good")
