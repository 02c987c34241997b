"""SAM 2.1 that outlines damage in windows around regions: fine-tuned for each fold without its photographs.

The prompt of a window is made from the anomaly map: the box of its region, a point inside, one outside, and the map as
mask prompt. Imports torch; import this module inside the function that needs it.
"""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, pick_device
from defectflow.core.files import UserError, atomic
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import GRID, Case, augmented, grid, to_square
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_cases import FeatureCache, cached
from defectflow.segmentation.sam_training import Batch, Plan, train

MAP_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the logits of the map relative to SAM's; chosen on validation windows
STEPS, CHECK_EVERY, BATCH = 100, 25, 4  # optimiser steps, steps between validations, windows per step
COPIES, TURN = 3, 180.0  # varied copies of each window, and by how many degrees they may be turned
# Trained part and learning rate: of our own small network, and of the official checkpoints.
TRAINED = {True: ("decoder_and_neck", 1e-3), False: ("decoder", 1e-4)}


class Tuned(NamedTuple):
    """Trained weights of a fold, and the weight of the map's logits beside SAM's."""

    weights: dict[str, Tensor]
    map_weight: float


class OutlineNetwork:
    """One network whose trained part can be exchanged: what its trunk sees of a window is computed once."""

    def __init__(self, config: str, checkpoint: str | Path | None, device: str, seed: int) -> None:
        """``checkpoint`` None: the packaged weights of ``config``.

        Raises:
            UserError: there are none, or the file is no such checkpoint.
        """
        start = checkpoint or sam_model.PACKAGED.get(config)
        if start is None:
            raise UserError(f"sam_model {config}: needs its checkpoint (--checkpoint FILE)")
        self.device, self.seed = pick_device(device), seed
        self.trainable, self.rate = TRAINED[config == "nano"]
        self.model: nn.Module = sam_model.build(config, start, seed).to(self.device)
        self.start = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.side: int = self.model.image_size

    def case(self, image: np.ndarray, soft: np.ndarray, truth: np.ndarray | None = None) -> Case:
        """A window, uint8 RGB (h, w, 3), with what the map believes, float32 (h, w), and its truth, bool (h, w)."""
        right = np.zeros((GRID, GRID), np.float32) if truth is None else grid(truth)
        return Case(to_square(image, self.side), right, grid(soft), True, True)

    def look(self, image: np.ndarray) -> list[Tensor]:
        """What the part of the network that is not trained computes of uint8 (n, side, side, 3)."""
        with torch.no_grad(), autocast(self.device):
            tensor = sam_model.to_tensor(image, self.device)
            if self.trainable == "decoder":
                return sam_model.encode(self.model, tensor)
            maps: list[Tensor] = self.model.image_encoder.trunk(tensor)
            return maps

    def tune(self, cases: list[Case], fold_of: np.ndarray, folder: Path, keep: Path | None = None) -> list[Tuned]:
        """Fine-tune for each fold on the windows of the others, one of which chooses when to stop and the weight.

        Args:
            cases: windows with their truth.
            fold_of: int (n,), the fold of the photograph of each, from 0 to at least 2.
            folder: for temporary files.
            keep: folder for finished folds and the state of a half-done one, which a run that was interrupted goes on
                from; the result is that of an uninterrupted one. None: it starts anew.
        """
        rng = np.random.default_rng([self.seed, 7])
        pool = [case for one in cases for case in (one, *(augmented(one, rng, TURN) for _ in range(COPIES)))]
        with ExitStack() as stack:
            cache = stack.enter_context(cached(pool, self.look, folder, "refine"))
            own = keep / self._key(cases, fold_of) if keep else None
            return [self._tune_once(pool, fold_of, cache, fold, own) for fold in range(int(fold_of.max()) + 1)]

    def _key(self, cases: list[Case], fold_of: np.ndarray) -> str:
        """Hash of all that the trainings depend on."""
        what = [self.seed, STEPS, CHECK_EVERY, BATCH, COPIES, TURN, self.rate, fold_of.tolist()]
        found = hashlib.sha256(json.dumps([*what, code_hash("refinement.refine"), str(self.device)]).encode())
        arrays = [array for case in cases for array in (case.image, case.soft, case.truth)]
        for array in [*arrays, *(value.float().cpu().numpy() for value in self.start.values())]:
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:32]

    def _tune_once(
        self, pool: list[Case], fold_of: np.ndarray, cache: FeatureCache, fold: int, keep: Path | None
    ) -> Tuned:
        """`_tune`, or what it returned before it was interrupted in another fold."""
        if keep is None:
            return self._tune(pool, fold_of, cache, fold, None)
        keep.mkdir(parents=True, exist_ok=True)
        done = keep / f"{fold}.safetensors"
        if not done.is_file():
            tuned = self._tune(pool, fold_of, cache, fold, keep / f"{fold}.state")
            weights = {name: value.cpu().contiguous() for name, value in tuned.weights.items()}
            with atomic(done) as temporary:
                save_file(weights, temporary, {"map_weight": json.dumps(tuned.map_weight)})
        with safe_open(done, framework="pt", device=str(self.device)) as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Tuned(weights, json.loads(file.metadata()["map_weight"]))

    def _tune(self, pool: list[Case], fold_of: np.ndarray, cache: FeatureCache, fold: int, state: Path | None) -> Tuned:
        count = int(fold_of.max()) + 1
        own, each = np.repeat(fold_of, 1 + COPIES), np.arange(len(pool))
        chosen = own == (fold + 1) % count
        training = np.flatnonzero((own != fold) & ~chosen)
        checked = [int(i) for i in np.flatnonzero(chosen) if each[i] % (1 + COPIES) == 0]
        if not len(training) or not checked:
            raise UserError(f"fold {fold}: too few regions lie on marked defects to learn outlines from")
        self.model.load_state_dict(self.start)

        def batch_at(_: int, rng: np.random.Generator) -> Batch:
            indices = [int(i) for i in rng.choice(training, BATCH)]
            prompts = [sam_model.make_prompt(pool[i].soft, self.side, rng) for i in indices]
            with autocast(self.device):
                features = self._features(cache.get(indices, self.device))
            return Batch(features, prompts, np.stack([pool[i].truth for i in indices]), np.ones(BATCH))

        def logits_of(i: int) -> Tensor:
            return self._decode(cache.get([i], self.device), pool[i].soft)

        def score(weight: float) -> float:
            found = []
            for i in checked:
                mask = sam_model.full_size(sam_model.with_prior(logits_of(i), pool[i].soft, weight), (GRID, GRID))
                found.append(iou(mask, pool[i].truth >= 0.5))
            return float(np.mean(found))

        plan = Plan(self.trainable, STEPS, self.rate, False, self.seed, CHECK_EVERY, save_every=CHECK_EVERY)
        title = f"refine: train fold {fold + 1} of {count}"
        train(self.model, plan, batch_at, lambda: score(0.0), state, resume=True, title=title)
        scores = [score(weight) for weight in MAP_WEIGHTS]
        moved = {n: v.clone() for n, v in self.model.state_dict().items() if not torch.equal(v, self.start[n])}
        return Tuned(moved, MAP_WEIGHTS[int(np.argmax(scores))])

    def outline(self, seen: list[Tensor], soft: np.ndarray, tuned: list[Tuned], size: tuple[int, int]) -> np.ndarray:
        """Outline of the damage in a window, bool of ``size`` (height, width), the mean of several networks' logits.

        Args:
            seen: what `look` returned.
            soft: of the window's `case`.
            tuned: weights to use; none: those it started from, without the map's logits.
        """
        total = None
        for weights, map_weight in tuned or [Tuned({}, 0.0)]:
            self.model.load_state_dict({**self.start, **weights})
            logits = sam_model.with_prior(self._decode(seen, soft), soft, map_weight)
            total = logits if total is None else total + logits
        assert total is not None
        return sam_model.full_size(total, size)

    def _features(self, seen: list[Tensor]) -> list[Tensor]:
        return seen if self.trainable == "decoder" else sam_model.neck_features(self.model, seen)

    def _decode(self, seen: list[Tensor], soft: np.ndarray) -> Tensor:
        """Mask logits (side/4, side/4) of one window."""
        with torch.no_grad(), autocast(self.device):
            prompt = sam_model.make_prompt(soft, self.side)
            logits, _, _ = sam_model.decode(self.model, self._features(seen), [prompt])
        return logits[0]
