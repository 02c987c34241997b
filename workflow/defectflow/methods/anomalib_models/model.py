"""A model of anomalib as a detector."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import torch

from defectflow.backbones.backbone_names import PICTURE_CELL
from defectflow.core.files import UserError
from defectflow.methods.anomalib_models.construction import create, without_downloads
from defectflow.methods.anomalib_models.settings import AnomalibSettings
from defectflow.methods.anomalib_models.training import seeded, train
from defectflow.methods.picture_detector import PictureDetector, Training

WHERE = "detectors: method anomalib"
AGREE = 1e-4  # relative difference of the score of one picture before a model is stored and afterwards


class AnomalibModel(PictureDetector):
    """Tensors: "" the mean loss of each epoch, float32 (epochs, 1); the state of the model's network."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: AnomalibSettings
    ) -> None:
        super().__init__(tensors, metadata, settings)
        size = (self.grid[0] * PICTURE_CELL, self.grid[1] * PICTURE_CELL)
        with seeded(0):
            self._module = create(settings.model, settings.options, size, trained=False, where=WHERE)
        self._module.model.load_state_dict({key: tensor for key, tensor in tensors.items() if key})
        self._module.to(tensors[""].device).eval()
        self._lock = threading.Lock()  # whether a model may run in two threads at a time, nobody says

    @property
    def network(self) -> torch.nn.Module:
        """See `PictureDetector.network`."""
        network: torch.nn.Module = self._module.model
        return network

    def anomaly(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `PictureDetector.anomaly`; of a model without a map, the score is that of each pixel."""
        with self._lock:
            return said_by(self._module, picture)

    @classmethod
    def train(cls, training: Training) -> dict[str, torch.Tensor]:
        """See `PictureDetector.train`.

        Raises:
            UserError: the model cannot be made, or keeps what it learns where no file of weights holds it.
        """
        settings, size = training.settings, (training.pictures.shape[-2], training.pictures.shape[-1])
        with seeded(training.seed):
            module = create(settings.model, settings.options, size, settings.weights, where=WHERE)
        with without_downloads(f"{WHERE}: model {settings.model}", "failed in its training"):
            losses = train(module, training)
        module.to(training.device)
        state = {key: tensor.detach().clone() for key, tensor in module.model.state_dict().items()}
        tensors = {"": torch.tensor(losses).view(-1, 1).to(training.device), **state}
        picture = training.batch(torch.tensor([0]))[0]
        with torch.inference_mode():
            before = float(said_by(module, picture)[0])
            after = float(cls(tensors, {"grid": training.grid}, settings).anomaly(picture)[0])
        if not math.isclose(before, after, rel_tol=AGREE, abs_tol=1e-6):
            raise UserError(
                f"{WHERE}: {settings.model} does not judge from its stored weights as it did when it was trained "
                f"(score {after:.6g}, before {before:.6g}): choose another model"
            )
        return {key: tensor.cpu() for key, tensor in tensors.items()}


def said_by(module: Any, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw score and map, float32 (h, w), of a picture (3, height, width); see `PictureDetector.anomaly`."""
    found = module.model(module.pre_processor(picture[None]) if module.pre_processor else picture[None])
    score, heat = getattr(found, "pred_score", None), getattr(found, "anomaly_map", None)
    if heat is not None:
        heat = heat.reshape(-1, *heat.shape[-2:])[0]
        return heat.max() if score is None else score.reshape(-1)[0], heat
    if score is None:
        raise UserError(f"{WHERE}: {type(module).__name__} gives neither a score nor a map (choose another model)")
    value: torch.Tensor = score.reshape(-1)[0]
    return value, value.expand(picture.shape[-2:])
