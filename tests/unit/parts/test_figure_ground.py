"""part-nano: finds the thing where it lies, tells surfaces, and takes no other file for its weights."""

import shutil
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from defectflow.backbones.patch_nano import fold_norms
from defectflow.core.files import UserError, read_json, sha256_of, write_json
from defectflow.parts import figure_ground
from defectflow.parts.figure_ground import GRID, HEADS, SIDE, WEIGHTS, FigureGround, Heads, Trunk, read_heads
from defectflow.parts.registration_frame import iou
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def network():
    return FigureGround.load("cpu")


def cloth(shape, seed=0):
    """A light, grainy ground, uint8 (height, width, 3)."""
    grain = np.random.default_rng(seed).normal(0, 6, (*shape, 1))
    return np.clip(np.float32([196, 188, 170]) + grain, 0, 255).astype(np.uint8)


def plate(shape, centre, radius):
    """A dark plate with a bright rim before that ground, and its mask."""
    image, mask = cloth(shape), np.zeros(shape, np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    cv2.circle(image, centre, radius, (52, 60, 84), -1, cv2.LINE_AA)
    cv2.circle(image, centre, int(0.8 * radius), (84, 96, 120), 3, cv2.LINE_AA)
    return image, mask > 0


def test_finds_the_thing_where_it_lies_in_photographs_of_any_size(network):
    for shape, centre in (((300, 500), (330, 120)), ((500, 300), (120, 330))):
        image, mask = plate(shape, centre, 80)
        found = network.predict([image])[0]
        assert found.probability.shape == found.doubt.shape == (GRID, GRID)
        assert found.probability.dtype == found.doubt.dtype == np.float32
        assert found.probability.min() >= 0 and found.probability.max() <= 1
        assert found.doubt.min() >= 0 and found.doubt.max() <= 0.5
        assert iou(cv2.resize(found.probability, shape[::-1]) >= 0.5, mask) > 0.8
        assert found.surface < 0.5


def test_tells_a_surface_with_no_thing_in_it(network):
    found = network.predict([cloth((400, 400), seed) for seed in range(3)])
    assert all(one.surface > 0.5 for one in found)


def test_an_answer_does_not_depend_on_the_other_photographs(network):
    image, _ = plate((260, 260), (130, 120), 70)
    alone = network.predict([image])[0]
    among = network.predict([cloth((90, 200))] * figure_ground.BATCH + [image, cloth((50, 60))])[figure_ground.BATCH]
    np.testing.assert_allclose(alone.probability, among.probability, atol=1e-4)
    assert alone.surface == pytest.approx(among.surface, abs=1e-4)
    assert network.predict([]) == []


def test_mean_and_spread_are_those_of_the_heads(network):
    image, _ = plate((SIDE, SIDE), (150, 200), 90)
    with torch.inference_mode():
        figures, surfaces = network(figure_ground.to_input(image[None], torch.device("cpu")))
    assert figures.shape == (1, HEADS, GRID, GRID) and surfaces.shape == (1, HEADS)
    found = network.predict([image])[0]
    np.testing.assert_allclose(found.probability, figures[0].numpy().mean(0), atol=1e-5)
    np.testing.assert_allclose(found.doubt, figures[0].numpy().std(0), atol=1e-5)
    assert len({tuple(head.out.weight.flatten().tolist()) for head in network.heads.heads}) == HEADS


def test_the_file_is_small_and_the_one_that_its_figures_are_of():
    assert WEIGHTS.stat().st_size <= 2_000_000
    assert read_json(WEIGHTS.with_suffix(".json"))["sha256"] == sha256_of(WEIGHTS)


def test_a_damaged_file_another_backbone_and_other_weights_are_refused(tmp_path, monkeypatch):
    path = tmp_path / WEIGHTS.name
    shutil.copy(WEIGHTS, path)
    write_json(path.with_suffix(".json"), {"sha256": sha256_of(WEIGHTS)})
    state = load_file(path)
    assert read_heads(path)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(figure_ground, "WEIGHTS", path)
    with pytest.raises(UserError, match="sha256 is not that of its"):
        read_heads(path)
    other = tmp_path / "other.safetensors"
    with pytest.raises(UserError, match=r"other.safetensors: no such file"):
        read_heads(other)
    other.write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"other.safetensors: not a readable safetensors file"):
        read_heads(other)
    save_file(state, other, {"backbone": "0" * 64})
    with pytest.raises(UserError, match="features of another patch-nano"):
        read_heads(other)
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="not weights of part-nano"):
        read_heads(other)


def test_norms_are_folded_without_a_change():
    torch.manual_seed(0)
    heads = Heads(norm=True)
    for module in heads.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    maps = Trunk()(torch.randn(1, 3, 96, 96))
    heads.eval()
    with torch.inference_mode():
        before, after = heads(maps), fold_norms(deepcopy(heads))(maps)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert fold_norms(heads).state_dict().keys() == Heads().state_dict().keys()
