"""Sessions by the time that cameras write, and by the time of the file where they do not."""

import os
import time
from datetime import datetime

import numpy as np
import pytest
from defectflow.desk.pictures.sessions import PAUSE, Taken, sessions, taken
from desk_client import Desk, photograph
from PIL import Image


def save(path, when="", tag=36867, stamp=None):
    exif = Image.Exif()
    if when and tag == 306:
        exif[tag] = when
    elif when:
        exif[0x8769] = {tag: when}
    noise = np.random.default_rng(abs(hash(path.name)) % 1000).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    if stamp:
        os.utime(path, (stamp, stamp))


def wall(*when):
    return (datetime(*when) - datetime(1970, 1, 1)).total_seconds()


@pytest.mark.parametrize(
    ("suffix", "tag"), [("jpg", 36867), ("jpg", 36868), ("jpg", 306), ("png", 36867), ("png", 306), ("tif", 306)]
)
def test_the_time_is_the_one_of_the_camera(tmp_path, tag, suffix):
    save(tmp_path / f"a.{suffix}", "2026:03:02 08:15:30", tag)
    assert taken(tmp_path / f"a.{suffix}") == Taken(wall(2026, 3, 2, 8, 15, 30), True)


@pytest.mark.parametrize("when", ["", "0000:00:00 00:00:00", "    ", "yesterday", "2026-03-02T08:15"])
def test_without_it_the_time_is_that_of_the_file_and_said_to_be(tmp_path, when):
    moment = datetime(2026, 5, 6, 7, 8, 9)
    save(tmp_path / "a.jpg", when, stamp=moment.timestamp())
    assert taken(tmp_path / "a.jpg") == Taken(wall(2026, 5, 6, 7, 8, 9), False)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1 no picture")
    assert not taken(tmp_path / "broken.jpg").exif
    with pytest.raises(OSError):
        taken(tmp_path / "none.jpg")


def test_a_pause_parts_sessions_and_times_of_files_stand_apart():
    times = {"c": Taken(PAUSE + 61, True), "a": Taken(0, True), "b": Taken(60, True), "d": Taken(PAUSE + 60 + 1, False)}
    found = sessions(times | {"e": Taken(3 * PAUSE, True)})
    assert [(one.names, one.exif) for one in found] == [
        (["a", "b"], True),
        (["c"], True),
        (["e"], True),
        (["d"], False),
    ]
    assert (found[0].first, found[0].last) == ("1970-01-01T00:00:00", "1970-01-01T00:01:00")


def test_the_page_gets_them_and_looks_again_at_a_file_that_has_changed(tmp_path):
    desk = Desk(tmp_path / "part")
    folder = desk.project.photographs
    for name, when in (
        ("b.jpg", "2026:03:02 08:00:00"),
        ("a.jpg", "2026:03:02 08:10:00"),
        ("c.jpg", "2026:03:03 09:00:00"),
    ):
        save(folder / name, when)
    (folder / "d.png").write_bytes(photograph(1))

    def known():
        until = time.monotonic() + 20
        while (found := desk.get("/api/labels/sessions"))["missing"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        return found

    found = known()
    assert [(one["first"], one["exif"], one["count"]) for one in found["sessions"][:2]] == [
        ("2026-03-02T08:00:00", True, 2), ("2026-03-03T09:00:00", True, 1),
    ]  # fmt: skip
    assert found["of"] == {"b.jpg": [0, 0], "a.jpg": [0, 1], "c.jpg": [1, 0], "d.png": [2, 0]}
    assert not found["sessions"][2]["exif"]
    save(folder / "c.jpg", "2026:03:02 08:20:00")
    time.sleep(2.1)  # a listing of the disk holds for two seconds
    assert known()["of"]["c.jpg"] == [0, 2]
