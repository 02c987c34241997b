"""Train a model of anomalib by its own steps, on pictures in memory: Lightning's trainer without logs and files."""

from __future__ import annotations

import logging
import math
import random
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader, Sampler, TensorDataset
from tqdm import tqdm

from defectflow.core.files import UserError
from defectflow.methods.picture_detector import Training
from defectflow.training.checkpoints import load_checkpoint, save_checkpoint

OWN = ("gradient_clip_val", "max_epochs")
SAVE_AFTER = 10.0  # seconds of training, before the state is written again
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Order(Sampler[int]):
    """An order of n pictures for each epoch, of the seed and the number of the epoch alone: a training may resume."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        yield from torch.randperm(self._count, generator=generator).tolist()

    def __len__(self) -> int:
        return self._count


class Pictures(LightningDataModule):
    """The pictures of good photographs, as a model of anomalib is given them."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training
        self.train_batch_size = self.eval_batch_size = min(training.settings.train_batch_size, len(training.pictures))

    def _collate(self, items: list[tuple[torch.Tensor]]) -> ImageBatch:
        images = torch.stack([picture for (picture,) in items]).float() / 255
        labels = torch.zeros(len(images), dtype=torch.long)
        return ImageBatch(image=images, gt_label=labels, gt_mask=torch.zeros(len(images), *images.shape[-2:]))

    def _loader(self, shuffle: bool) -> DataLoader[Any]:
        # A rest of one picture has no batch statistics.
        rest = len(self._training.pictures) % self.train_batch_size
        return DataLoader(
            TensorDataset(self._training.pictures),
            self.train_batch_size,
            sampler=Order(len(self._training.pictures), self._training.seed) if shuffle else None,
            collate_fn=self._collate,
            drop_last=shuffle and rest == 1,
            generator=torch.Generator(),  # or loaders would draw from what models draw from
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """All pictures, shuffled anew for each epoch."""
        return self._loader(True)

    def val_dataloader(self) -> DataLoader[Any]:
        """The same pictures: there are no others that may be looked at."""
        return self._loader(False)


class Progress(Callback):
    """A bar over the steps of all epochs; it notes the mean loss of each."""

    def __init__(self, title: str) -> None:
        self.losses: list[float] = []
        self._title, self._sum, self._count = title, 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Open the bar."""
        batches = int(trainer.num_training_batches)
        total, done = batches * (trainer.max_epochs or 0), batches * trainer.current_epoch
        self._bar = tqdm(total=total, initial=done, desc=self._title, unit="step")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One step further."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._sum, self._count = self._sum + float(loss), self._count + 1
            self._bar.set_postfix(loss=f"{self._sum / self._count:.4g}", refresh=False)
        self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note the loss; a memory bank is made at the end of its epoch."""
        self.losses.append(self._sum / max(self._count, 1))
        self._sum, self._count = 0.0, 0

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Close the bar."""
        self._bar.close()


class Resume(Callback):
    """Writes the state of a training at the beginning of epochs, and goes on from it.

    What is trained on a processor then is what it would have been without the interruption, unless a model keeps
    something beside its state from one epoch to the next.

    Args:
        path: file of the state, named by a hash of all that the training depends on.
        progress: whose losses belong to the state.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path, self._progress, self._written = path, progress, time.monotonic()
        self._drawn: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Take over the state, if there is one."""
        try:
            state = load_checkpoint(self._path, {}, str(pl_module.device))
        except UserError as error:
            print(f"WARNING: {error}; the training starts anew", file=sys.stderr)
            state = None
        if state is None:
            return
        pl_module.load_state_dict(state["module"])
        for optimizer, own in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        for config, own in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
            config.scheduler.load_state_dict(own)
        loop = trainer.fit_loop
        loop.load_state_dict(state["loops"])
        loop.epoch_progress.current.ready = loop.epoch_progress.current.completed  # it begins its epoch once more
        for one in (loop, loop.epoch_loop, loop.epoch_loop.automatic_optimization, loop.epoch_loop.manual_optimization):
            one._restarting = False
        self._progress.losses, self._drawn = state["losses"], state["drawn"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw on from where the state was written, or write it."""
        if self._drawn:
            random.setstate(self._drawn["python"])
            name, keys, *rest = self._drawn["numpy"]
            np.random.set_state((name, np.array(keys, np.uint32), *rest))
            torch.set_rng_state(self._drawn["torch"].cpu())
            self._drawn = None
        elif trainer.current_epoch and time.monotonic() - self._written >= SAVE_AFTER:
            numpy: Any = np.random.get_state()
            drawn = {
                "python": random.getstate(),
                "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
                "torch": torch.get_rng_state(),
            }
            state = {
                "module": pl_module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
                "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
                "loops": trainer.fit_loop.state_dict(),
                "losses": self._progress.losses,
                "drawn": drawn,
            }
            save_checkpoint(self._path, {}, state)
            self._written = time.monotonic()


def train(module: AnomalibModule, training: Training) -> list[float]:
    """Train a model in place; returns the mean loss of each epoch.

    What is drawn depends on the seed of the training alone.
    """
    pictures, settings = Pictures(training), training.settings
    batches = len(pictures.train_dataloader())
    own = {key: value for key, value in module.trainer_arguments.items() if key in OWN}
    epochs = own.pop("max_epochs", math.ceil(settings.steps / batches))
    progress = Progress(f"train {type(module).__name__} on {len(training.pictures)} pictures")
    resume = [Resume(training.state, progress)] if training.state else []  # first: the bar begins where it goes on
    # EfficientAd alone learns something there: the range of its maps.
    validates = "on_validation_start" in vars(type(module))
    with seeded(training.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="gpu" if training.device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs,
            # Where a model steps its optimizers itself, Lightning counts each of these steps.
            max_steps=epochs * batches if module.automatic_optimization else -1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validates else 0,
            check_val_every_n_epoch=epochs,
            callbacks=[*resume, progress],
            **own,
        )
        trainer.fit(module, datamodule=pictures)
    module.eval()
    return progress.losses


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the seed in Python, NumPy and torch, and go on afterwards as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
