"""Train a model of anomalib by its own steps, on pictures in memory: Lightning's trainer without logs and files."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from defectflow.methods.picture_detector import Training

OWN = ("gradient_clip_val", "max_epochs")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


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
            shuffle=shuffle,
            collate_fn=self._collate,
            drop_last=shuffle and rest == 1,
            generator=torch.Generator().manual_seed(self._training.seed),
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
        self._bar = tqdm(total=trainer.max_steps, desc=self._title, unit="step")

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


def train(module: AnomalibModule, training: Training) -> list[float]:
    """Train a model in place; returns the mean loss of each epoch.

    What is drawn depends on the seed of the training alone.
    """
    pictures, settings = Pictures(training), training.settings
    batches = len(pictures.train_dataloader())
    own = {key: value for key, value in module.trainer_arguments.items() if key in OWN}
    epochs = own.pop("max_epochs", math.ceil(settings.steps / batches))
    progress = Progress(f"train {type(module).__name__} on {len(training.pictures)} pictures")
    # EfficientAd alone learns something there: the range of its maps.
    validates = "on_validation_start" in vars(type(module))
    with seeded(training.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="gpu" if training.device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs,
            max_steps=epochs * batches,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validates else 0,
            check_val_every_n_epoch=epochs,
            callbacks=[progress],
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
