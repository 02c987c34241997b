"""What the desk answers when its folder is gone or its disk is full: one line, and nothing is half-written."""

import errno
import sqlite3
from collections import namedtuple

import pytest
from defectflow.desk import app, part
from desk_client import Desk, photograph

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "line")
    desk.add({f"{number}.png": photograph(number) for number in range(2)})
    return desk


def test_a_folder_that_was_moved_is_told_and_works_again_when_it_is_back(desk, tmp_path):
    desk.project.folder.rename(tmp_path / "elsewhere")
    put = {"names": ["0.png"], "label": "bad", "who": "Ana"}
    for answer in (
        desk.client.get("/api/photographs/list"),
        desk.client.post("/api/labels/put", json=put),
        desk.client.post("/api/runs/start", json={"bundle": False, "cores": 1}),
        desk.client.get("/api/runs/plan"),
        desk.client.post("/api/photographs/upload", files=[("image", ("2.png", photograph(2), "image/png"))]),
    ):
        assert answer.status_code == 503 and "the folder of the desk is gone" in answer.json()["error"]
    assert not desk.project.folder.exists()  # nothing is begun anew at the old place
    (tmp_path / "elsewhere").rename(desk.project.folder)
    desk.post("/api/labels/put", **put)
    assert "0.png,1," in desk.project.labels.read_text()


def test_a_full_disk_is_told(desk, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part, "save_outline", full)
    answer = desk.client.post("/api/part/outline?name=0.png", content=b"drawn")
    assert answer.status_code == 507 and "the disk is full; nothing was saved" in answer.json()["error"]

    def broken(*given):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(type(desk.project), "database", broken)
    monkeypatch.setattr(app.shutil, "disk_usage", lambda path: Usage(9, 9, 0))
    assert desk.client.get("/api/photographs/list").status_code == 507
    monkeypatch.setattr(app.shutil, "disk_usage", lambda path: Usage(9, 9, 10**9))
    answer = desk.client.get("/api/photographs/list")
    assert answer.status_code == 503 and "disk I/O error (can the folder" in answer.json()["error"]
