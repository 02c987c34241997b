"""Outputs: a CSV, a webhook, an MQTT broker."""

import csv
import json
import queue
import shutil
import socket
import subprocess
import threading
import time

import pytest
from defectflow.core.files import UserError
from defectflow.delivery.destinations import COLUMNS, CsvFile, Mqtt, Refused, Webhook
from running_service import receiving

RECORD = {
    "time": "2025-01-01T00:00:00.000+00:00", "id": "1f", "part_id": 'a "b", c', "file": "ä.png", "model": "plate",
    "model_version": "0", "verdict": "bad", "bad": True, "score": 0.123456789012, "raw_score": 2.0, "threshold": 1.0,
    "review": None, "mask_present": None, "mask_doubtful": False, "reason": "a\nb", "cause": None,
    "size": [9, 9], "region_count": 1, "regions": [{"box": [1, 2, 3, 4], "score": 1.0, "pixels": 3, "mark": ""}],
    "ms": 12.5, "waited_ms": 0.5,
}  # fmt: skip
MOSQUITTO = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")


def test_rows_are_appended_whatever_is_there(tmp_path):
    path = tmp_path / "sub/verdicts.csv"
    CsvFile(path).send([RECORD])
    CsvFile(path).send([RECORD, RECORD | {"score": None, "regions": None}])
    with path.open("a") as stream:
        stream.write("2025,half a ro")
    CsvFile(path).send([RECORD])
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert path.read_text().count(COLUMNS[0] + ",id") == 1 and len(rows) == 5
    whole = [row for row in rows if row["id"] == "1f"]
    assert len(whole) == 4 and whole[0] == whole[3]
    expected = {"part_id": 'a "b", c', "bad": "1", "score": "0.123456789", "regions": "1 2 3 4", "review": "",
                "mask_doubtful": "0", "reason": "a\nb", "file": "ä.png"}  # fmt: skip
    assert {key: whole[0][key] for key in expected} == expected
    path.rename(tmp_path / "moved.csv")
    CsvFile(path).send([RECORD])
    assert len(path.read_text().splitlines()) == 3  # a header, and a row of two lines
    (tmp_path / "other.csv").write_text("path,verdict\n")
    with pytest.raises(UserError, match="has other columns"):
        CsvFile(tmp_path / "other.csv")


@pytest.fixture
def receiver():
    with receiving() as one:
        yield one


def test_a_webhook_gets_json_with_a_token_and_says_what_it_thinks_of_it(receiver, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    hook = Webhook(f"http://127.0.0.1:{receiver.server_port}/in", tmp_path / "token")
    hook.send([RECORD])
    status, path, headers, content = receiver.got[0]
    assert (status, path, content) == (204, "/in", RECORD)
    assert headers["Authorization"] == "Bearer secret" and headers["Idempotency-Key"] == "1f"
    for status, error in ((500, ConnectionError), (302, ConnectionError), (404, ConnectionError), (422, Refused)):
        receiver.statuses.put(status)
        with pytest.raises(error, match=str(status)):
            hook.send([RECORD])
    assert len(receiver.got) == 5  # a redirect is not followed: the verdict would stay behind
    for address in ("file:///etc/passwd", "ftp://a/b", "http://", "http://h:x/", "http://[::1/", "verdicts"):
        with pytest.raises(UserError, match="--webhook"):
            Webhook(address)


@pytest.mark.parametrize(
    "address",
    ["http://a/b", "mqtt://a", "mqtt://a/", "mqtt:///b", "mqtt://a/b/#", "mqtt://me:secret@a/b", "mqtt://a:x/b"],
)
def test_other_addresses_of_brokers_are_refused(address):
    with pytest.raises(UserError, match="--mqtt") as caught:
        Mqtt(address)
    assert "secret" not in str(caught.value)


class Broker:
    """mosquitto with a login, on a free port."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "passwords", "line", "pass:word"], check=True)
        (folder / "passwords").chmod(0o644)
        self.config.write_text(f"listener {self.port} 127.0.0.1\npassword_file {folder / 'passwords'}\nuser root\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen([MOSQUITTO, "-c", self.config], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def subscribed(self, topic):
        """A queue of what arrives."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client, got, ready = Client(CallbackAPIVersion.VERSION2), queue.Queue(), threading.Event()
        client.username_pw_set("line", "pass:word")
        client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _client, _data, message: got.put(json.loads(message.payload))
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        assert ready.wait(10)
        return got


@pytest.fixture
def broker(tmp_path):
    pytest.importorskip("paho", reason="needs the extra serve")
    if not MOSQUITTO:
        pytest.skip("no mosquitto here (Debian's package of this name)")
    one = Broker(tmp_path)
    yield one
    one.stop()


def test_a_broker_confirms_each_verdict(broker, tmp_path):
    got = broker.subscribed("line/1")
    for text, works in (("line:pass:word\n", True), ("line:wrong", False)):
        (tmp_path / "login").write_text(text)
        output = Mqtt(f"mqtt://127.0.0.1:{broker.port}/line/1", tmp_path / "login")
        if works:
            output.send([RECORD])
            assert got.get(timeout=10) == RECORD
            broker.stop()
            with pytest.raises(Exception):  # noqa: B017
                output.send([RECORD | {"id": "2"}])
            broker.start()
            got = broker.subscribed("line/1")
            output.send([RECORD | {"id": "3"}])
            assert got.get(timeout=10)["id"] == "3"
            assert got.empty()  # what failed is sent again by the outbox, not behind its back
        else:
            with pytest.raises(ConnectionError, match="does not let it in"):
                output.send([RECORD])
        output.close()
    (tmp_path / "login").write_text("nobody")
    with pytest.raises(UserError, match="USER:PASSWORD"):
        Mqtt("mqtt://a/b", tmp_path / "login")
