"""Training and test cases for SAM: photographs with true masks and the prior's guess, cached features.

Imports torch; import this module inside the function that needs it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from defectflow.core.files import scratch_dir
from defectflow.core.tables import PAIRS, read_table
from defectflow.data.annotated_pairs import Annotated
from defectflow.images.read_write import read_rgb
from defectflow.parts.part_model import Prior
from defectflow.parts.training_cases import GRID, Case, background_crop, grid, to_square


def make_case(item: Annotated, prior: Prior, leave_out: list[int], size: int) -> Case:
    """The training case of an annotated photograph, with the prior's guess made without ``leave_out``."""
    image = item.image()
    guess = prior.guess(image, leave_out)
    return Case(to_square(image, size), grid(item.mask()), grid(guess.soft), guess.found, True)


def sources(prior: Prior, train: list[Annotated], image_id: str) -> list[int]:
    """Annotated photographs to leave out for ``image_id``: all that are not in training, and its own group.

    If nothing would remain, its own group or even itself is used.
    """
    names = {a.image_id for a in train}
    others = {i for i, name in enumerate(prior.image_ids) if name not in names}
    itself = {i for i, name in enumerate(prior.image_ids) if name == image_id}
    for out in (others | set(prior.leave_out(image_id) or ()), others | itself, others):
        if len(out) < len(prior.image_ids) and _has_template(prior, out):
            return sorted(out)
    return []


def _has_template(prior: Prior, leave_out: set[int]) -> bool:
    return any(int(i) not in leave_out for i in prior.chosen)


def negatives(
    train: list[Annotated],
    cases: list[Case],
    prior: Prior,
    table: str,
    size: int,
    seed: int,
    depth: str | None = None,
) -> tuple[list[Case], list[str]]:
    """Cases without the part: background crops of training photographs, and photographs that show no part.

    The latter are listed in the COCO file without an annotation, and registration finds nothing in them either; a
    missing annotation alone could be an omission. Returns the cases and the names of the latter.
    """
    rng = np.random.default_rng([seed, 1])
    guesses = [c.soft for c in cases]
    found, names = [], []
    listed = read_table(table, PAIRS).sort_values("image_id")
    for row in listed[listed["n_annotations"] == 0].itertuples():
        image = read_rgb(row.path, depth)
        if prior.info["registers"] and prior.lost(prior.register(image)):
            found.append(image)
            names.append(row.image_id)
    for item in train:
        crop = background_crop(item.image(), item.mask(), rng)
        if crop is not None:
            found.append(crop)
    empty = np.zeros((GRID, GRID), np.float32)
    cases = [Case(to_square(f, size), empty, guesses[rng.integers(len(guesses))], True, False) for f in found]
    return cases, names


class FeatureCache:
    """Encoder outputs of many cases in float16 files on disk, so that memory stays bounded."""

    def __init__(self, folder: Path, count: int, compute: Callable[[np.ndarray], list[Tensor]]):
        """``compute`` takes uint8 (1, size, size, 3) and returns feature maps of batch size 1."""
        self.folder, self.count, self.compute = folder, count, compute
        self.maps: list[np.memmap] = []

    def put(self, index: int, image: np.ndarray) -> None:
        """Encode ``image`` and store it as entry ``index``."""
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
    """A filled FeatureCache of ``cases`` in a temporary folder next to the output, named by ``what``."""
    with scratch_dir(folder / f".features-{what}.part") as temporary:
        cache = FeatureCache(temporary, len(cases), compute)
        for index, case in enumerate(tqdm(cases, desc=f"segment: encode {what}", unit="image")):
            cache.put(index, case.image)
        yield cache
