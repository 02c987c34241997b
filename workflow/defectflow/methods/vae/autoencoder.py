"""The autoencoder as a detector: trained on good pictures, it draws others worse (Baur et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from defectflow.backbones.backbone_names import PICTURE_CELL
from defectflow.methods.picture_detector import PictureDetector, Training, to_cells
from defectflow.methods.vae.network import Autoencoder, error_map, negative_evidence
from defectflow.methods.vae.settings import VaeSettings
from defectflow.training.checkpoints import load_checkpoint, save_checkpoint
from defectflow.training.loop import Loop, warmup_cosine

WARM_UP = 0.05  # of the steps
SAVE_EVERY = 100  # steps


class Vae(PictureDetector):
    """Tensors: "" mean and spread of the error in each cell over the good pictures, float32 (cells, 2); the weights.

    The map is (error - mean) / spread: edges, which no autoencoder draws well, are no anomaly where all good pictures
    have them.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: VaeSettings) -> None:
        super().__init__(tensors, metadata, settings)
        self._mean, self._spread = tensors[""].T
        self._network = network_of(self.grid, settings).to(tensors[""].device).eval()
        self._network.load_state_dict({key: tensor for key, tensor in tensors.items() if key})

    def anomaly(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `PictureDetector.anomaly`; the score is the negative evidence bound; the map has cells."""
        drawn, divergence = self._network(picture[None])
        error = error_map(picture[None], drawn, self._settings.ssim)
        heat = (to_cells(error, self.grid)[0] - self._mean) / self._spread
        return negative_evidence(error, divergence, self._settings.kl), heat.view(self.grid)

    @property
    def network(self) -> Autoencoder:
        """See `PictureDetector.network`."""
        network: Autoencoder = self._network
        return network

    def reconstruction(self, picture: torch.Tensor) -> torch.Tensor:
        """See `PictureDetector.reconstruction`."""
        drawn: torch.Tensor = self._network(picture[None])[0][0]
        return drawn

    @classmethod
    def train(cls, training: Training) -> dict[str, torch.Tensor]:
        """See `PictureDetector.train`."""
        settings, count = training.settings, len(training.pictures)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            network = network_of(training.grid, settings).to(training.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        for group in optimizer.param_groups:
            group["peak"] = settings.learning_rate
        # The file is named by a hash of all that the training depends on.
        saved = load_checkpoint(training.state, {}, str(training.device)) if training.state else None
        if saved:
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
        loop = Loop(
            optimizer,
            lambda progress: warmup_cosine(progress, 1, WARM_UP, last=0.01, first=0.1),
            total_steps=settings.steps,
            steps=saved["steps"] if saved else 0,
            clip=network.parameters(),
            title=f"train on {count} pictures",
        )
        for step in loop:
            # A generator for each step: a training that goes on draws what it would have drawn.
            generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
            chosen = torch.randint(count, (settings.train_batch_size,), generator=generator)
            noise = torch.randn(len(chosen), settings.latent, generator=generator).to(training.device)
            pictures = training.batch(chosen)
            drawn, divergence = network(pictures, noise)
            error = error_map(pictures, drawn, settings.ssim)
            loop.learn(negative_evidence(error, divergence, settings.kl).mean())
            loop.show(loss=f"{loop.loss:.3f}")
            if training.state and loop.steps % SAVE_EVERY == 0 and loop.steps < settings.steps:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "steps": loop.steps}
                save_checkpoint(training.state, {}, state)
        network.eval()
        weights = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
        return {"": usual_errors(network, training).cpu(), **weights}


def network_of(grid: tuple[int, int], settings: VaeSettings) -> Autoencoder:
    """The untrained network for pictures of a grid of cells."""
    height, width = (side * PICTURE_CELL for side in grid)
    return Autoencoder((height, width), settings.latent, settings.width)


@torch.inference_mode()
def usual_errors(network: Autoencoder, training: Training) -> torch.Tensor:
    """Mean and spread of the error in each cell over the pictures, float32 (cells, 2).

    The spread has its own mean over all cells added: of few pictures, and where all are black, it is next to nothing.
    """
    cells = torch.cat(
        [
            to_cells(error_map(pictures, network(pictures)[0], training.settings.ssim), training.grid)
            for pictures in (training.batch(part) for part in torch.arange(len(training.pictures)).split(16))
        ]
    )
    spread = cells.std(dim=0, correction=0)
    return torch.stack([cells.mean(dim=0), spread + spread.mean() + 1e-6], dim=1)
