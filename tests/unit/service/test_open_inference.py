"""Requests of the Open Inference Protocol, parsed and answered."""

import base64
import json

import bundle_set
import numpy as np
import pytest
from running_service import png, running

pytest.importorskip("fastapi", reason="needs the extra serve")

from defectflow.service.open_inference import parsed
from defectflow.service.options import Options
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

GOOD, BAD = (bundle_set.photograph(80 + n, bad=n == 1) for n in range(2))
OPTIONS = Options(bundles=("b",), pictures=3, pixels=20000)
NUMBERS = st.one_of(st.none(), st.integers(-300, 300), st.floats(), st.text(max_size=4))
DATA = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["image", "other"]),
        "shape": st.lists(st.integers(-2, 4), max_size=5) | DATA,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]),
        "data": st.lists(NUMBERS, max_size=12) | DATA,
    }
)


def request(*files: bytes, **more) -> dict:
    data = [base64.b64encode(file).decode() for file in files]
    return {"inputs": [{"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": data}], **more}


def array(values: np.ndarray, **more) -> dict:
    tensor = {"name": "image", "shape": list(values.shape), "datatype": "UINT8", "data": values.tolist()}
    return {"inputs": [tensor], **more}


def test_verdicts_are_those_of_the_other_endpoint(bundle_folder, tmp_path):
    with running(tmp_path, f"plate={bundle_folder}", "--workers", "1") as service:

        def post(path, body):
            return service.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})

        assert service.get("/v2")[2]["name"] == "defectflow"
        assert service.get("/v2/health/live")[0] == service.get("/v2/health/ready")[0] == 200
        described = service.get("/v2/models/plate")[2]
        (version,) = described["versions"]
        assert described["platform"].startswith("defectflow_") and described["inputs"][0]["datatype"] == "BYTES"
        assert service.get("/v2/models/plate/ready")[2] == {"name": "plate", "ready": True}
        for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/plate/versions/1"):
            assert service.get(path)[0] == 404
        expected = service.inspect([("a", png(GOOD)), ("b", png(BAD))])[2]["results"]
        for path in ("/v2/models/plate/infer", f"/v2/models/plate/versions/{version}/infer"):
            status, _, answer = post(path, request(png(GOOD), png(BAD), id="7"))
            assert status == 200 and (answer["id"], answer["model_version"]) == ("7", version)
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            for key in ("verdict", "score", "raw_score", "threshold"):
                assert outputs[key] == [result[key] for result in expected]
        pictures = array(np.stack([GOOD, BAD]), outputs=[{"name": "raw_score"}])
        (output,) = post("/v2/models/plate/infer", pictures)[2]["outputs"]
        assert output["data"] == [result["raw_score"] for result in expected] and output["shape"] == [2]
        outputs = post("/v2/models/plate/infer", request(b"no picture"))[2]["outputs"]
        found = {output["name"]: output["data"] for output in outputs}
        assert (found["verdict"], found["cause"], found["score"]) == (["review"], ["unreadable"], [-1.0])
        assert post("/v2/models/plate/infer", {"inputs": []})[0] == 400
        assert post("/v2/models/other/infer", request(b""))[0] == 404


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, 400), ([], 400), ({"inputs": 1}, 400), (request(), 400), (request(*[b"x"] * 4), 413),
        (request(b"x", outputs=[{"name": "heat"}]), 400), (array(np.zeros((2, 2, 4), int)), 400),
        (array(np.zeros((200, 200, 3), int)), 413), (array(np.full((1, 1, 3), 256)), 400),
        (array(np.full((1, 1, 3), 0.5)), 400),
        ({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["no base64!"]}]}, 400),
        ({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["QQ=="]}]}, 400),
        ({"inputs": [{"name": "image", "shape": [1 << 70, 1, 3], "datatype": "UINT8", "data": []}]}, 413),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused(body, expected):
    with pytest.raises(HTTPException) as caught:
        parsed(json.dumps(body).encode(), OPTIONS)
    assert caught.value.status_code == expected and "\n" not in caught.value.detail


@given(st.lists(TENSOR, max_size=2), st.binary(max_size=30))
def test_any_other_request_is_refused_or_has_photographs(tensors, raw):
    for body in (raw, b"[" * 9000, json.dumps({"inputs": tensors}).encode()):
        try:
            asked, pictures = parsed(body, OPTIONS)
        except HTTPException as error:
            assert error.status_code in (400, 413)
        else:
            assert 1 <= len(pictures) <= 3 and asked.inputs[0].name == "image"
