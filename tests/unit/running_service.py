"""`defectflow serve` as a process of its own, requests to it, and a web server that gets its verdicts."""

import http.client
import http.server
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


def png(image: np.ndarray) -> bytes:
    """A photograph, uint8 RGB, as PNG."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def form(pictures, **fields) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with (name of the file, content) and fields, of which a list stands for several."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    body = b""
    for name, content in pictures:
        body += f'{head}image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode() + content + b"\r\n"
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            body += f'{head}{name}"\r\n\r\n{value}\r\n'.encode()
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@dataclass
class Running:
    """A running service."""

    process: subprocess.Popen
    port: int
    log: Path

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(Status, headers, content: parsed if it is JSON)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(content) if "json" in found.get("content-type", "") else content

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def inspect(self, pictures, headers=None, query="", **fields):
        body, own = form(pictures, **fields)
        return self.request("POST", f"/v1/inspect{query}", body, own | (headers or {}))

    def workers(self) -> list[int]:
        """Processes that judge: children of the service, without the one that tidies up after them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    status, line = (entry / "status").read_text(), (entry / "cmdline").read_text()
                except OSError:  # it has ended
                    continue
                if re.search(rf"^PPid:\t{self.process.pid}$", status, re.M) and "spawn_main" in line:
                    found.append(int(entry.name))
        return found

    def metric(self, name: str) -> float:
        """The sum of a figure of /metrics over its labels."""
        lines = self.get("/metrics")[2].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))

    def wait_for(self, what, seconds=30):
        """Wait until ``what()`` is true."""
        end = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)


def start(folder: Path, *words) -> Running:
    """Start a service on a free port; it listens when this returns, and may not be ready."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "defectflow", "serve", *map(str, words), "--port", "0"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env=os.environ | {"TMPDIR": str(folder)})
    end = time.monotonic() + 60
    while not (found := re.search(r"listening on \w+://.*:(\d+)", log.read_text())):
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return Running(process, int(found[1]), log)


@contextmanager
def running(folder: Path, *words):
    """A service that is ready; it is ended behind the block."""
    service = start(folder, *words)
    try:
        service.wait_for(lambda: "INFO ready" in service.log.read_text(), 60)
        yield service
    finally:
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGTERM)
        try:
            service.process.wait(20)
        except subprocess.TimeoutExpired:
            service.process.kill()
            raise


class Receiver(http.server.BaseHTTPRequestHandler):
    """Notes what is sent and answers with the next of the server's statuses, or 204."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.get_nowait() if not self.server.statuses.empty() else 204
        self.server.got.append((status, self.path, dict(self.headers), json.loads(body)))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextmanager
def receiving():
    """A web server with a queue `statuses` and a list `got` of (status, path, headers, content)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.statuses, server.got = queue.Queue(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
