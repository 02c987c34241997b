"""Other systems that get every verdict: a CSV that grows, a webhook, an MQTT broker."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Protocol

from defectflow.core.addresses import parts_of
from defectflow.core.files import UserError

COLUMNS = (
    "time", "id", "part_id", "file", "model", "model_version", "verdict", "bad", "score", "raw_score", "threshold",
    "review", "mask_present", "mask_doubtful", "reason", "cause", "regions", "ms", "kind", "kind_probability",
)  # fmt: skip
PATIENCE = 10.0  # seconds for an answer of the other side
# Statuses by which a receiver says that it will never take this record; others may change.
FOR_GOOD = (400, 413, 415, 422)


class Refused(Exception):
    """The other side will not take this record, however often it is sent."""


class Delivery(Protocol):
    """Where verdicts go.

    Attributes:
        name: of the output, in the file of those that wait.
        batch: how many it takes at a time.
    """

    name: str
    batch: int

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Deliver records; when it returns, the other side has them.

        Raises:
            Refused: it will not take them.
            Exception: it does not take them now.
        """

    def close(self) -> None:
        """Let go of the other side."""


class CsvFile:
    """Rows that are appended to a file, which may be moved away at any time."""

    name, batch = "csv", 500

    def __init__(self, path: Path) -> None:
        """Check the columns of a file that is there.

        Raises:
            UserError: it has others.
        """
        self._path = path
        if path.is_file() and path.stat().st_size:
            with path.open(encoding="utf-8", errors="replace", newline="") as stream:
                if (first := next(csv.reader(stream), [])) != list(COLUMNS):
                    raise UserError(f"{path}: has other columns ({', '.join(first[:4])}...; give another file)")

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Append a row for each, with numbers of nine digits and regions as "x y width height; ..."."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab+") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end == 0:
                writer.writerow(COLUMNS)
            else:
                stream.seek(end - 1)
                if stream.read(1) != b"\n":  # a crash has left half a row
                    text.write("\n")
            writer.writerows([_cell(record.get(column)) for column in COLUMNS] for record in records)
            stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Nothing: it is opened for each batch."""


class Webhook:
    """A POST of JSON for each verdict.

    Args:
        url: http or https.
        token: file with a token to send along.
    """

    name, batch = "webhook", 1

    def __init__(self, url: str, token: Path | None = None) -> None:
        """Raises UserError for another address."""
        parts = parts_of(url)
        if parts is None or parts.scheme not in ("http", "https"):
            raise UserError("--webhook: an address that begins with http:// or https:// is needed")
        self._url, self._headers = url, {"Content-Type": "application/json", "User-Agent": "defectflow"}
        if token:
            self._headers["Authorization"] = f"Bearer {token.read_text().strip()}"
        self._open = urllib.request.build_opener(_NoRedirect).open

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Any status 2xx means that it was taken."""
        for record in records:
            headers = self._headers | {"Idempotency-Key": record["id"]}
            request = urllib.request.Request(self._url, json.dumps(record).encode(), headers)
            try:
                with self._open(request, timeout=PATIENCE) as answer:
                    answer.read(1000)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in FOR_GOOD:
                    raise Refused(f"status {error.code}") from None
                raise ConnectionError(f"status {error.code}") from None

    def close(self) -> None:
        """Nothing: each request has a connection of its own."""


class Mqtt:
    """A message of JSON for each verdict, with QoS 1.

    Args:
        address: mqtt://HOST[:PORT]/TOPIC, or mqtts:// for TLS.
        login: file with USER:PASSWORD.
        ca: PEM file of the broker's authority, if the system does not know it.
    """

    name, batch = "mqtt", 1

    def __init__(self, address: str, login: Path | None = None, ca: Path | None = None) -> None:
        """Raises UserError for another address, or a login of another form."""
        parts = parts_of(address)
        topic = parts.path.removeprefix("/") if parts else ""
        wild = set("+#?") & set(address)  # "#" and "?" would end the path of an address
        if parts is None or parts.scheme not in ("mqtt", "mqtts") or not topic or wild:
            raise UserError("--mqtt: an address like mqtt://broker.example:1883/line/1/verdicts is needed")
        if parts.username or parts.password:
            raise UserError("--mqtt: put USER:PASSWORD into a file (--mqtt-login), where other users cannot see it")
        self._tls, self._ca = parts.scheme == "mqtts", ca
        self._host, self._port = parts.hostname or "", parts.port or (8883 if self._tls else 1883)
        self._topic = topic
        self._login = tuple(login.read_text().strip().split(":", 1)) if login else None
        if self._login and len(self._login) != 2:
            raise UserError(f"--mqtt-login {login}: USER:PASSWORD in one line is needed")
        self._client: Any = None

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Publish, and wait until the broker says that it has it."""
        try:
            client = self._connected()
            for record in records:
                message = client.publish(self._topic, json.dumps(record), qos=1)
                message.wait_for_publish(PATIENCE)
                if not message.is_published():
                    raise ConnectionError("the broker does not answer")
        except BaseException:
            self.close()  # or the client would send by itself what is sent again
            raise

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connected(self) -> Any:
        if self._client is not None and self._client.is_connected():
            return self._client
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.close()
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        answered, reasons = threading.Event(), list[str]()

        def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            reasons.append(str(reason) if reason.is_failure else "")
            answered.set()

        client.on_connect = connected
        if self._login:
            client.username_pw_set(*self._login)
        if self._tls:
            client.tls_set(str(self._ca) if self._ca else None)
        client.connect_timeout = PATIENCE
        client.connect(self._host, self._port)
        client.loop_start()
        if not answered.wait(PATIENCE) or reasons[0]:
            raise ConnectionError(f"the broker does not let it in ({reasons[0] if reasons else 'no answer'})")
        return client


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, without the verdict."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """None: the status is an error."""


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list):
        return "; ".join(" ".join(map(str, region["box"])) for region in value)
    return value
