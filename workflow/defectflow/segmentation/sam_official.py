"""Engine "official": the trainer of the sam2 package, in a separate process, with a generated configuration.

The configuration is the packaged MOSE recipe with the model of the chosen variant, reduced to single photographs.
``python -m defectflow.segmentation.sam_official CONFIG.yaml`` is the driver started by this module; do not call it
directly. Needs the extra "official": the trainer imports fvcore, submitit, tensorboard and tensordict.
"""

import argparse
import importlib.util
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError, scratch_dir

EXTRAS = ("fvcore", "submitit", "tensorboard", "tensordict")
# Passed to the child process, and nothing else: the trainer writes its whole environment to its log.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SYSTEMROOT")
KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "OMP_", "MKL_")
BASE_RATE, VISION_RATE = 5e-6, 3e-6  # of the packaged recipe


def check_extras() -> None:
    """Raise a UserError naming the install command when a package of the extra is missing."""
    missing = [name for name in (*EXTRAS, "training") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'engine official: {", ".join(missing)} not installed (pip install -e ".[official]")')


def scrubbed(environment: dict[str, str]) -> dict[str, str]:
    """The variables of ``environment`` that the trainer needs, with this package on PYTHONPATH."""
    kept = {k: v for k, v in environment.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    return kept | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "HYDRA_FULL_ERROR": "1"}


