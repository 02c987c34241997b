"""Backbones: shapes, weights, errors, the way into anomalib, and a training run that can be interrupted."""

import copy
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from defectflow.backbones import networks
from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD, input_statistics
from defectflow.backbones.networks import create_backbone
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.backbones.patch_embedding import descriptors as descriptors_of
from defectflow.backbones.patch_nano import (
    LAYERS,
    PATCH_NANO_WEIGHTS,
    PatchNano,
    feature_maps,
    fold_norms,
    load_weights,
    unfold_norms,
)
from defectflow.core.files import UserError, read_json
from defectflow.pretraining import pretrain_backbone
from defectflow.pretraining.backbone_card import descriptors, evaluate, find_defects, write_card
from defectflow.pretraining.training_images import training_batch
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
    script = "import sys, defectflow.backbones.patch_nano; print({'timm', 'torchvision'} & set(sys.modules))"
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
    assert "Training continued from exported weights, sha256 0123456789ab" in (tmp_path / "card.md").read_text()


def test_packaged_weights_are_where_the_package_looks():
    assert PATCH_NANO_WEIGHTS.parent.parent.samefile(networks.__file__.rsplit("/", 1)[0])


def saved(path, state):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def facebook_dinov2(state):
    return {"mask_token": torch.zeros(1, 384), **state}


def facebook_dinov2_with_registers(state):
    patches = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], 1)
    state = {**state, "pos_embed": patches, "register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 384)}
    del state["reg_token"]
    return {"teacher": {f"backbone.{key}": value for key, value in state.items()}, "epoch": 3}


def facebook_convnext(state):
    def name(key):
        key = re.sub(r"^stem", "downsample_layers.0", key)
        key = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)
        key = re.sub(r"stages\.(\d)\.blocks", r"stages.\1", key).replace("head.norm", "norm").replace("head.fc", "head")
        return key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")

    # The original's 1 x 1 convolutions are linear: timm's small ones are not, and take the numbers reshaped.
    return {"model": {name(k): v[..., 0, 0] if ".mlp.fc" in k and v.ndim == 4 else v for k, v in state.items()}}


def torchvision_convnext(state):
    inner = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}

    def name(key):
        key = key.replace("head.norm", "classifier.0").replace("head.fc", "classifier.2")
        key = re.sub(r"stages\.(\d)\.downsample", lambda m: f"features.{2 * int(m[1])}", key)
        key = re.sub(r"stages\.(\d)\.blocks", lambda m: f"features.{2 * int(m[1]) + 1}", key)
        key = re.sub(r"^stem", "features.0", key).replace("gamma", "layer_scale")
        return re.sub("conv_dw|mlp.fc1|mlp.fc2|(?<=[0-9].)norm", lambda m: inner[m[0]], key)

    return {name(key): value[:, None, None] if "gamma" in key else value for key, value in state.items()}


def original_tresnet(state):
    def name(key):
        key = re.sub(r"(conv\d)\.conv\.", r"\1.0.", key)
        return re.sub(r"downsample\.(\d)\.conv", r"downsample.\1.0", key)

    return {"state_dict": {f"module.{name(key)}": value for key, value in state.items()}}


FILES = {
    "dinov2.pth": ("vit_small_patch14_dinov2.lvd142m", ["blocks.1"], facebook_dinov2),
    "registers.pt": ("vit_small_patch14_reg4_dinov2", ["blocks.1"], facebook_dinov2_with_registers),
    "timm.safetensors": ("convnext_atto", ["stages.1", "stages.2"], dict),
    "facebook.pth": ("convnext_atto", ["stages.1", "stages.2"], facebook_convnext),
    "torchvision.bin": ("convnext_tiny", ["stages.0", "stages.1"], torchvision_convnext),
    "tresnet.pth": ("tresnet_m", ["body.layer2"], original_tresnet),
    "resnet.pth": ("resnet10t", ["layer2"], lambda state: {"model": state}),
}


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_other_names_gives_the_same_network(tmp_path, file):
    name, layers, rename = FILES[file]
    torch.manual_seed(3)
    whole = timm.create_model(name.split(".")[0])
    state = {key: torch.rand_like(v) if v.is_floating_point() else v for key, v in whole.state_dict().items()}
    own = create_backbone(name, layers, saved(tmp_path / "own.safetensors", state))
    other = create_backbone(name, layers, saved(tmp_path / file, rename(state)))
    for key, expected in own.state_dict().items():
        found = other.state_dict()[key]
        assert key.endswith("num_batches_tracked") or torch.allclose(found, expected, atol=2e-5), key  # timm adds 1e-5


def test_positions_of_another_grid_are_interpolated(tmp_path):
    name = "vit_tiny_patch16_224"
    state = timm.create_model(name, img_size=96).state_dict()
    network = create_backbone(name, ["blocks.1"], saved(tmp_path / "other.pth", state))
    assert network.state_dict()["model.pos_embed"].shape == (1, 197, 192)
    assert network(torch.zeros(1, 3, 160, 96))[0].shape == (1, 192, 10, 6)


def test_a_wrong_file_is_told_by_the_names_that_do_not_fit(tmp_path):
    small = saved(tmp_path / "small.pth", timm.create_model("vit_tiny_patch16_224").state_dict())
    with pytest.raises(UserError) as caught:
        create_backbone("resnet10t", ["layer2"], small)
    told = str(caught.value)
    assert "missing: conv1.0.weight, " in told and "of other names in the file: cls_token, pos_embed, " in told
    with pytest.raises(UserError, match=r"cls_token \(1x1x192, wanted 1x1x384\)"):
        create_backbone("vit_small_patch16_224", ["blocks.1"], small)
    torch.save({"model": {"a": torch.zeros(1)}, "args": SimpleNamespace()}, tmp_path / "more.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        create_backbone("resnet10t", ["layer2"], tmp_path / "more.pth")


@pytest.mark.parametrize(
    ("name", "layers", "deeper"),
    [("resnet18", ["layer2"], "resnet34"), ("convnext_tiny", ["stages.0"], "convnext_small")],
)
def test_weights_of_a_deeper_network_are_refused_though_all_that_is_needed_is_there(tmp_path, name, layers, deeper):
    path = saved(tmp_path / "deeper.pth", timm.create_model(deeper).state_dict())
    with pytest.raises(UserError, match="is of a deeper network, "):
        create_backbone(name, layers, path)
    create_backbone(deeper, layers, path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = timm.create_model("resnet10t").state_dict()
    state["layer1.0.conv1.weight"][0] = float("nan")
    with pytest.raises(UserError, match=r"not finite: layer1\.0\.conv1\.weight$"):
        create_backbone("resnet10t", ["layer2"], saved(tmp_path / "broken.pth", state))


def test_a_network_gets_its_input_as_its_weights_want_it():
    assert input_statistics("tresnet_m.miil_in1k") == ((0, 0, 0), (1, 1, 1))
    assert input_statistics("vit_small_patch16_224.mine")[0] == (0.5, 0.5, 0.5)
    for name in ("patch-nano", "resnet18.tv_in1k", "vit_small_patch14_dinov2"):
        assert input_statistics(name) == (IMAGENET_MEAN, IMAGENET_STD)
    picture = np.full((1, 64, 64, 3), 255, np.uint8)
    embedder = PatchEmbedder("vit_tiny_patch16_224", ["blocks.0"])
    expected = embedder.network(torch.ones(1, 3, 64, 64))["blocks.0"]  # (1 - 0.5) / 0.5
    torch.testing.assert_close(embedder(picture), descriptors_of({"": expected}))
