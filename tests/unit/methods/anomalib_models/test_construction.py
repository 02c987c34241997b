import pytest
import torch
from defectflow.core.files import UserError
from defectflow.methods.anomalib_models.construction import checked_options, create, model_class, without_downloads

NANO = {"backbone": "patch-nano", "layers": ["layer2", "layer3"]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Pdim", {}, "anomalib has no model 'Pdim' (did you mean 'Padim'?)"),
        ("Fuvas", {}, "model Fuvas: it judges videos (choose one of AnomalyDINO, "),
        ("Padim", {"backbon": "resnet18"}, "anomalib's Padim has no option 'backbon' (did you mean 'backbone'?)"),
        ("Padim", {"post_processor": True}, "anomalib's Padim has no option 'post_processor' (known: backbone, layers"),
        ("Padim", {"n_features": "many"}, "d.n_features: 'many' is not of type integer or null"),
        ("Ganomaly", {"lr": True}, "d.lr: True is not of type number"),
        (
            "Stfpm",
            {},
            "model Stfpm starts from trained weights of 'resnet18', which are not here (give a file of them as "
            "`weights:`; or take the included network: options: {backbone: patch-nano, layers: [layer2, layer3]})",
        ),
        ("Cfa", {}, "model Cfa starts from trained weights of 'wide_resnet50_2', which are not here"),
        (
            "Draem",
            {},
            "model Draem needs a folder of other pictures: ./datasets/dtd: none (options: {dtd_dir: FOLDER})",
        ),
        ("Dsr", {}, "model Dsr wants to download from github.com, and nothing is downloaded here (put its files into "),
        ("Padim", NANO, "model Padim does not take these options or this image_size: n_features must be specified"),
    ],
)
def test_what_cannot_be_made_is_one_line(name, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # models make folders where they expect their files
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError) as error:
        create(name, options, 64, where="d")
    assert str(error.value).startswith("d") and message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "datasets").exists()


def test_texts_that_mean_numbers_are_numbers():
    given = {"n_features": "16", "lr": "0.001", "add_final_conv_layer": "false"}
    taken = checked_options(model_class("Ganomaly", "d"), given, "d")
    assert taken == {"n_features": 16, "lr": 0.001, "add_final_conv_layer": False}


def test_a_model_has_no_post_processing_and_cuts_nothing_off():
    made = create("MHPatchcore", NANO, 256)
    assert made.post_processor is None and made.evaluator is None and made.visualizer is None
    assert made.pre_processor(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)


def test_the_included_network_has_its_weights():
    from defectflow.backbones.networks import create_backbone

    own = create_backbone("patch-nano", ["layer2", "layer3"]).state_dict()
    made = create("Stfpm", NANO, 64).model
    state = made.teacher_model.feature_extractor.state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[key], own[key]) for key in own)
    student = made.student_model.feature_extractor.state_dict()
    assert not torch.equal(student["stem.0.conv.weight"], own["stem.0.conv.weight"])


@pytest.mark.parametrize(("model", "key"), [("Stfpm", "model.teacher_model.feature_extractor."), ("Cfa", None)])
def test_weights_come_from_the_file(model, key, tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(3)
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "net.safetensors")
    made = create(model, {"backbone": "resnet18"}, 64, str(tmp_path / "net.safetensors")).state_dict()
    key = key or next(name for name in made if name.endswith("layer1.0.conv1.weight")).split("layer1")[0]
    assert torch.equal(made[f"{key}layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    with pytest.raises(UserError, match="resnet34"):
        create(model, {"backbone": "resnet34"}, 64, str(tmp_path / "net.safetensors"))


def test_a_download_is_refused_also_while_a_model_trains():
    import socket

    with pytest.raises(UserError, match=r"m wants to download from example\.org"), without_downloads("m", "failed"):
        socket.create_connection(("example.org", 80))
    with pytest.raises(UserError, match="m failed: no 'loss' at all"), without_downloads("m", "failed"):
        raise ValueError("no 'loss'\nat all")
