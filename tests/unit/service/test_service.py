"""Verdicts go where they are asked to."""

import csv

import bundle_set
import pytest
from running_service import png, receiving, running

pytest.importorskip("fastapi", reason="needs the extra serve")

from defectflow.service.options import Options
from defectflow.service.service import deliveries


@pytest.fixture
def receiver():
    with receiving() as one:
        yield one


def test_a_verdict_reaches_all_outputs_also_after_a_restart(bundle_folder, receiver, tmp_path):
    photo = png(bundle_set.photograph(80))
    for _ in range(3):
        receiver.statuses.put(503)
    words = [
        bundle_folder, "--workers", "1", "--spool", tmp_path / "spool", "--csv", tmp_path / "v.csv",
        "--webhook", f"http://127.0.0.1:{receiver.server_port}/",
    ]  # fmt: skip
    with running(tmp_path, *words) as service:
        results = service.inspect([("a.png", photo), ("b.png", b"")], part_id=["1", "2"])[2]["results"]
        service.wait_for(lambda: service.metric("defectflow_delivery_failures"))
    with running(tmp_path, *words) as service:
        service.wait_for(lambda: len(receiver.got) >= 5)
        service.wait_for(lambda: service.metric("defectflow_delivery_waiting") == 0)
    taken = [content for status, _, _, content in receiver.got if status == 204]
    with (tmp_path / "v.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for found in (taken, rows):
        assert [record["id"] for record in found] == [result["id"] for result in results]
        assert [record["part_id"] for record in found] == ["1", "2"]
        assert [record["verdict"] for record in found] == ["good", "review"]
    assert taken[0]["regions"] == [] and "overlay_jpeg" not in taken[0]


def test_outputs_are_those_that_are_asked_for(tmp_path):
    assert deliveries(Options(bundles=("b",)), []) == []
    options = Options(bundles=("b",), csv=tmp_path / "a.csv", webhook="http://a/b", mqtt="mqtt://a/b")
    assert [output.name for output in deliveries(options, [])] == ["csv", "webhook", "mqtt"]
