"""Find the part by its patches: a logistic regression on patch-nano's patches, and GrabCut for the outline.

Learned by `finding` from a set without outlines if its photographs cannot be registered. Photographs are resized to a
square of SIDE pixels with mirrored borders, since zero padding would mark the border.

Imports torch where the network runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.special import expit

from defectflow.core.files import UserError, sha256_of
from defectflow.parts.outlining import grown, outline
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square

SIDE, RIM, CELL = 512, 32, 8  # pixels: of the square, of the mirrored border, of a patch
GRID = SIDE // CELL
CHANNELS = 128 + 256  # of layer2 and layer3
DIMS = 48  # principal components kept
SAMPLE = 20000  # patches for fitting the components
PLACE = 1.5  # weight of the position in the picture relative to the appearance of a patch


def embedder() -> Any:
    """patch-nano's layer2 and layer3 as patches, see `backbones.patch_embedding.PatchEmbedder`."""
    from defectflow.backbones.patch_embedding import PatchEmbedder

    return PatchEmbedder("patch-nano", ("layer2", "layer3"))


def patches(square: np.ndarray, embed: Any) -> np.ndarray:
    """Patches of one uint8 RGB (SIDE, SIDE, 3) picture: float16 (GRID, GRID, CHANNELS)."""
    grown = cv2.copyMakeBorder(square, RIM, RIM, RIM, RIM, cv2.BORDER_REFLECT_101)
    rim = RIM // CELL
    inner: np.ndarray = embed(grown[None])[0, rim:-rim, rim:-rim].numpy().astype(np.float16)
    return inner


@dataclass(frozen=True)
class Basis:
    """Principal components of a set's patches, with equal scale of both layers.

    Attributes:
        mean: float32 (CHANNELS,), of the scaled patches.
        weights: float32 (CHANNELS, dims), scale and components in one.
    """

    mean: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: Sequence[np.ndarray], rng: np.random.Generator, dims: int = DIMS) -> "Basis":
        """``dims`` components of patches (GRID, GRID, CHANNELS) of each photograph, about SAMPLE of them in all."""
        each = max(1, min(GRID * GRID, SAMPLE // len(features)))
        flat = (f.reshape(-1, CHANNELS) for f in features)
        x = np.concatenate([f[rng.permutation(len(f))[:each]] for f in flat]).astype(np.float32)
        scale = np.ones(CHANNELS, np.float32)
        for layer in (slice(0, 128), slice(128, None)):
            scale[layer] = 1 / np.sqrt((x[:, layer] ** 2).sum(1).mean() + 1e-12)
        mean = x.mean(0)
        centred = (x - mean) * scale
        components = np.linalg.eigh(centred.T @ centred / len(x))[1][:, ::-1][:, :dims]
        # The library leaves signs open; they are fixed so that runs are repeatable with another one.
        components *= np.sign(components[np.abs(components).argmax(0), np.arange(dims)])
        return cls(mean, (scale[:, None] * components).astype(np.float32))

    def __call__(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Patches to float32 (n, GRID, GRID, dims)."""
        return np.stack([(f.astype(np.float32) - self.mean) @ self.weights for f in features])


@dataclass(frozen=True)
class PatchClassifier:
    """Logistic regression on patches.

    Attributes:
        unit: float32 (DIMS,), scale of the patches.
        weights: float32 (DIMS + 6,): of the patch, of x, y, x^2, y^2, xy in [-1, 1], and the constant.
        place: see PLACE.
    """

    unit: np.ndarray
    weights: np.ndarray
    place: float

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Patches (n, h, w, DIMS) to probabilities of the part, float32 (n, h, w)."""
        what = (z / self.unit) @ self.weights[: z.shape[-1]]
        where = places(*z.shape[1:3]) * self.place @ self.weights[z.shape[-1] : -1]
        probability: np.ndarray = expit(what + where + self.weights[-1]).astype(np.float32)
        return probability


def places(height: int, width: int) -> np.ndarray:
    """x, y, x^2, y^2, xy of each patch, in [-1, 1]: float32 (height, width, 5)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([x, y, x * x, y * y, x * y], -1)


class PatchFinder:
    """Finds the part in a photograph, like `appearance.Appearance`, with what was learned without outlines."""

    def __init__(self, basis: Basis, placed: PatchClassifier, anywhere: PatchClassifier) -> None:
        """``placed`` also uses the position in the picture, ``anywhere`` only the patches."""
        self.basis, self.placed, self.anywhere = basis, placed, anywhere
        self._embed: Any = None

    def tensors(self) -> dict[str, np.ndarray]:
        """Tensors for `read`."""
        both = {"placed": self.placed, "anywhere": self.anywhere}
        told = {
            f"{name}.{key}": np.atleast_1d(np.float32(value))
            for name, c in both.items()
            for key, value in vars(c).items()
        }
        return {"mean": self.basis.mean, "components": self.basis.weights} | told

    def opened(self, backbone: str) -> "PatchFinder":
        """Itself, with the network loaded; ``backbone``: sha256 of the weights it was learned with.

        Raises:
            UserError: they are not those of this version.
        """
        from defectflow.backbones.patch_nano import PATCH_NANO_WEIGHTS

        if backbone != sha256_of(PATCH_NANO_WEIGHTS):
            raise UserError("the part was learned with another version of patch-nano (run find_part again)")
        self._embed = embedder()
        return self

    @classmethod
    def read(cls, tensors: dict[str, np.ndarray]) -> "PatchFinder":
        """From tensors by name."""
        two = []
        for name in ("placed", "anywhere"):
            unit, weights, place = (tensors[f"{name}.{key}"] for key in ("unit", "weights", "place"))
            two.append(PatchClassifier(unit, weights, float(place[0])))
        return cls(Basis(tensors["mean"], tensors["components"]), *two)

    def __call__(self, square: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, float]:
        """The part in uint8 RGB (SIDE, SIDE, 3) with its `patches`: bool (SIDE, SIDE), and its reliability.

        The reliability is the smaller of two IoUs: between both classifiers, and between the outline and the map it was
        made from.
        """
        z = self.basis([features])
        soft, other = self.placed(z)[0], self.anywhere(z)[0]
        mask, stability = outline(square, grown(soft, square.shape))
        return mask, min(stability, iou(soft >= 0.5, other >= 0.5))

    def locate(self, image: np.ndarray, leave_out: Sequence[int] = ()) -> tuple[np.ndarray, float]:
        """Find the part in an RGB uint8 photograph (height, width, 3); needs `opened`.

        Args:
            image: the photograph.
            leave_out: ignored: a classifier has a few dozen parameters from all photographs together.

        Returns:
            float32 (height, width) in [0, 1], and its reliability in [0, 1].
        """
        square = to_square(image, SIDE)
        mask, agreement = self(square, patches(square, self._embed))
        size = (image.shape[1], image.shape[0])
        return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), agreement
