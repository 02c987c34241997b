"""Find the part by its appearance: small networks on patch-nano's features.

For parts in any position and orientation, which template registration does not find. A head is a few dilated
convolutions over frozen features (like linear and convolutional probes of self-supervised features, M. Oquab et al.,
DINOv2, 2023, section 7.4), trained in half a minute on the annotated photographs. Each head is trained without one fold
of the photographs: an annotated photograph is segmented by the heads that were not trained on its group, a new one by
all.

Imports torch; import this module inside the function that needs it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from defectflow.backbones.patch_nano import PATCH_NANO_WEIGHTS, feature_maps
from defectflow.core.files import UserError, sha256_of
from defectflow.core.parallel import in_threads
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import MEAN, STD, Case, augmented, to_square
from defectflow.training.loop import Loop
from defectflow.training.losses import dice_loss

SIDE = 512  # pixels of the square that photographs are resized to; the heads work on a grid of SIDE / 8
CHANNELS = 128 + 256  # of layer2 and layer3
WIDTH, DILATIONS = 32, (1, 2, 4)
FOLDS, FEWEST = 3, 6  # heads; photographs below which none is trained
PICTURES = 240  # photographs and augmented copies, of which each head sees two thirds: 750 MB of features
STEPS, BATCH, RATE, DROPOUT = 300, 8, 3e-3, 0.1
TURN = 180.0  # degrees by which copies are rotated at most, in either direction


class _Residual(nn.Module):
    def __init__(self, dilation: int):
        super().__init__()
        self.convolution = nn.Conv2d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)
        self.norm = nn.GroupNorm(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.norm(self.convolution(x)))


class Head(nn.Module):
    """Feature maps (batch, channels, h, w) to logits of the part (batch, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, CHANNELS, 1, 1))
        self.layers = nn.Sequential(
            nn.Conv2d(CHANNELS, WIDTH, 1),
            nn.GELU(),
            *(_Residual(dilation) for dilation in DILATIONS),
            nn.Conv2d(WIDTH, 1, 1),
        )

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """``keep``: (batch, channels, 1, 1), dropout factors of the features in training."""
        x = (x.float() - self.mean) / self.std
        return self.layers(x if keep is None else x * keep)[:, 0]


class Features:
    """patch-nano's layer2 and layer3 as one map."""

    def __init__(self) -> None:
        self.backbone = feature_maps(("layer2", "layer3"))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Tensor:
        """uint8 RGB (SIDE, SIDE, 3) to float32 (channels, SIDE / 8, SIDE / 8)."""
        scaled = (image.astype(np.float32) / 255 - MEAN) / STD
        maps = self.backbone(torch.from_numpy(scaled.transpose(2, 0, 1)[None].copy()))
        fine, coarse = maps["layer2"], maps["layer3"]
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, coarse], 1)[0]


def backbone_hash() -> str:
    """sha256 of the weights of the heads' features."""
    return sha256_of(PATCH_NANO_WEIGHTS)


def folds_of(groups: Sequence[str]) -> list[int]:
    """Fold of each photograph: whole groups, spread evenly over FOLDS, largest first."""
    sizes = {group: groups.count(group) for group in groups}
    load, fold = [0] * FOLDS, {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], g)):
        fold[group] = load.index(min(load))
        load[fold[group]] += sizes[group]
    return [fold[group] for group in groups]


