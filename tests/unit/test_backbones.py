"""Backbones: shapes, weights, errors, the way into anomalib, and a training run that can be interrupted."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from defectflow import backbones, pretrain_backbone
from defectflow.backbones import create_backbone
from defectflow.files import UserError, read_json
from defectflow.patch_nano import (
    LAYERS,
    PATCH_NANO_WEIGHTS,
    PatchNano,
    feature_maps,
    fold_norms,
    load_weights,
    unfold_norms,
)
from defectflow.pretrain_figures import descriptors, evaluate, find_defects, write_card
from defectflow.pretrain_images import training_batch
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def nano():
    return create_backbone("patch-nano", LAYERS)


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))


def test_maps_have_the_teachers_channels_and_strides(nano, image):
    second, third = nano(image)
    assert second.shape == (2, 128, 16, 20)
    assert third.shape == (2, 256, 8, 10)
    assert second.dtype == third.dtype == torch.float32
    assert nano.feature_info.channels() == [128, 256]
    assert nano.feature_info.reduction() == [8, 16]
    resnet = create_backbone("resnet18", LAYERS)
    assert [m.shape for m in resnet(image)] == [second.shape, third.shape]


@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:1], LAYERS[1:]])
def test_the_way_without_timm_gives_the_same_numbers(image, layers):
    traced, ours = create_backbone("patch-nano", layers), feature_maps(layers)
    for expected, (layer, found) in zip(traced(image), ours(image).items(), strict=True):
        assert layer in layers and torch.equal(found, expected)
    script = "import sys, defectflow.patch_nano; print({'timm', 'torchvision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_receptive_field_is_nearly_the_teachers():
    """Pixels that the middle of a map depends on; the teacher's layer2 and layer3 see 99 and 211."""
    model = PatchNano()
    for parameter in model.parameters():  # all positive: no path is cut by a ReLU or cancelled by another
        torch.nn.init.constant_(parameter, 0.1 if parameter.ndim == 1 else 0.01)
    x = torch.ones(1, 3, 320, 320, requires_grad=True)
    second = model.layer2(model.stem(x))
    for output, expected in ((second, 95), (model.layer3(second), 207)):
        (gradient,) = torch.autograd.grad(
            output[0, 0, output.shape[2] // 2, output.shape[3] // 2], x, retain_graph=True
        )
        columns = gradient[0, 0].abs().sum(0).nonzero()
        assert columns.max() - columns.min() + 1 == expected


def test_extractor_is_frozen_trained_and_in_eval_mode(nano):
    assert nano.trained
    assert not nano.training
    assert not any(p.requires_grad for p in nano.parameters())
    assert all(p.dtype == torch.float32 for p in nano.parameters())


def test_loading_twice_gives_the_same_network_and_leaves_the_generator_alone(nano, image):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = create_backbone("patch_nano", LAYERS, seed=99)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(nano(image), again(image), strict=True):
        assert torch.equal(a, b)


def test_one_layer_alone_is_the_same_map(nano, image):
    (third,) = create_backbone("patch-nano", ["layer3"])(image)
    assert torch.equal(third, nano(image)[1])


def test_both_names_are_registered_and_load_the_packaged_weights_through_timm(nano, image):
    for name in ("patch_nano", "patch-nano"):
        assert timm.is_model(name)
        model = timm.create_model(name, pretrained=True, features_only=True).eval()
        torch.testing.assert_close(model(image)[1], nano(image)[1], rtol=1e-4, atol=1e-4)


def test_packaged_weights_are_small_finite_half_precision_and_described():
    assert PATCH_NANO_WEIGHTS.stat().st_size <= 4_000_000
    state = load_file(PATCH_NANO_WEIGHTS)
    assert all(v.dtype == torch.float16 and torch.isfinite(v).all() for v in state.values())
    figures = read_json(PATCH_NANO_WEIGHTS.with_suffix(".json"))
    assert figures["bytes"] == PATCH_NANO_WEIGHTS.stat().st_size
    assert figures["parameters"] == sum(v.numel() for v in state.values())
    assert figures["held_out"]["cosine"] > figures["run"]["curve"][0]["cosine"]
    assert f"{figures['held_out']['cosine']:.4f}" in PATCH_NANO_WEIGHTS.with_suffix(".md").read_text()


def test_anomalib_computes_the_same_descriptors_from_name_and_from_module(nano, image):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    expected = descriptors(nano(image)).permute(0, 2, 3, 1).reshape(-1, 384)
    for backbone in (nano, "patch_nano"):
        model = PatchcoreModel(layers=list(LAYERS), backbone=backbone, pre_trained=True).train()
        torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)


def test_network_is_plain_operators_that_every_runtime_has(nano, image):
    graph = torch.jit.trace(nano, image).inlined_graph
    operators = {node.kind() for node in graph.nodes() if node.kind().startswith("aten::")}
    assert operators <= {"aten::_convolution", "aten::relu", "aten::relu_", "aten::add"}


def test_untrained_network_says_so_and_follows_the_seed(image):
    first, same, other = (create_backbone("resnet18.tv_in1k", LAYERS, seed=s) for s in (1, 1, 2))
    assert not first.trained
    assert torch.equal(first(image)[0], same(image)[0])
    assert not torch.equal(first(image)[0], other(image)[0])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_the_lower_layers_suffice(tmp_path, image, suffix):
    whole = timm.create_model("resnet18", pretrained=False).eval()
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(("layer4", "fc"))}
    path = tmp_path / f"lower.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    model = create_backbone("resnet18.tv_in1k", LAYERS, path)
    assert model.trained
    assert torch.equal(model.state_dict()["layer3.1.conv2.weight"], state["layer3.1.conv2.weight"])
    with pytest.raises(UserError, match=r"does not fit.*layer4"):
        create_backbone("resnet18.tv_in1k", ("layer3", "layer4"), path)


