"""What two people say of a photograph: no label is lost, and where they differ none counts until it is settled."""

import pytest
from defectflow.sources.labels_csv import read_labels
from desk_client import Desk, photograph

NAMES = [f"{name}.png" for name in "abcd"]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "part")
    for number, name in enumerate(NAMES):
        (desk.project.photographs / name).write_bytes(photograph(number))
    return desk


def say(desk, name, who, label=None, **more):
    desk.post("/api/labels/put", names=[name], label=label, who=who, **more)


def table(desk):
    return {row["filename"]: (row["label"], row["defect_type"]) for row in read_labels(desk.project.labels)}


def listed(desk):
    """{name: (label, kind, whether they differ, what each says)}"""
    rows = desk.get("/api/labels/list")["photographs"]
    return {row[0]: (row[2], row[3], row[5], [tuple(one) for one in row[6]]) for row in rows}


def test_who_gave_a_label_is_kept_and_a_name_replaces_no_name(desk):
    say(desk, "a.png", "", "good")
    assert listed(desk)["a.png"] == ("good", "", False, [])
    say(desk, "a.png", " Ana  Berg ", "bad", kind="dent")
    assert listed(desk)["a.png"] == ("bad", "dent", False, [("Ana Berg", "bad", "dent")])
    assert table(desk) == {"a.png": ("1", "dent")}
    assert listed(Desk(desk.project.folder))["a.png"][3] == [("Ana Berg", "bad", "dent")]  # after a restart too


@pytest.mark.parametrize("other", ["bad", "unsure"])
@pytest.mark.parametrize("second", ["Ben", ""])
def test_where_two_differ_there_is_no_label_until_one_settles_it(desk, second, other):
    say(desk, "a.png", "Ana", "good")
    say(desk, "b.png", "Ana", "good")
    say(desk, "b.png", second, "good")
    say(desk, "a.png", second, other)
    assert listed(desk)["a.png"] == ("", "", True, [("Ana", "good", ""), (second, other, "")])
    assert table(desk) == {"b.png": ("0", "")} and not listed(desk)["b.png"][2]
    desk.post("/api/labels/put", names=["a.png"], label="bad", kind="dent", who="Cy", settles=True)
    assert listed(desk)["a.png"] == ("bad", "dent", False, [("Cy", "bad", "dent")])
    assert table(desk)["a.png"] == ("1", "dent")
    say(desk, "a.png", "Ana", "good")  # she insists
    assert listed(desk)["a.png"][2] and "a.png" not in table(desk)
    say(desk, "a.png", "Ana", "bad")
    assert table(desk)["a.png"] == ("1", "dent")


def test_kinds_that_differ_leave_the_label(desk):
    say(desk, "a.png", "Ana", kind="dent")
    say(desk, "a.png", "Ben", "bad")  # names none, and contradicts nobody
    assert listed(desk)["a.png"][:3] == ("bad", "dent", False)
    say(desk, "a.png", "Ben", kind="scratch")
    assert listed(desk)["a.png"][:3] == ("bad", "", True) and table(desk) == {"a.png": ("1", "")}


def test_undo_takes_back_ones_own_steps_and_nobody_elses(desk):
    say(desk, "a.png", "", "unsure")
    say(desk, "a.png", "Ana", "good")
    say(desk, "b.png", "Ana", "good")
    say(desk, "a.png", "Ben", "bad")
    assert [row[0] for row in desk.post("/api/labels/undo?who=Ana")["rows"]] == ["b.png"]
    assert [row[0] for row in desk.post("/api/labels/undo?who=Ana")["rows"]] == ["a.png"]
    assert listed(desk)["a.png"][3] == [("", "unsure", ""), ("Ben", "bad", "")]  # hers is gone, his stays
    assert desk.post("/api/labels/undo?who=Ana")["rows"] == []
    desk.post("/api/labels/put", names=["a.png"], label="good", who="Ana", settles=True)
    assert table(desk) == {"a.png": ("0", "")}
    desk.post("/api/labels/undo?who=Ana")
    assert listed(desk)["a.png"][2] and table(desk) == {}
    desk.post("/api/labels/undo?who=Ben")
    assert listed(desk)["a.png"][:3] == ("unsure", "", False)


def test_who_withdraws_leaves_what_the_other_says(desk):
    say(desk, "a.png", "Ana", "good")
    say(desk, "a.png", "Ben", "bad")
    say(desk, "a.png", "Ben", "")
    assert listed(desk)["a.png"] == ("good", "", False, [("Ana", "good", "")])
    say(desk, "a.png", "Ben", "")
    assert table(desk) == {"a.png": ("0", "")}


def test_a_table_does_not_go_over_what_people_say(desk):
    say(desk, "a.png", "Ana", "good")
    desk.post("/api/labels/put", names=["b.png"], label="good")
    desk.add({"given.csv": b"filename,label\na.png,bad\nb.png,bad\n"})
    assert listed(desk)["a.png"] == ("", "", True, [("Ana", "good", ""), ("", "bad", "")])
    assert table(desk) == {"b.png": ("1", "")}
    desk.project.labels.write_text("filename,label\na.png,bad\n")  # who edits the table by hand has settled it
    assert listed(desk)["a.png"] == ("bad", "", False, [])


def test_a_defect_marked_by_another_is_an_opinion(desk):
    import cv2
    import numpy as np

    mask = np.zeros((48, 48), np.uint8)
    mask[4:9, 4:9] = 255
    say(desk, "a.png", "Ana", "good")
    body = cv2.imencode(".png", mask)[1].tobytes()
    desk.client.post("/api/labels/defect", params={"name": "a.png", "who": "Ben"}, content=body)
    assert listed(desk)["a.png"][2] and "a.png" not in desk.project.labels.read_text()
    desk.post("/api/labels/put", names=["a.png"], label="bad", who="Ana", settles=True)
    assert "a.png,1,,defects/a.png.png" in desk.project.labels.read_text()
