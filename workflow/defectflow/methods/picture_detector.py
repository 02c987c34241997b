"""What the methods share that train a network on pictures: the pictures, trainings that resume, maps to cells.

The features stage hands over the pixels of a picture cell by cell (backbone "picture"), so that folds, isolation,
nested thresholds and maps are those of all other methods; here the cells become pictures again.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from defectflow.backbones.patch_embedding import picture_of
from defectflow.config.code_hash import code_hash
from defectflow.core.files import atomic, sha256_of
from defectflow.methods.detector import Detector, Fit, GoodPatches, pool


class Training(NamedTuple):
    """What a network is trained with.

    Attributes:
        pictures: uint8 RGB (n, 3, height, width).
        grid: (height, width) of the grid of cells.
        settings: of the method.
        seed: of all that is drawn.
        device: where to compute.
        state: file for what an interrupted training goes on from; None: it starts anew.
    """

    pictures: torch.Tensor
    grid: tuple[int, int]
    settings: Any
    seed: int
    device: torch.device
    state: Path | None

    def batch(self, chosen: torch.Tensor) -> torch.Tensor:
        """Pictures with these indices, float32 (b, 3, height, width) in [0, 1], on the device."""
        return self.pictures[chosen].to(self.device).float() / 255


class PictureDetector(Detector):
    """A network trained on pictures of good photographs; its tensors are its weights, "" is (rows, columns).

    Attributes:
        grid: (height, width) of the grid of cells.
    """

    forks: ClassVar[bool] = False  # each training uses all cores, and shows its progress

    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: Any) -> None:
        height, width = metadata["grid"]
        self.grid, self._settings = (int(height), int(width)), settings

    @abstractmethod
    def anomaly(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The method's own image score, and how anomalous each pixel is.

        Args:
            picture: float32 RGB (3, height, width) in [0, 1].

        Returns:
            The score, float32 of one number, and float32 (height, width) or of another size with the same field of
            view, both the higher the more anomalous.
        """

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The trained network."""

    def reconstruction(self, picture: torch.Tensor) -> torch.Tensor:
        """What the network draws of a picture, of the same shape, in [0, 1]; for methods that draw.

        Raises:
            NotImplementedError: this one does not.
        """
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def train(cls, training: Training) -> dict[str, torch.Tensor]:
        """Train a network; see `detector.Fit` for what is returned."""

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; the distance of a patch is the mean of the map in its cell."""
        with torch.inference_mode():
            own, heat = self.anomaly(picture_of(patches, position, self.grid))
            distances = to_cells(heat[None], self.grid)[0, position]
        pooled = self._settings.score in ("max", "top_k_mean", "percentile")
        return pool(distances, self._settings) if pooled else float(own), distances

    @classmethod
    def fit(
        cls,
        good: GoodPatches,
        settings: Any,
        seed: int = 0,
        device: str | torch.device = "cpu",
        keep: Path | None = None,
    ) -> Fit:
        """Put the pictures together; each bank is a training of its own.

        Args:
            keep: folder for finished banks and half-done trainings, which a fit that was interrupted goes on from.
        """
        pictures = torch.stack([_picture(good, number) for number in range(len(good.images))])

        def learn(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            chosen = pictures[kept]
            training = Training(chosen, good.grid, settings, seed, torch.device(device), None)
            if keep is None:
                return cls.train(training)
            name = keep / _key(cls, chosen, settings, seed)
            done, state = name.with_suffix(".safetensors"), name.with_suffix(".state")
            if not done.is_file():
                keep.mkdir(parents=True, exist_ok=True)
                tensors = cls.train(training._replace(state=state))
                with atomic(done) as temporary:
                    save_file({f"/{key}": tensor.contiguous() for key, tensor in tensors.items()}, temporary)
                state.unlink(missing_ok=True)
            return {key[1:]: tensor for key, tensor in load_file(done).items()}

        return learn

    @classmethod
    def size(cls, tensors: Mapping[str, Any]) -> int:
        """Numbers in the network."""
        return sum(int(tensor.size) for tensor in tensors.values())


class PictureGraph(nn.Module):
    """A detector as a graph: from uint8 RGB (1, height, width, 3) to float32 (1, cells + 1, 1).

    These are the distance of each cell of the grid, see `PictureDetector.judge`, and last the method's own image score.
    """

    def __init__(self, detector: PictureDetector) -> None:
        super().__init__()
        self.network, self._detector = detector.network, detector

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """See above."""
        score, heat = self._detector.anomaly(picture[0].permute(2, 0, 1).float() / 255)
        return torch.cat([to_cells(heat[None], self._detector.grid)[0], score.float().view(1)])[None, :, None]


def to_cells(heat: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean of maps (n, height, width) in each cell of the grid, float32 (n, cells)."""
    return nn.functional.adaptive_avg_pool2d(heat.float()[:, None], grid).flatten(1)


def _picture(good: GoodPatches, number: int) -> torch.Tensor:
    own = torch.arange(len(good.images)) == number
    rows = good.rows(own)
    return (picture_of(good.patches[rows], good.position[rows], good.grid) * 255).round().to(torch.uint8)


def _key(cls: type[PictureDetector], pictures: torch.Tensor, settings: Any, seed: int) -> str:
    """Hash of all that a training depends on."""
    code = code_hash(cls.__module__.partition(".")[2])
    file = getattr(settings, "weights", None)  # anomalib's models alone read one in this stage
    weights = sha256_of(file) if file else ""
    asked = [vars(settings), weights, seed, code, *pictures.shape]
    what = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    what.update(pictures.numpy().data)
    return what.hexdigest()[:32]
