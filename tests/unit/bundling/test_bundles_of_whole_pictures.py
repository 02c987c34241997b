"""Bundles of detectors with a network of their own: the scores of the workflow, with torch and as a graph."""

import json

import bundle_set
import numpy as np
import pytest
import torch
from defectflow.backbones.network_input import fit_picture, scales_of
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.bundling import bundle
from defectflow.bundling.export import export_bundle
from defectflow.core.files import UserError, read_json
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.runtimes import picture_of, pixels_by_cell
from defectflow.methods.method_settings import METHODS
from defectflow.methods.picture_detector import Training
from defectflow.methods.registry import detector_class
from safetensors.torch import save_file

SIDE, GRID = 64, (16, 16)
NETWORK = {"backbone": "picture", "layers": ["picture"], "trained": False, "grid": list(GRID)}
NETWORK |= {"fitted_size": [SIDE, SIDE], "input_size": [SIDE, SIDE]}
NANO = {"backbone": "patch-nano", "layers": ["layer2", "layer3"]}
STFPM = {"method": "anomalib", "model": "Stfpm", "options": NANO, "score": "model"}
VAE = {"method": "vae", "latent": 4, "width": 8, "score": "max"}


def shown(number, bad=False):
    frame = (bundle_set.SIDE, 128)
    photograph = bundle_set.photograph(number, bad, frame)
    return fit_picture(photograph, None, (0, 0, 128, frame[0]), (SIDE, SIDE), scales_of(NETWORK), 4)


def made(folder, monkeypatch, entry):
    """The bundle of a network trained on six pictures, and that network as the workflow has it."""
    entry = {"image_size": SIDE, "steps": 2, "train_batch_size": 4, "foreground_only": True} | entry
    monkeypatch.setattr(bundle_set, "banks_of", lambda *_: ({"all": torch.zeros(1)}, {"fold/0": torch.zeros(1)}))
    network = NETWORK | {"method": entry["method"]}
    words = bundle_set.arguments(folder, network=network, detector=entry)
    cls, method = detector_class(entry["method"]), METHODS.classes[entry["method"]]
    settings = method.from_dict({key: value for key, value in entry.items() if key != "method"}, "x")
    pictures = torch.stack([torch.from_numpy(shown(i).picture.copy()).permute(2, 0, 1) for i in range(6)])
    tensors = cls.train(Training(pictures, GRID, settings, 0, torch.device("cpu"), None))
    about = network | {"precision": "float32", "dilation": 4, "foreground_only": True}
    for file, name in (("banks", "all"), ("fold_banks", "fold/0")):
        named = {f"{name}/{key}" if key else name: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(named, folder / f"{file}.safetensors", metadata={"defectflow": json.dumps(about)})
    bundle.main(bundle.build_parser().parse_args(words))
    return folder / "bundle", cls(tensors, NETWORK, settings)


@pytest.mark.parametrize("entry", [STFPM, VAE], ids=["anomalib", "vae"])
def test_an_inspector_gives_the_scores_of_the_workflow_and_so_does_its_graph(tmp_path, monkeypatch, entry):
    folder, detector = made(tmp_path, monkeypatch, entry)
    assert not (folder / "backbone.safetensors").exists()
    by_torch, inspectors = Inspector.load(folder, "torch"), []
    if entry is STFPM:  # after two steps an autoencoder's errors are rounding to a thousandth
        assert read_json(folder / "parity.json")["map"]["largest"] < 1e-3
        inspectors = [Inspector.load(folder), Inspector.load(folder, "onnx")]
        assert inspectors[0].runtime == "openvino"
    embed = PatchEmbedder("picture", ["picture"])
    for number, bad in ((3, False), (60, True)):
        item = shown(number, bad)
        patches = embed(item.picture[None].copy())[0].flatten(0, 1)[item.cells]
        score, distances = detector.judge(patches, torch.from_numpy(item.cells))
        said = by_torch(bundle_set.photograph(number, bad))
        assert said.raw_score == pytest.approx(score, rel=1e-6)
        np.testing.assert_allclose(said.map.grid_map.ravel()[item.cells], distances, rtol=1e-5)
        for by_graph in inspectors:
            assert by_graph(bundle_set.photograph(number, bad)).raw_score == pytest.approx(score, rel=1e-3)
    if entry is STFPM:
        export_bundle(folder, "openvino", "fp32", [tmp_path / "known_0.png"])
        assert Inspector.load(folder, "openvino", precision="fp32")(bundle_set.photograph(3)).raw_score > 0
    card = (folder / "README.md").read_text()
    assert "trained on the pictures of 6 good images" in card and "backbone" not in card


def test_a_network_that_is_no_graph_runs_with_torch_alone(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("defectflow.bundling.onnx_and_openvino.export_graph", refuse)
    folder, _ = made(tmp_path, monkeypatch, VAE)
    assert "cannot be exported to ONNX (RuntimeError). The bundle has no network.onnx" in capsys.readouterr().err
    assert Inspector.load(folder).runtime == "torch"
    with pytest.raises(UserError, match="use the torch runtime"):
        Inspector.load(folder, "openvino")


def test_pixels_by_cell_are_those_of_the_workflow_and_become_the_picture_again():
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    patches = pixels_by_cell(picture)
    np.testing.assert_array_equal(patches, PatchEmbedder("picture", ["picture"])(picture).flatten(1, 2).numpy())
    position = np.array([0, 5, 23])
    again = picture_of(patches[0][position], position, (4, 6))
    kept = np.zeros((4, 6), bool)
    kept.ravel()[position] = True
    kept = kept.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(again[kept], picture[0][kept])
    assert not again[~kept].any()
