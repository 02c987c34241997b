"""The service answers like the command, and whatever is wrong with a request stays with that request."""

import base64
import os
import re
import signal
import socket
import struct
import threading
import time
import zlib

import bundle_set
import cv2
import numpy as np
import pytest
from conftest import ROOT
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.outputs import json_of
from running_service import form, png, running

pytest.importorskip("fastapi", reason="needs the extra serve")
GOOD, BAD = (png(bundle_set.photograph(80 + n, bad=n == 1)) for n in range(2))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def declared(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(20000))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def service(bundle_folder, tmp_path_factory):
    limits = ("--workers", "1", "--queue", "6", "--max-body", "2", "--max-pixels", "20", "--max-pictures", "4")
    with running(tmp_path_factory.mktemp("service"), f"plate={bundle_folder}", *limits, "--timeout", "100") as running_:
        yield running_


def test_verdicts_are_those_of_the_command(service, bundle_folder, tmp_path):
    names = [f"{n}.png" for n in range(4)]
    pictures = [(name, png(bundle_set.photograph(90 + n, bad=n % 2 == 1))) for n, name in enumerate(names)]
    status, _, answer = service.inspect(pictures, part_id=["p0", "p1", "p2", "p3"], regions=1)
    assert status == 200 and [r["part_id"] for r in answer["results"]] == ["p0", "p1", "p2", "p3"]
    inspector = Inspector.load(bundle_folder)
    for (name, content), result in zip(pictures, answer["results"], strict=True):
        (tmp_path / name).write_bytes(content)
        expected = json_of(tmp_path / name, inspector(tmp_path / name))
        assert result["file"] == name and result["cause"] is None and result["model"] == "plate"
        assert result["verdict"] == ("review" if expected["review"] else expected["verdict"])
        same = ("score", "raw_score", "threshold", "review", "mask_present", "reason", "size", "regions")
        assert {key: result[key] for key in same} == {key: expected[key] for key in same}
    assert [r["verdict"] for r in answer["results"]] == ["good", "bad", "good", "bad"]
    assert len({r["id"] for r in answer["results"]}) == 4


def test_a_score_in_the_review_band_goes_to_a_person(bundle_folder):
    from defectflow.service import worker

    class Sure(Inspector):
        def __init__(self):
            inspector = Inspector.load(bundle_folder)
            self.__dict__ |= inspector.__dict__
            self.settings = inspector.settings | {"review": [0.0, 9.0]}

    path = bundle_folder.parent / "banded.png"
    path.write_bytes(BAD)
    found = worker.judge(Sure(), path, False, 10**8)
    assert (found["verdict"], found["bad"], found["review"]) == ("review", True, True)


def test_an_overlay_is_a_picture_of_it(service):
    _, _, answer = service.inspect([("a b.png", BAD)], query="?overlay=1")
    overlay = cv2.imdecode(np.frombuffer(base64.b64decode(answer["results"][0]["overlay_jpeg"]), np.uint8), 1)
    assert overlay.shape[1] == 128 and overlay.shape[0] > 96
    assert service.inspect([("a.png", BAD)])[2]["results"][0]["overlay_jpeg"] is None


def test_what_is_wrong_with_a_photograph_is_its_own(service):
    pictures = [("torn.png", GOOD[:400]), ("good.png", GOOD), ("huge.png", declared(6000, 6000)), ("x.CR2", GOOD)]
    status, _, answer = service.inspect(pictures)
    torn, good, huge, raw = answer["results"]
    assert status == 200 and good["verdict"] == "good"
    assert all(r["verdict"] == "review" and r["cause"] == "unreadable" for r in (torn, huge, raw))
    assert "not a readable image" in torn["reason"] and "raw file" in raw["reason"]
    assert huge["reason"] == "it declares 36 megapixels, and the limit is 20 (reduce it)"
    largest = service.inspect([("largest.png", declared(14000, 14000))])[2]["results"][0]
    assert largest["cause"] == "unreadable" and "196000000 pixels" in largest["reason"]
    assert not any("/" in r["reason"] for r in answer["results"])  # no path of the service


