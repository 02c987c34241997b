"""Engine official: the generated configuration and the environment of its process, without running it."""

import importlib
import importlib.util
import inspect

import pytest
from defectflow.core.files import UserError
from defectflow.segmentation import sam_model, sam_official
from hydra.utils import instantiate
from micro_sam import write_micro
from omegaconf import OmegaConf
from part_set import write_set

# What the sam2 package ships can be imported without the extra only in part.
IMPORTABLE = ("training.dataset.vos_raw_dataset", "training.dataset.vos_sampler", "training.optimizer")


def config(folder, model_yaml=None, **more):
    options = {"pairs": folder / "pairs", "names": ["sa_000001", "sa_000002", "sa_000003"], "folder": folder / "run"}
    options |= {"checkpoint": folder / "base.pt", "trainable": "decoder", "steps": 10, "batch_size": 2, "rate": None}
    return sam_official.make_config(
        model_yaml or sam_model.config_path("sam2.1_hiera_t"), **options | {"seed": 7, "gpus": 0} | more
    )


def resolved(made):
    from training.utils.train_utils import register_omegaconf_resolvers

    if not OmegaConf.has_resolver("times"):
        register_omegaconf_resolvers()
    return OmegaConf.to_container(made, resolve=True)


def test_model_is_that_of_the_variant(tmp_path):
    for name in ("sam2.1_hiera_t", "sam2.1_hiera_l", "nano"):
        made = config(tmp_path, sam_model.config_path(name))
        variant = OmegaConf.load(sam_model.config_path(name)).model
        for key in variant:
            if key not in ("_target_", "image_size"):
                assert made.trainer.model[key] == variant[key], (name, key)
        assert made.trainer.model._target_ == "training.model.sam2.SAM2Train"
        assert resolved(made)["trainer"]["model"]["image_size"] == variant.image_size


def test_everything_resolves_and_paths_are_those_given(tmp_path):
    made = resolved(config(tmp_path))
    trainer = made["trainer"]
    data = trainer["data"]["train"]["datasets"][0]
    assert data["video_dataset"]["img_folder"] == str(tmp_path / "pairs")
    assert data["video_dataset"]["file_list_txt"] == str(tmp_path / "run/train.txt")
    assert data["multiplier"] == 1
    assert trainer["checkpoint"]["save_dir"] == str(tmp_path / "run/checkpoints")
    start = trainer["checkpoint"]["model_weight_initializer"]["state_dict"]
    assert start["checkpoint_path"] == str(tmp_path / "base.pt")
    assert start["ckpt_state_dict_keys"] == ["model"]
    assert trainer["seed_value"] == 7
    assert trainer["max_epochs"] == 7  # 10 steps of 2 on 3 images
    assert trainer["model"]["num_correction_pt_per_frame"] >= 1
    assert "RandomHorizontalFlip" not in str(made["vos"])


def test_cpu_and_cuda(tmp_path):
    cpu, cuda = config(tmp_path), config(tmp_path, gpus=3)
    assert (cpu.trainer.accelerator, cpu.trainer.optim.amp.enabled) == ("cpu", False)
    assert "backend" not in cpu.trainer.distributed
    assert cpu.trainer.distributed.find_unused_parameters is True
    assert (cuda.trainer.accelerator, cuda.trainer.optim.amp.enabled) == ("cuda", True)
    assert cuda.launcher.gpus_per_node == 3
    assert cuda.scratch.train_batch_size == 1  # one image per process


def test_what_is_trained(tmp_path):
    assert config(tmp_path).trainer.model.freeze_image_encoder is True
    assert config(tmp_path, trainable="all").trainer.model.freeze_image_encoder is False
    with pytest.raises(UserError, match="decoder_and_neck"):
        config(tmp_path, trainable="decoder_and_neck")


def test_batch_never_exceeds_the_images(tmp_path):
    assert config(tmp_path, batch_size=64).scratch.train_batch_size == 3


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_every_importable_target_takes_its_arguments(tmp_path):
    checked = set()
    for node in targets(resolved(config(tmp_path))):
        module, name = node["_target_"].rsplit(".", 1)
        if not module.startswith(("sam2.", "torch.")) and module not in IMPORTABLE:
            continue
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        given = {k: v for k, v in node.items() if k not in ("_target_", "_partial_")}
        signature.bind_partial(**given)
        checked.add(node["_target_"])
    assert "training.dataset.vos_raw_dataset.SA1BRawDataset" in checked
    assert "sam2.modeling.backbones.hieradet.Hiera" in checked


def test_dataset_reads_our_pairs(tmp_path):
    write_set(tmp_path / "set", ["train"] * 3, ["a", "b", "c"])
    made = config(tmp_path / "set")
    (tmp_path / "set/run").mkdir()
    (tmp_path / "set/run/train.txt").write_text("sa_000001\nsa_000003\n")
    dataset = instantiate(resolved(made)["trainer"]["data"]["train"]["datasets"][0]["video_dataset"])
    assert len(dataset) == 2
    video, loader = dataset.get_video(1)
    assert video.video_id == 3
    masks = loader.load(0)
    assert [int(masks[key].sum()) > 1000 for key in masks.keys()] == [True]  # noqa: SIM118 (not a dict)


def test_environment_is_scrubbed():
    kept = sam_official.scrubbed({"PATH": "p", "MY_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "0", "PASSWORD": "x"})
    assert kept["PATH"] == "p"
    assert kept["CUDA_VISIBLE_DEVICES"] == "0"
    assert "secret" not in kept.values()
    assert "PASSWORD" not in kept


def test_missing_extra_is_told(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in sam_official.EXTRAS else real(n, *a))
    with pytest.raises(UserError, match=r"fvcore, submitit, tensorboard, tensordict not installed \(pip install"):
        sam_official.check_extras()


def test_micro_configuration_is_taken(tmp_path):
    from pathlib import Path

    made = config(tmp_path, Path(write_micro(tmp_path)))
    assert made.scratch.resolution == 128
