"""Training and test cases for SAM: photographs with true masks and the prior's guess, augmentation, cached features.

Imports torch; import this module inside the function that needs it.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from defectflow.annotated import Annotated
from defectflow.images import read_rgb
from defectflow.part_prior import Prior
from defectflow.sam import to_input
from defectflow.tables import PAIRS, read_table

GRID = 256  # side of true masks and prior masks in training, the mask decoder's own at 1024 px
CROP_SHARE = 0.01  # of a background crop that may show the part


@dataclass(frozen=True)
class Case:
    """One photograph as the network sees it.

    Attributes:
        image: uint8 (size, size, 3).
        truth: float32 (GRID, GRID) true mask, zeros for a negative.
        soft: float32 (GRID, GRID) the prior's guess, from other photographs.
        registered: whether the prior found the part.
        present: False for a photograph without the part.
    """

    image: np.ndarray
    truth: np.ndarray
    soft: np.ndarray
    registered: bool
    present: bool


def grid(mask: np.ndarray) -> np.ndarray:
    """A mask over the whole picture, squashed to float32 (GRID, GRID)."""
    return cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)


def make_case(item: Annotated, prior: Prior, leave_out: list[int], size: int) -> Case:
    """The case of an annotated photograph, with the guess of the prior without ``leave_out``."""
    image = item.image()
    match = prior.register(image, leave_out)
    registered = match.score >= prior.info["score_threshold"]
    soft = prior.template(match, image.shape[:2])[0] if registered else prior.constant(image.shape[:2], leave_out)
    return Case(to_input(image, size), grid(item.mask()), grid(soft), registered, True)


def sources(prior: Prior, train: list[Annotated], image_id: str) -> list[int]:
    """Annotated photographs to leave out for ``image_id``: all that are not in training, and its own group.

    Where nothing would remain, its own group or even itself is admitted.
    """
    names = {a.image_id for a in train}
    others = {i for i, name in enumerate(prior.image_ids) if name not in names}
    itself = {i for i, name in enumerate(prior.image_ids) if name == image_id}
    for out in (others | set(prior.leave_out(image_id)), others | itself, others):
        if len(out) < len(prior.image_ids) and _has_template(prior, out):
            return sorted(out)
    return []


def _has_template(prior: Prior, leave_out: set[int]) -> bool:
    return any(int(i) not in leave_out for i in prior.chosen)


def background_crop(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random window of ``image`` that does not show the part, or None where there is no room for one."""
    height, width = mask.shape
    integral = cv2.integral(mask.astype(np.uint8))
    for _ in range(60):
        side = int(rng.uniform(0.2, 0.7) * min(height, width))
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        inside = integral[y + side, x + side] - integral[y, x + side] - integral[y + side, x] + integral[y, x]
        if inside <= CROP_SHARE * side * side:
            return image[y : y + side, x : x + side]
    return None


def negatives(
    train: list[Annotated], cases: list[Case], prior: Prior, table: str, size: int, seed: int
) -> tuple[list[Case], list[str]]:
    """Cases without the part: background crops of training photographs, and photographs that show no part.

    The latter are those that the COCO file lists without an annotation and in which registration finds nothing
    either: the missing annotation alone could be a missing label. Returns the cases and the names of those.
    """
    rng = np.random.default_rng([seed, 1])
    guesses = [c.soft for c in cases]
    found, names = [], []
    listed = read_table(table, PAIRS).sort_values("image_id")
    for row in listed[listed["n_annotations"] == 0].itertuples():
        image = read_rgb(row.path)
        if prior.info["registers"] and prior.register(image).score < prior.info["score_threshold"]:
            found.append(image)
            names.append(row.image_id)
    for item in train:
        crop = background_crop(item.image(), item.mask(), rng)
        if crop is not None:
            found.append(crop)
    empty = np.zeros((GRID, GRID), np.float32)
    cases = [Case(to_input(f, size), empty, guesses[rng.integers(len(guesses))], True, False) for f in found]
    return cases, names


def augmented(case: Case, rng: np.random.Generator, turn: float = 5.0) -> Case:
    """``case`` under another exposure and a little moved: gamma, gain, shift 5 %, scale 8 %, up to ``turn`` degrees."""
    angle = np.radians(rng.uniform(-turn, turn))
    scale = np.exp(rng.uniform(-0.08, 0.08))
    shift = rng.uniform(-0.05, 0.05, 2)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]])

    def move(picture: np.ndarray, border: int) -> np.ndarray:
        side = picture.shape[0]
        centre = np.array([(side - 1) / 2] * 2)
        affine = np.hstack([linear, (centre - linear @ centre + shift * side)[:, None]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, affine, (side, side), flags=flags, borderMode=border)

    gamma, gain = np.exp(rng.uniform(-0.5, 0.5)), np.exp(rng.uniform(-0.9, 0.5))
    curve = (np.clip(gain * (np.arange(256) / 255) ** gamma, 0, 1) * 255).round().astype(np.uint8)
    return replace(
        case,
        image=move(curve[case.image], cv2.BORDER_REFLECT_101),
        truth=move(case.truth, cv2.BORDER_CONSTANT),
        soft=move(case.soft, cv2.BORDER_CONSTANT),
    )


class FeatureCache:
    """Encoder outputs of many cases in float16 files on disk, so that memory stays bounded."""

    def __init__(self, folder: Path, count: int, compute: Callable[[np.ndarray], list[Tensor]]):
        """``compute`` takes uint8 (1, size, size, 3) and returns feature maps of batch size 1."""
        self.folder, self.count, self.compute = folder, count, compute
        self.maps: list[np.memmap] = []

    def put(self, index: int, image: np.ndarray) -> None:
        """Encode ``image`` and keep it as entry ``index``."""
        features = self.compute(image[None])
        if not self.maps:
            self.maps = [
                np.memmap(self.folder / f"{i}.f16", np.float16, "w+", shape=(self.count, *f.shape[1:]))
                for i, f in enumerate(features)
            ]
        for target, value in zip(self.maps, features, strict=True):
            target[index] = value[0].float().cpu().numpy()

    def get(self, indices: list[int], device: torch.device) -> list[Tensor]:
        """Feature maps of some entries, float32 (batch, ...)."""
        return [torch.from_numpy(m[indices].astype(np.float32)).to(device) for m in self.maps]


@contextmanager
def cached(
    cases: list[Case], compute: Callable[[np.ndarray], list[Tensor]], folder: Path, what: str
) -> Iterator[FeatureCache]:
    """A filled FeatureCache of ``cases`` in a temporary folder beside the output."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".features-") as name:
        cache = FeatureCache(Path(name), len(cases), compute)
        for index, case in enumerate(tqdm(cases, desc=f"segment: encode {what}", unit="image")):
            cache.put(index, case.image)
        yield cache
