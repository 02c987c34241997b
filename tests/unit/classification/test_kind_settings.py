"""What a study compares: combinations, their networks, and what is refused."""

import pytest
from defectflow.classification.settings import OWN, KindSettings
from defectflow.core.files import UserError
from defectflow.methods.patchcore.settings import PatchCoreSettings


def settings(**study) -> KindSettings:
    return KindSettings.from_dict({"study": study} if study else {}, "config.yaml: kinds")


def test_all_combinations_come_after_the_settings_themselves():
    rows = settings(head=["trained"], epochs=[50, 300], optimizer=["adam", "sgd"]).variants()
    assert [row.axes for row in rows] == [
        {"head": "linear", "epochs": 100, "optimizer": "adam"},
        {"head": "trained", "epochs": 50, "optimizer": "adam"},
        {"head": "trained", "epochs": 50, "optimizer": "sgd"},
        {"head": "trained", "epochs": 300, "optimizer": "adam"},
        {"head": "trained", "epochs": 300, "optimizer": "sgd"},
    ]
    assert {row.network for row in rows} == {OWN} and rows[-1].settings.optimizer == "sgd"


def test_each_network_is_described_once():
    study = settings(
        backbone=["patch-nano", "vgg19.tv_in1k"], image_size=[512, 256], head=["linear", "nearest"],
        networks={"vgg19.tv_in1k": {"layers": ["features.17"], "weights": "vgg.pth"}},
    )  # fmt: skip
    networks = study.networks()
    assert set(networks) == {OWN, "patch-nano-256", "vgg19.tv_in1k-512", "vgg19.tv_in1k-256"}
    vgg = networks["vgg19.tv_in1k-256"]
    assert (vgg.layers, vgg.weights, vgg.image_size) == (["features.17"], "vgg.pth", 256)
    assert networks[OWN].layers == ["layer2", "layer3"] and len(study.variants()) == 8


def test_weights_of_one_backbone_are_not_those_of_another():
    given = {"weights": "nano.safetensors", "study": {"backbone": ["patch-nano", "resnet18.tv_in1k"]}}
    networks = KindSettings.from_dict(given, "kinds").networks()
    assert networks[OWN].weights == "nano.safetensors" and networks["resnet18.tv_in1k-512"].weights is None


def test_without_a_study_there_is_one_variant():
    assert [row.network for row in settings().variants()] == [OWN] and list(settings().networks()) == [OWN]


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"head": ["linaer"]}, "linaer"),
        ({"epoch": [1]}, "did you mean 'epochs'"),
        ({"backbone": ["patch-nano"], "networks": {"vgg19": {}}}, "'vgg19' is not in the list backbone"),
        ({"backbone": ["vgg19"], "networks": {"vgg19": {"file": 1}}}, r"give \{layers: \[...\], weights: FILE\}"),
    ],
)
def test_what_is_wrong_in_a_study_is_told(study, said):
    with pytest.raises(UserError, match=said):
        settings(**study)


def test_what_a_finetuned_network_cannot_do_is_told():
    tuned = KindSettings.from_dict({"training": "finetune", "epochs": 5}, "kinds")
    assert "finetuned network" in tuned.not_carried_with(PatchCoreSettings())
    assert tuned.with_values(training="frozen").not_carried_with(PatchCoreSettings()) == ""
    with pytest.raises(UserError, match=r"set training: frozen"):
        tuned.with_values(study={"head": ["nearest"]}).variants()


def test_a_study_refuses_other_layers_for_the_network_of_kinds():
    # Its row at the size of kinds would have the layers of kinds, and at other sizes these.
    study = settings(backbone=["patch-nano"], image_size=[256], networks={"patch-nano": {"layers": ["layer3"]}})
    with pytest.raises(UserError, match="patch-nano is the network of kinds itself"):
        study.variants()


def test_a_study_has_an_end():
    with pytest.raises(UserError, match="501 combinations are more than 400"):
        settings(epochs=list(range(1, 502))).variants()
