"""No verdict is lost while the other side is down, or the service."""

import sqlite3
import threading
import time

import pytest
from defectflow.core.files import UserError
from defectflow.delivery import outbox as outbox_module
from defectflow.delivery.destinations import Refused
from defectflow.delivery.outbox import Outbox


class Side:
    """The other side: up or down, and what it got."""

    def __init__(self, name="side", batch=2, up=True):
        self.name, self.batch, self.up, self.got, self.closed = name, batch, up, [], False
        self.attempts = 0

    def send(self, records):
        self.attempts += 1
        if not self.up:
            raise ConnectionError("down")
        if any(record["id"] == "poison" for record in records):
            raise Refused("no")
        self.got += [record["id"] for record in records]

    def close(self):
        self.closed = True


def until(what):
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE", 0.02)


def test_what_waits_is_delivered_in_order_once_the_other_side_is_back(tmp_path):
    up, down = Side("up"), Side("down", up=False)
    outbox = Outbox(tmp_path, [up, down])
    for number in range(5):
        outbox.add([{"id": number}])
    until(lambda: up.got == [0, 1, 2, 3, 4] and down.attempts > 2)
    assert outbox.waiting() == {"up": 0, "down": 5} and outbox.failures["down"] > 1
    down.up = True
    until(lambda: down.got == [0, 1, 2, 3, 4])
    outbox.close(2)
    assert up.closed and down.closed


def test_what_waits_outlives_the_service(tmp_path):
    down = Side(up=False)
    outbox = Outbox(tmp_path, [down])
    outbox.add([{"id": number} for number in range(3)])
    start = time.monotonic()
    outbox.close(5)
    assert time.monotonic() - start < 4 and down.got == []  # it does not wait for a side that is down
    up = Side()
    again = Outbox(tmp_path, [up])
    until(lambda: up.got == [0, 1, 2])
    again.add([{"id": 3}])
    again.close(5)  # what is new is delivered before the end
    assert up.got == [0, 1, 2, 3]


def test_what_is_refused_for_good_is_kept_apart_and_stops_nothing(tmp_path):
    side = Side(batch=1)
    outbox = Outbox(tmp_path, [side])
    outbox.add([{"id": "a"}, {"id": "poison"}, {"id": "b"}])
    until(lambda: side.got == ["a", "b"])
    assert outbox.refused() == {"side": 1} and outbox.waiting() == {"side": 0}
    outbox.close(1)
    with sqlite3.connect(tmp_path / outbox_module.FILE) as file:
        ((record, why),) = file.execute("SELECT record, why FROM refused").fetchall()
    assert "poison" in record and why == "no"


def test_a_full_disk_holds_up_what_comes_after_and_sends_nothing_twice(tmp_path):
    side = Side(batch=1, up=False)
    outbox = Outbox(tmp_path, [side])
    outbox.add([{"id": "poison", "reason": "x" * 20000}, {"id": "a"}])
    with outbox._changed:
        outbox._file.execute("PRAGMA max_page_count = 1")  # as many as it has
    side.up = True
    attempts = side.attempts
    until(lambda: side.attempts > attempts)
    time.sleep(0.1)
    assert outbox._threads[0].is_alive() and side.got == [] and outbox.waiting() == {"side": 2}
    attempts = side.attempts
    with outbox._changed:
        outbox._file.execute("PRAGMA max_page_count = 1000000")
    until(lambda: side.got == ["a"])
    assert outbox.refused() == {"side": 1} and side.attempts == attempts + 1
    outbox.close(1)


def test_a_side_that_hangs_does_not_hold_up_the_end(tmp_path):
    side, hang = Side(), threading.Event()
    side.send = lambda records: hang.wait(20)
    outbox = Outbox(tmp_path, [side])
    outbox.add([{"id": 1}])
    start = time.monotonic()
    outbox.close(0.2)
    assert time.monotonic() - start < 5
    hang.set()


def test_one_service_alone_uses_a_folder(tmp_path):
    outbox = Outbox(tmp_path, [Side()])
    with pytest.raises(UserError, match="another service"):
        Outbox(tmp_path, [Side()])
    outbox.close(1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be kept"):
        Outbox(tmp_path / "file", [Side()])