def make_config(
    model_yaml: Path,
    *,
    pairs: Path,
    names: list[str],
    folder: Path,
    checkpoint: Path,
    trainable: str,
    steps: int,
    batch_size: int,
    rate: float | None,
    seed: int,
    gpus: int,
    workers: int = 0,
) -> Any:
    """Configuration (omegaconf) of the official trainer for single photographs.

    Args:
        model_yaml: configuration of the variant.
        pairs: folder of SA-1B pairs; ``names``: stems of the pairs to train on.
        folder: empty folder for the run (an old checkpoint in it would be resumed silently).
        checkpoint: official checkpoint to start from.
        trainable: "decoder" (image encoder frozen) or "all".
        steps: optimiser steps; rounded up to whole epochs.
        rate: learning rate; None: that of the recipe.
        gpus: processes, one per device; 0 for the CPU.

    Raises:
        UserError: ``trainable`` has another value.
    """
    import sam2
    from omegaconf import OmegaConf, open_dict

    if trainable not in ("decoder", "all"):
        raise UserError(
            f"engine official: trainable {trainable!r} is not supported (use decoder or all, or engine lean)"
        )
    recipe = Path(sam2.__path__[0]) / "configs" / "sam2.1_training" / "sam2.1_hiera_b+_MOSE_finetune.yaml"
    config: Any = OmegaConf.load(recipe)
    variant = OmegaConf.load(model_yaml).model
    processes = max(1, gpus)
    # Each process gets its share of the images; a larger batch would leave none.
    batch = max(1, min(batch_size, len(names) // processes))
    epochs = max(1, math.ceil(steps * batch * processes / len(names)))
    listing = folder / "train.txt"
    with open_dict(config):
        scratch, trainer, model = config.scratch, config.trainer, config.trainer.model
        scratch.update({"resolution": variant.image_size, "train_batch_size": batch, "num_train_workers": workers})
        scratch.update({"num_frames": 1, "max_num_objects": 1, "num_epochs": epochs})
        scratch.base_lr = rate or BASE_RATE
        scratch.vision_lr = scratch.base_lr * VISION_RATE / BASE_RATE
        for key, value in variant.items():
            if key not in ("_target_", "image_size"):
                model[key] = value
        model.freeze_image_encoder = trainable == "decoder"
        model.prob_to_use_pt_input_for_train = 1.0  # box or point, never the true mask
        model.prob_to_use_box_input_for_train = 1.0  # a box, as in inference; clicks follow
        model.num_init_cond_frames_for_train = model.num_frames_to_correct_for_train = 1
        config.vos.train_transforms[0].transforms = _transforms()
        trainer.data.train = {
            "_target_": "training.dataset.sam2_datasets.TorchTrainMixedDataset",
            "phases_per_epoch": 1,
            "batch_sizes": [batch],
            "datasets": [
                {
                    "_target_": "training.dataset.vos_dataset.VOSDataset",
                    "transforms": "${vos.train_transforms}",
                    "training": True,
                    "multiplier": 1,
                    "video_dataset": {
                        "_target_": "training.dataset.vos_raw_dataset.SA1BRawDataset",
                        "img_folder": str(pairs),
                        "gt_folder": str(pairs),
                        "file_list_txt": str(listing),
                    },
                    "sampler": {
                        "_target_": "training.dataset.vos_sampler.RandomUniformSampler",
                        "num_frames": 1,
                        "max_num_objects": 1,
                    },
                }
            ],
            "shuffle": True,
            "num_workers": workers,
            "pin_memory": gpus > 0,
            "drop_last": True,
            "collate_fn": {
                "_target_": "training.utils.data_utils.collate_fn",
                "_partial_": True,
                "dict_key": "all",
            },
        }
        trainer.seed_value = seed
        trainer.accelerator = "cuda" if gpus else "cpu"
        trainer.optim.amp.enabled = gpus > 0
        # find_unused_parameters: the memory is not used with one frame. No backend: gloo on the CPU, nccl on CUDA.
        trainer.distributed = {"find_unused_parameters": True}
        trainer.logging.tensorboard_writer.should_log = False
        trainer.checkpoint.model_weight_initializer.state_dict.checkpoint_path = str(checkpoint)
        config.launcher.update({"num_nodes": 1, "gpus_per_node": processes, "experiment_log_dir": str(folder)})
        del config["dataset"]
    return config


def _transforms() -> list[dict[str, Any]]:
    """Exposure and small movements; no mirroring, because parts may be left- or right-handed."""
    module = "training.dataset.transforms."
    return [
        {"_target_": module + "RandomAffine", "degrees": 5, "scale": [0.92, 1.08], "translate": [0.05, 0.05]}
        | {"consistent_transform": True, "image_interpolation": "bilinear"},
        {"_target_": module + "RandomResizeAPI", "sizes": "${scratch.resolution}", "square": True}
        | {"consistent_transform": True},
        {"_target_": module + "ColorJitter", "consistent_transform": True, "brightness": 0.6}
        | {"contrast": 0.3, "saturation": 0.1, "hue": None},
        {"_target_": module + "ToTensorAPI"},
        {"_target_": module + "NormalizeAPI", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ]


def fine_tune(args: argparse.Namespace, names: list[str], model: Any) -> dict[str, Any]:
    """Run the trainer and load the trained weights into ``model``.

    Args:
        args: arguments of the stage segment.
        names: stems of the training pairs.
        model: network to load the weights into (configuration ``args.model_config``).

    Returns:
        Entries for train.json.

    Raises:
        UserError: the extra is missing or the trainer failed.
    """
    import torch
    from omegaconf import OmegaConf

    from defectflow.core.device import pick_device
    from defectflow.segmentation import sam_model

    check_extras()
    gpus = torch.cuda.device_count() if pick_device(args.device).type == "cuda" else 0
    gpus = min(gpus, len(names))
    out = Path(args.out).resolve()
    with scratch_dir(out.parent / ".official.part") as folder:
        config = make_config(
            sam_model.config_path(args.model_config),
            pairs=Path(args.pairs).resolve(),
            names=names,
            folder=folder,
            checkpoint=Path(args.checkpoint).resolve(),
            trainable=args.trainable,
            steps=args.steps,
            batch_size=args.batch_size,
            rate=args.learning_rate,
            seed=args.seed,
            gpus=gpus,
            workers=2 if gpus else 0,
        )
        (folder / "train.txt").write_text("\n".join(names) + "\n")
        OmegaConf.save(config, folder / "config.yaml")
        environment = scrubbed(dict(os.environ)) | {"OMP_NUM_THREADS": str(max(1, args.threads // max(1, gpus)))}
        command = [sys.executable, "-m", "defectflow.segmentation.sam_official", str(folder / "config.yaml")]
        status = subprocess.run(command, env=environment, cwd=folder, stdout=sys.stderr).returncode
        trained = folder / "checkpoints" / "checkpoint.pt"
        if status or not trained.is_file():
            raise UserError(f"engine official: the trainer failed with status {status} (its messages are above)")
        sam_model.load_weights(model, args.model_config, trained)
        return {
            "learning_rate": float(config.scratch.base_lr),
            "epochs": int(config.scratch.num_epochs),
            "best_step": None,
            "curve": [],
        }


def _worker(rank: int, port: int, path: str, processes: int) -> None:
    """One process of the trainer; all patches to the trainer are applied here, in the child."""
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from training.utils import train_utils

    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE=str(processes))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    if not torch.cuda.is_available():
        # The original resets CUDA's memory statistics after every step, which fails without CUDA.
        train_utils.MemMeter.update = lambda self, n=1, reset_peak_usage=True: None
    train_utils.register_omegaconf_resolvers()
    instantiate(OmegaConf.load(path).trainer, _recursive_=False).run()
    torch.distributed.destroy_process_group()


def main(args: argparse.Namespace) -> None:
    """Driver in the child process: one worker per device."""
    from omegaconf import OmegaConf

    processes = int(OmegaConf.load(args.config).launcher.gpus_per_node)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    if processes == 1:
        _worker(0, port, args.config, 1)
        return
    from torch.multiprocessing import start_processes

    start_processes(_worker, (port, args.config, processes), nprocs=processes, start_method="spawn")


if __name__ == "__main__":
    driver = argparse.ArgumentParser(prog="defectflow.segmentation.sam_official", description=__doc__)
    driver.add_argument("config")
    main(driver.parse_args())