def _train_head(head: Head, x: Tensor, truth: Tensor, seen: Tensor, seed: int) -> Head:
    """Train on the maps (n, channels, h, w) and shares of the part in each cell (n, h, w) with indices ``seen``."""
    generator = torch.Generator().manual_seed(seed)  # one per head: heads are trained in parallel
    sample = x[seen[:: max(1, len(seen) // 64)]].float()
    head.mean, head.std = sample.mean((0, 2, 3), keepdim=True), sample.std((0, 2, 3), keepdim=True) + 1e-6
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS, pct_start=0.07)
    loop = Loop(optimiser, total_steps=STEPS)
    for _ in loop:
        pick = seen[torch.randint(len(seen), (BATCH,), generator=generator)]
        keep = (torch.rand(BATCH, CHANNELS, 1, 1, generator=generator) >= DROPOUT) / (1 - DROPOUT)
        logits, wanted = head(x[pick], keep), truth[pick]
        loop.learn(F.binary_cross_entropy_with_logits(logits, wanted) + dice_loss(logits, wanted).mean())
        schedule.step()
    head.eval()
    return head


def train_heads(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], groups: Sequence[str], seed: int
) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Train one head for each fold on the photographs of all other folds and their augmented copies.

    Args:
        images: RGB uint8 (SIDE, SIDE, 3), at least FEWEST.
        masks: float32 (SIDE, SIDE), values in [0, 1].
        groups: group of each; at least two different ones.

    Returns:
        The weights by name, and for every head the indices of its training photographs.
    """
    fold = np.array(folds_of(list(groups)))
    used = np.random.default_rng([seed, 4]).permutation(len(images))[:PICTURES]
    owner = np.tile(used, max(1, PICTURES // len(images)))
    extract = Features()

    def case(entry: int) -> tuple[Tensor, np.ndarray]:
        index = owner[entry]
        case = Case(images[index], masks[index], masks[index], registered=False, present=True)
        if entry >= len(used):
            case = augmented(case, np.random.default_rng([seed, 4, entry]), TURN)
        return extract(case.image), to_square(case.truth, SIDE // 8)

    x = torch.empty(len(owner), CHANNELS, SIDE // 8, SIDE // 8, dtype=torch.float16)
    truth = torch.empty(len(owner), SIDE // 8, SIDE // 8)
    extracted = tqdm(in_threads(case, range(len(owner))), total=len(owner), desc="prior: appearance", unit="image")
    for entry, (features, share) in enumerate(extracted):
        x[entry], truth[entry] = features, torch.from_numpy(share)

    torch.manual_seed(seed)
    folds = sorted(set(fold.tolist()))
    heads = {k: Head() for k in folds}

    def train(k: int) -> Head:
        return _train_head(heads[k], x, truth, torch.from_numpy(np.flatnonzero(fold[owner] != k)), seed + k)

    tensors: dict[str, np.ndarray] = {}
    for k, head in zip(folds, tqdm(in_threads(train, folds), total=len(folds), desc="prior: heads"), strict=True):
        tensors |= {f"{k}.{name}": value.numpy() for name, value in head.state_dict().items()}
    return tensors, [np.flatnonzero(fold != k).tolist() for k in folds]


class Appearance:
    """Trained heads that find the part in a photograph."""

    def __init__(self, tensors: dict[str, np.ndarray], trained_on: list[list[int]], backbone: str):
        """``tensors`` and ``trained_on`` as :func:`train_heads` returns them; ``backbone``: :func:`backbone_hash`.

        Raises:
            UserError: the heads were trained on features of other weights than this version's.
        """
        if backbone != backbone_hash():
            raise UserError("the appearance heads were trained for another version of patch-nano (run prior again)")
        self.trained_on = [set(indices) for indices in trained_on]
        self.extract = Features()
        self.heads = []
        for k in sorted({name.split(".")[0] for name in tensors}, key=int):
            state = {n.split(".", 1)[1]: torch.from_numpy(v) for n, v in tensors.items() if n.startswith(f"{k}.")}
            head = Head()
            head.load_state_dict(state)
            self.heads.append(head.eval())

    @torch.inference_mode()
    def locate(self, image: np.ndarray, leave_out: Sequence[int] = ()) -> tuple[np.ndarray, float] | None:
        """Where the part is in an RGB uint8 photograph (height, width, 3).

        Args:
            leave_out: indices of photographs; heads trained on any of them are not used.

        Returns:
            Probability, float32 (height, width) in [0, 1], and the mean IoU of the heads' masks with that of their
            mean; None if every head was trained on one of ``leave_out``.
        """
        heads = [h for h, seen in zip(self.heads, self.trained_on, strict=True) if not seen & set(leave_out)]
        if not heads:
            return None
        features = self.extract(to_square(image, SIDE))[None]
        logits = np.stack([head(features)[0].numpy() for head in heads])
        mean = logits.mean(axis=0)
        agreement = float(np.mean([iou(one > 0, mean > 0) for one in logits])) if (mean > 0).any() else 0.0
        large = cv2.resize(mean, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return 1 / (1 + np.exp(-large)), agreement
