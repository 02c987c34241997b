"""The service as a process: how it starts and refuses to, how bundles are swapped, and how it ends."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import bundle_set
import pytest
from defectflow.commands import cli
from defectflow.service.access import add_token
from running_service import form, png, running, start

pytest.importorskip("fastapi", reason="needs the extra serve")

GOOD = png(bundle_set.photograph(80))


@pytest.fixture
def refused(capsys):
    """Function that starts a service and returns the one line with which it ends."""

    def run(*words) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main(["serve", *map(str, words)])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert caught.value.code == 2 and len(lines) == 1
        return lines[0]

    return run


def with_threshold(bundle, value):
    """The same bundle, with another threshold."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["threshold"]["value"] = value
    manifest["review"] = None
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def test_it_starts_only_where_it_can_work(bundle_folder, tmp_path, refused):
    assert "no such bundle" in refused(tmp_path / "none")
    assert "tokens are needed" in refused(bundle_folder, "--host", "0.0.0.0")
    (tmp_path / "not.pem").write_text("x")
    pem = ("--certificate", tmp_path / "not.pem", "--key", tmp_path / "not.pem")
    assert "not a certificate" in refused(bundle_folder, *pem, "--port", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "choose another port" in refused(bundle_folder, "--port", taken.getsockname()[1])
    assert "no fp16" in refused(
        bundle_folder, "--precision", "fp16", "--port", "0", "--workers", "1"
    )  # what only a worker finds out


def test_bundles_are_swapped_without_a_lost_request(bundle_folder, tmp_path):
    live = shutil.copytree(bundle_folder, tmp_path / "live")
    with_threshold(live, 1.0)
    tokens = tmp_path / "tokens.json"
    camera, boss = add_token(tokens, "camera", "inspect"), add_token(tokens, "boss", "approve")
    bearer = {name: {"Authorization": f"Bearer {text}"} for name, text in (("camera", camera), ("boss", boss))}
    words = (f"plate={live}", f"other={bundle_folder}", "--workers", "1", "--tokens", tokens)
    with running(tmp_path, *words) as service:
        assert service.inspect([("a.png", GOOD)])[0] == 401
        assert service.get("/v1/models", headers={"Authorization": "Bearer df_wrong"})[0] == 401
        assert service.get("/metrics")[0] == 401 and service.get("/v1/ready")[0] == 200
        assert service.request("POST", "/v1/reload", headers=bearer["camera"])[0] == 403
        assert "name a model" in service.inspect([("a.png", GOOD)], bearer["camera"])[2]["error"]
        before = service.inspect([("a.png", GOOD)], bearer["camera"], model="plate")[2]["results"][0]
        assert (before["threshold"], before["verdict"]) == (1.0, "good")
        with_threshold(live, 0.001)  # takes effect when it is asked for, also if a worker is replaced
        os.kill(service.workers()[0], signal.SIGKILL)
        again = service.inspect([("a.png", GOOD)], bearer["camera"], model="plate")[2]["results"][0]
        assert (again["threshold"], again["model_version"]) == (1.0, before["model_version"])
        answers, ended = [], threading.Event()

        def send():
            while not ended.is_set():
                answers.append(service.inspect([("a.png", GOOD)], bearer["camera"], model="plate"))

        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        status, _, state = service.request("POST", "/v1/reload", headers=bearer["boss"])
        assert status == 200 and state["ready"]
        after = service.inspect([("a.png", GOOD)], bearer["camera"], model="plate")[2]["results"][0]
        ended.set()
        for thread in threads:
            thread.join()
        assert (after["threshold"], after["verdict"]) == (0.001, "bad")
        assert after["model_version"] != before["model_version"]
        assert {status for status, _, _ in answers} == {200}
        results = [answer["results"][0] for _, _, answer in answers]
        assert {r["cause"] for r in results} == {None}
        assert {(r["threshold"], r["verdict"]) for r in results} == {(1.0, "good"), (0.001, "bad")}
        assert len(service.workers()) == 1
        (live / "bank.safetensors").write_bytes(b"x")  # a damaged one changes nothing
        status, _, answer = service.request("POST", "/v1/reload", headers=bearer["boss"])
        assert status == 409 and "damaged" in answer["error"]
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "the bundles are not changed" in service.log.read_text())
        last = service.inspect([("a.png", GOOD)], bearer["camera"], model="plate")[2]["results"][0]
        assert last["model_version"] == after["model_version"]
        assert not {camera, boss} & set(service.log.read_text().split())


def test_it_ends_when_what_it_accepted_is_answered(bundle_folder, tmp_path):
    service = start(tmp_path, bundle_folder, "--workers", "1")
    try:
        status, headers, answer = service.inspect([("a.png", GOOD)])
        if status != 200:  # a fast machine is ready at once
            assert status == 503 and headers["retry-after"] and "being loaded" in answer["error"]
        service.wait_for(lambda: service.get("/v1/ready")[0] == 200)
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(service.inspect([("a.png", GOOD)]))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        service.wait_for(lambda: service.metric("defectflow_queue_length") == 2)
        service.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        for thread in threads:
            thread.join()
        assert [answer["results"][0]["verdict"] for _, _, answer in answers] == ["good"] * 3
        assert service.process.wait(20) == 0
    finally:
        service.process.kill()
    assert list(tmp_path.glob("defectflow-serve-*")) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here to make a certificate")
def test_tls_the_limit_of_requests_and_a_killed_service(bundle_folder, tmp_path):
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    pem = ("--certificate", tmp_path / "cert.pem", "--key", tmp_path / "key.pem")
    with running(tmp_path, bundle_folder, "--workers", "1", *pem, "--rate", "0.01") as service:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        body, headers = form([("a.png", GOOD)])
        request = urllib.request.Request(f"https://127.0.0.1:{service.port}/v1/inspect", body, headers)
        with urllib.request.urlopen(request, context=trusted, timeout=30) as answer:
            assert json.load(answer)["results"][0]["verdict"] == "good"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, context=trusted, timeout=30)
        assert caught.value.code == 429 and 1 <= int(caught.value.headers["Retry-After"]) <= 100
        (worker,) = service.workers()
        service.process.kill()
        service.process.wait()
        end = time.monotonic() + 20
        while os.path.exists(f"/proc/{worker}"):  # workers end with it
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_worker_needs_no_torch_where_the_bundle_needs_none(bundle_folder, tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(GOOD)
    code = f"""
import sys
from pathlib import Path
from defectflow.service import app, pool, server, worker
from defectflow.inspection.inspector import Inspector
found = worker.judge(Inspector.load({str(bundle_folder)!r}), Path({str(photo)!r}), True, 10**8)
print(found["verdict"], *sorted({{"torch", "pandas", "sklearn", "anomalib", "snakemake"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["good"]
