"""Weights and checkpoints that the config names: each missing or wrong file is one line before the first job."""

import hashlib
from types import SimpleNamespace

import pytest
from defectflow.classification.settings import KindSettings
from defectflow.core.files import UserError
from defectflow.methods.method_settings import METHODS
from defectflow.segmentation.segmenters import SEGMENTERS
from defectflow.sources.weight_checks import check_files

RUN = SimpleNamespace(segmenter="asked", detector="patchcore")


def check(folder, **entry):
    settings = {
        "segmenters": {"asked": SEGMENTERS.from_dict(entry, "config.yaml: segmenters.asked")},
        "detectors": {"patchcore": METHODS.from_dict({"method": "patchcore"}, "")},
        "kinds": KindSettings(),
    }
    check_files(RUN, settings, False, folder / "cache.json")


@pytest.fixture
def pair(tmp_path):
    for name in ("encoder", "decoder"):
        (tmp_path / f"{name}.onnx").write_text(name)
    return {name: str(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder")}


def test_a_pair_that_is_there_passes(tmp_path, pair):
    check(tmp_path, method="sam_onnx", **pair)
    check(tmp_path, method="sam_onnx", decoder_sha256=hashlib.sha256(b"decoder").hexdigest(), **pair)
    check(tmp_path, method="prompted", model="nano")
    check(tmp_path, method="found")
    check(tmp_path, method="found", candidates=[{"onnx": pair["encoder"]}])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"encoder_sha256": "0" * 64}, "encoder.onnx: wrong checksum"),
        ({"decoder": "none.onnx"}, r"none.onnx: no such file \(config.yaml names it under segmenters.asked.decoder\)"),
        ({"encoder": None}, "segmenters.asked: method sam_onnx needs encoder"),
        ({"method": "found", "candidates": [{"onnx": "none.onnx"}]}, "none.onnx: no such file"),
        ({"method": "found", "candidates": [{"sha256": "0" * 64}]}, "encoder.onnx: wrong checksum"),
        ({"method": "prompted", "model": "sam2.1_hiera_t"}, "sam2.1_hiera_t needs its checkpoint"),
        ({"method": "prompted", "model": "nano", "checkpoint": "none.pt"}, "none.pt: no such file"),
        (
            {"method": "prompted", "model": "sam2.1_hiera_t", "checkpoint": "https://x.org/a.pt", "sha256": "0" * 64},
            "allow_downloads is false",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told(tmp_path, pair, entry, message):
    if "candidates" in entry:
        entry = entry | {"candidates": [{"onnx": pair["encoder"]} | one for one in entry["candidates"]]}
    given = {"method": "sam_onnx"} | (pair if "method" not in entry else {}) | entry
    with pytest.raises(UserError, match=message) as error:
        check(tmp_path, **given)
    assert "\n" not in str(error.value)