NAMES = ["", "../../etc/passwd", "a\tb.png", "..", ".hidden", "x" * 4000 + ".png", "Prüfstück_検査.png", "C:\\a.png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_lead_nowhere(service, name):
    status, _, answer = service.inspect([(name, GOOD)])
    assert status == 200 and answer["results"][0]["verdict"] == "good"


@pytest.mark.parametrize(
    ("fields", "pictures", "expected"),
    [
        ({}, 0, 422), ({}, 5, 413), ({"part_id": ["1", "2", "3"]}, 2, 422), ({"part_id": "x" * 300}, 1, 422),
        ({"part_id": "a\x07"}, 1, 422), ({"overlay": "yes"}, 1, 422), ({"model": "other"}, 1, 404),
        ({"image": "text"}, 1, 422), ({"model": "plate", "regions": "0"}, 1, 200),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused_in_one_line(service, fields, pictures, expected):
    status, _, answer = service.inspect([("a.png", GOOD)] * pictures, **fields)
    assert status == expected
    assert status == 200 or (set(answer) == {"error"} and "\n" not in answer["error"])


def test_broken_requests_are_refused(service):
    body, headers = form([("a.png", GOOD)])
    post = {"method": "POST", "path": "/v1/inspect"}
    assert service.request(**post, body=body, headers={"Content-Type": "image/png"})[0] == 415
    for kind in ("multipart/form-data", "multipart/form-data; boundary=other"):
        assert service.request(**post, body=body, headers={"Content-Type": kind})[0] in (400, 422)
    assert service.request(**post, body=body[:300], headers=headers)[0] in (400, 422)
    assert service.request(**post, body=bytes(5000), headers=headers)[0] in (400, 422)
    for deadline in ("soon", "-5", "0", "1.5", "²"):
        refused = service.request(**post, body=body, headers=headers | {"X-Deadline-Ms": deadline.encode()})
        assert refused[0] == 400 and "X-Deadline-Ms" in refused[2]["error"]
    assert service.get("/v1/nothing")[0] == 404 and service.get("/v1/inspect")[0] == 405


def test_large_bodies_are_refused_by_their_head_or_where_they_exceed_the_limit(service):
    with socket.create_connection(("127.0.0.1", service.port), 20) as line:
        line.sendall(b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n")
        line.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", service.port), 20) as line:
        line.sendall(b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
        line.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
        part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        line.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
        for _ in range(4):
            line.sendall(b"80000\r\n" + bytes(0x80000) + b"\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413")
    assert service.metric("defectflow_held_bytes") == 0


def test_after_the_deadline_the_answer_is_review(service):
    worker = service.workers()[0]
    os.kill(worker, signal.SIGSTOP)  # it computes for ever
    try:
        start = time.monotonic()
        status, _, answer = service.inspect([("a.png", GOOD), ("b.png", GOOD)], {"X-Deadline-Ms": "300"})
        assert status == 200 and 0.2 < time.monotonic() - start < 4
    finally:
        os.kill(worker, signal.SIGCONT)
    assert {(r["verdict"], r["cause"]) for r in answer["results"]} == {("review", "deadline")}
    assert "300 ms" in answer["results"][0]["reason"]
    service.wait_for(lambda: service.metric("defectflow_queue_length") == 0)
    with socket.create_connection(("127.0.0.1", service.port), 20) as line:  # a body that does not come
        line.sendall(b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\nX-Deadline-Ms: 200\r\n")
        line.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")
        answer = line.recv(5000)
        assert answer.startswith(b"HTTP/1.1 200") and b'"cause":"deadline"' in answer + line.recv(5000)


def test_a_full_queue_gives_429_and_what_was_accepted_is_answered(service):
    worker = service.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    answers = []

    def send():
        answers.append(service.inspect([("a.png", GOOD), ("b.png", BAD)]))

    try:
        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        service.wait_for(lambda: service.metric("defectflow_queue_length") == 5)  # and one is with the worker
        status, headers, answer = service.inspect([("c.png", GOOD), ("d.png", GOOD)])
        assert status == 429 and int(headers["retry-after"]) >= 1 and "queue is full" in answer["error"]
    finally:
        os.kill(worker, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200] * 3
    assert [[r["verdict"] for r in answer["results"]] for _, _, answer in answers] == [["good", "bad"]] * 3


def test_a_killed_worker_costs_its_own_photograph_alone(service):
    large, answers = png(np.full((4000, 4000, 3), 90, np.uint8)), {}

    def send(name, content):
        answers[name] = service.inspect([(name, content)])

    for attempt in range(10):  # until it is killed in the middle of the work
        (worker,) = service.workers()
        threads = [threading.Thread(target=send, args=("large", large))]
        threads[0].start()
        service.wait_for(lambda: _busy(service))
        threads += [threading.Thread(target=send, args=(f"small {n}", GOOD)) for n in range(3)]
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.05)
        os.kill(worker, signal.SIGKILL)
        for thread in threads:
            thread.join()
        (lost,) = answers.pop("large")[2]["results"]
        assert {answer[2]["results"][0]["verdict"] for answer in answers.values()} == {"good"} and len(answers) == 3
        assert service.metric("defectflow_workers_replaced") == attempt + 1
        if lost["cause"]:
            break
    assert (lost["verdict"], lost["cause"]) == ("review", "worker") and "ended" in lost["reason"]
    (idle,) = service.workers()
    os.kill(idle, signal.SIGKILL)  # this one has nothing to do
    assert service.inspect([("a.png", GOOD)])[2]["results"][0]["verdict"] == "good"


def _busy(service) -> bool:
    """Whether the worker has been given the file."""
    return any(service.log.parent.glob("defectflow-serve-*/*/jobs/0/*"))


def test_health_readiness_figures_and_the_description(service):
    assert service.get("/v1/health")[2]["status"] == "ok"
    status, headers, state = service.get("/v1/ready")
    assert status == 200 and state["ready"] and state["models"][0]["name"] == "plate"
    assert headers["x-content-type-options"] == "nosniff"
    text = service.get("/metrics")[2].decode()
    for name in ("verdicts_total", "request_seconds_bucket", "queue_limit 6.0", "recent_score", "not_judged_total"):
        assert f"defectflow_{name}" in text
    paths = service.get("/openapi.json")[2]["paths"]
    assert {"/v1/inspect", "/v1/ready", "/v1/health", "/metrics", "/v1/reload"} <= set(paths)
    assert "multipart/form-data" in paths["/v1/inspect"]["post"]["requestBody"]["content"]
    page = service.get("/")[2].decode()
    assert "/v1/inspect" in page and "src=" not in page and "http" not in page.replace("http://127.0.0.1", "")
    assert service.get("/docs")[0] == service.get("/redoc")[0] == 404


def test_pages_of_other_sites_are_refused(service):
    for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}, {"Origin": "null"}):
        status, _, answer = service.request("POST", "/v1/reload", headers=headers)
        assert status == 403 and "another site" in answer["error"]
    own = {"Origin": f"http://127.0.0.1:{service.port}"}
    assert service.inspect([("a.png", GOOD)], own)[0] == 200


def test_the_python_example_of_the_page_runs(service, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(block, names)
    (tmp_path / "part.png").write_bytes(BAD)
    url = f"http://127.0.0.1:{service.port}"
    found = names["inspect"](tmp_path / "part.png", "4711", url, "no token is needed")
    assert (found["verdict"], found["part_id"], found["file"]) == ("bad", "4711", "part.png")
    refused = names["inspect"](tmp_path / "part.png", "x" * 999, url)
    assert (refused["verdict"], refused["cause"]) == ("review", "service") and "422" in refused["reason"]


def test_no_file_is_left(service):
    assert list(service.log.parent.glob("defectflow-serve-*/*/jobs/*/*")) == []