def test_wrong_files_and_names_are_one_line_errors(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("not weights")
    pickled = tmp_path / "pickled.pth"
    torch.save({"run": print}, pickled)
    numbers = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, numbers)
    for arguments, match in (
        (("patch-nano", LAYERS, tmp_path / "absent.safetensors"), "no file"),
        (("patch-nano", LAYERS, text), "not a readable state dict"),
        (("resnet18", LAYERS, numbers), "is not a state dict"),
        (("resnet18", LAYERS, pickled), "not a readable state dict"),
        (("resnet18", LAYERS, PATCH_NANO_WEIGHTS), "does not fit"),
        (("no_such_net", LAYERS), "no model"),
        (("patch-nano", ("layer1",)), "no layer layer1"),
        (("patch-nano", ("layer3", "layer2")), "lowest first"),
        (("patch-nano", ()), "lowest first"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            create_backbone(*arguments)
        assert "\n" not in str(caught.value)


def test_download_needs_a_tag_that_timm_knows():
    with pytest.raises(UserError, match=r"resnet18\.tv_in1k"):
        create_backbone("resnet18", LAYERS, allow_download=True)
    with pytest.raises(UserError, match="no such weights"):
        create_backbone("resnet18.no_such_tag", LAYERS, allow_download=True)


def test_folding_norms_keeps_the_output(image):
    torch.manual_seed(0)
    model = PatchNano(norm=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
    model.eval()
    folded = fold_norms(copy.deepcopy(model))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert set(folded.state_dict()) == set(PatchNano().state_dict())
    torch.testing.assert_close(folded(image), model(image), rtol=1e-4, atol=1e-4)


def test_training_goes_on_from_the_same_function():
    torch.manual_seed(0)
    load_weights(shipped := PatchNano(), PATCH_NANO_WEIGHTS, "patch-nano")
    batch = torch.randn(8, 3, 64, 64)
    expected = shipped(batch)
    again = unfold_norms(shipped, batch)
    torch.testing.assert_close(again.train()(batch), expected, rtol=1e-3, atol=1e-4)
    again = unfold_norms(shipped, batch).eval()
    torch.testing.assert_close(again(batch), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fold_norms(again)(batch), expected, rtol=1e-3, atol=1e-4)


def test_training_images_depend_on_seed_and_step_alone():
    photos = [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(3)]
    batch = training_batch(3, 7, photos, 64, 48)  # 64 draws reach every branch
    assert batch.shape == (64, 48, 48, 3)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch, training_batch(3, 7, photos, 64, 48))
    assert not np.array_equal(batch, training_batch(3, 8, photos, 64, 48))


def test_interrupted_training_resumes_to_the_identical_weights(tmp_path):
    photos = [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(8)]
    teacher = create_backbone("resnet18", LAYERS)

    def run(folder, stop_at=None, resume=False):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = {"batch": 2, "size": 32, "every": 3, "stop_at": stop_at, "resume": resume}
        return pretrain_backbone.train(
            teacher, photos[:6], photos[6:], tmp_path / folder, steps=6, minutes=None, **options
        )

    straight, record = run("straight")
    run("broken", stop_at=4)
    resumed, again = run("broken", resume=True)
    assert record["steps"] == again["steps"] == 6
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key

    pretrain_backbone.export(straight, tmp_path / "out.safetensors")
    model = create_backbone("patch-nano", LAYERS, tmp_path / "out.safetensors")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x)[0], straight.layer2(straight.stem(x)), rtol=0.01, atol=0.01)


def test_a_checkpoint_of_another_recipe_is_set_aside(tmp_path):
    photos = [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(4)]
    teacher = create_backbone("resnet18", LAYERS)
    for seed in (0, 1):
        _, record = pretrain_backbone.train(
            teacher, photos, photos[:1], tmp_path, steps=1, minutes=None, seed=seed, batch=2, size=32, resume=True
        )
        assert record["steps"] == 1
    assert (tmp_path / "checkpoint-old.pt").exists()


def test_figures_tell_a_copy_from_a_stranger(nano):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    copy_figures = evaluate(nano, nano, images)
    assert copy_figures["cosine"] == pytest.approx(1, abs=1e-5)
    assert copy_figures["explained"] == pytest.approx(1, abs=1e-5)
    stranger = create_backbone("resnet18", LAYERS)
    assert evaluate(stranger, nano, images)["cosine_centred"] < 0.9
    photos = [np.full((90, 90, 3), 128, np.uint8)]  # damage on a plain wall is plain to see
    assert find_defects(nano, photos, seed=0, size=64) > 0.9


def test_card_is_written_from_figures(tmp_path):
    figures = read_json(PATCH_NANO_WEIGHTS.with_suffix(".json"))
    write_card(tmp_path / "card.md", figures)
    assert (tmp_path / "card.md").read_text() == PATCH_NANO_WEIGHTS.with_suffix(".md").read_text()
    figures["run"]["start"] = "0123456789abcdef"
    write_card(tmp_path / "card.md", figures)
    assert "It went on from exported weights, sha256 0123456789ab" in (tmp_path / "card.md").read_text()


def test_packaged_weights_are_where_the_package_looks():
    assert PATCH_NANO_WEIGHTS.parent.parent.samefile(backbones.__file__.rsplit("/", 1)[0])
