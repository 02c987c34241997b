"""Figure and ground: which pixels belong to the main object of a photograph, without a prompt.

`part-nano`: three small heads on patch-nano's frozen features, trained separately by `pretraining.pretrain_part`. Their
mean is the result, their disagreement the doubt (B. Lakshminarayanan et al., Simple and scalable predictive uncertainty
estimation using deep ensembles, 2017). Each also predicts whether the photograph shows only a surface, without an
object.

Imports torch; import this module inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from defectflow.backbones.backbone_names import PATCH_NANO
from defectflow.backbones.patch_nano import PATCH_NANO_WEIGHTS, ConvNorm, PatchNano, load_weights
from defectflow.core.device import autocast, pick_device
from defectflow.core.files import UserError, read_json, sha256_of
from defectflow.parts.training_cases import MEAN, STD, to_square

WEIGHTS = Path(__file__).parent / "weights" / "part-nano.safetensors"
SIDE = 384  # px of the square that photographs are resized to
GRID = SIDE // 4  # width of the result in cells
HEADS = 3
BATCH = 8  # photographs processed at a time
CHANNELS = (48, 128, 256)  # of patch-nano at strides 4, 8 and 16
NARROW = (24, 48, 64)  # of a head at these strides
WIDE, ATTENTION_HEADS = 96, 4  # of a head at stride 32


class Trunk(nn.Module):
    """patch-nano as input of the heads: maps (batch, CHANNELS, h, w) at strides 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn and then replaced
            network = PatchNano()
        load_weights(network, PATCH_NANO_WEIGHTS, PATCH_NANO)
        self.stem, self.layer2, self.layer3 = network.stem, network.layer2, network.layer3
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.stem(x)
        second = self.layer2(first)
        return [first, second, self.layer3(second)]


class Attention(nn.Module):
    """Attention over all places, since figure depends on its surroundings: (batch, places, WIDE) to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)
        self.qkv, self.out = nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)
        self.mix = nn.Sequential(nn.Linear(WIDE, 2 * WIDE), nn.GELU(), nn.Linear(2 * WIDE, WIDE))

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        split = self.qkv(self.before(x)).reshape(batch, places, 3, ATTENTION_HEADS, WIDE // ATTENTION_HEADS)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, places, WIDE)
        x = x + self.out(seen)
        return x + self.mix(self.between(x))


def coordinates(like: Tensor) -> Tensor:
    """Rows, columns and their squares in [-1, 1] as four maps of the size of ``like``: objects tend to be central."""
    batch, _, h, w = like.shape
    y = torch.linspace(-1, 1, h, dtype=like.dtype, device=like.device)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, dtype=like.dtype, device=like.device)[None].expand(h, w)
    return torch.stack([y, x, y * y, x * x])[None].expand(batch, -1, -1, -1)


class Head(nn.Module):
    """Standardised maps of `Trunk` to logits of the figure (batch, h, w) at stride 4, and of a surface (batch,).

    Args:
        norm: build with batch norms, for training; `patch_nano.fold_norms` removes them.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        fine, middle, coarse = NARROW
        self.squeeze = nn.ModuleList(nn.Conv2d(c, n, 1) for c, n in zip(CHANNELS, NARROW, strict=True))
        self.down = ConvNorm(coarse + 4, WIDE, 2, norm)
        self.attend = nn.ModuleList(Attention() for _ in range(2))
        self.surface = nn.Linear(2 * WIDE, 1)
        self.narrow = nn.ModuleList(nn.Conv2d(c, n, 1) for c, n in ((middle, fine), (coarse, middle), (WIDE, coarse)))
        self.refine = nn.ModuleList(ConvNorm(n, n, norm=norm) for n in NARROW)
        self.out = nn.Conv2d(fine, 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        levels = [squeeze(m) for squeeze, m in zip(self.squeeze, maps, strict=True)]
        x = F.relu(self.down(torch.cat([levels[2], coordinates(levels[2])], 1)))
        batch, _, h, w = x.shape
        places = x.flatten(2).transpose(1, 2)
        for attend in self.attend:
            places = attend(places)
        surface = self.surface(torch.cat([places.mean(1), places.amax(1)], 1))[:, 0]
        x = places.transpose(1, 2).reshape(batch, WIDE, h, w)
        for level in (2, 1, 0):
            x = F.interpolate(self.narrow[level](x), levels[level].shape[-2:], mode="bilinear", align_corners=False)
            x = F.relu(x + levels[level])
            x = x + F.relu(self.refine[level](x))
        return self.out(x)[:, 0], surface


class Heads(nn.Module):
    """All heads, without shared weights, and the statistics of their input maps.

    Args:
        norm: as for `Head`.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        for level, channels in enumerate(CHANNELS):
            self.register_buffer(f"mean{level}", torch.zeros(1, channels, 1, 1))
            self.register_buffer(f"std{level}", torch.ones(1, channels, 1, 1))
        self.heads = nn.ModuleList(Head(norm) for _ in range(HEADS))

    def standardised(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of `Trunk` with about zero mean and unit variance in each channel."""
        return [(m - getattr(self, f"mean{k}")) / getattr(self, f"std{k}") for k, m in enumerate(maps)]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of `Trunk` to logits of the figure (batch, HEADS, h, w) and of a surface (batch, HEADS)."""
        maps = self.standardised(maps)
        figures, surfaces = zip(*(head(maps) for head in self.heads), strict=True)
        return torch.stack(figures, 1), torch.stack(surfaces, 1)


def to_input(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 RGB (batch, side, side, 3) to float32 (batch, 3, side, side), normalised, channels last."""
    mean, std = (torch.from_numpy(values).to(device) for values in (MEAN, STD))
    scaled = (torch.from_numpy(images).to(device).float() / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2)


def read_heads(path: Path = WEIGHTS) -> Heads:
    """The heads of a file written by `pretrain_part`, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, not for these heads, or was trained on features of other weights.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (install defectflow again)")
    if path == WEIGHTS and sha256_of(path) != read_json(path.with_suffix(".json"))["sha256"]:
        raise UserError(f"{path}: its sha256 is not that of its .json: the file is damaged (install defectflow again)")
    try:
        with safe_open(path, "pt") as file:
            backbone = (file.metadata() or {}).get("backbone")
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from None
    heads = Heads()
    own = heads.state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in own.items()}:
        raise UserError(f"{path}: these are not weights of part-nano (give a file written by pretrain_part)")
    if backbone != sha256_of(PATCH_NANO_WEIGHTS):
        raise UserError(f"{path}: was trained on features of another patch-nano (train it again: pretrain_part)")
    heads.load_state_dict(state)
    heads.eval().requires_grad_(False)
    return heads


@dataclass(frozen=True)
class Figure:
    """Result of the heads for one photograph.

    The grid covers the whole photograph, whatever its aspect ratio: cell (i, j) of (h, w) covers rows i / h to
    (i + 1) / h of its height and columns j / w to (j + 1) / w of its width. For a photograph of (height, width),
    ``cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)`` maps it back.

    Attributes:
        probability: float32 (GRID, GRID) in [0, 1], that the cell belongs to the object: the mean of the heads.
        doubt: float32 (GRID, GRID) in [0, 0.5], standard deviation of the heads' probabilities.
        surface: in [0, 1], probability that the photograph shows only a surface, without an object.
    """

    probability: np.ndarray
    doubt: np.ndarray
    surface: float


class FigureGround(nn.Module):
    """The trunk and the heads as one network: normalised pictures in, probabilities of each head out."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.trunk, self.heads = Trunk(), heads.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, device: str = "cpu", path: Path = WEIGHTS) -> FigureGround:
        """The packaged weights, or others of ``path``, on "cpu", "cuda" or "auto".

        Raises:
            UserError: as `read_heads` and `pick_device` do.
        """
        network = cls(read_heads(path))
        network.to(pick_device(device)).eval()
        return network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (batch, 3, SIDE, SIDE) to probabilities (batch, HEADS, GRID, GRID) and those of surfaces."""
        figures, surfaces = self.heads(self.trunk(x))
        return figures.float().sigmoid(), surfaces.float().sigmoid()

    @torch.inference_mode()
    def predict(self, photographs: Sequence[np.ndarray]) -> list[Figure]:
        """Process RGB uint8 photographs (height, width, 3) of any size, each separately; see `Figure`."""
        device = next(self.trunk.parameters()).device
        found = []
        for start in range(0, len(photographs), BATCH):
            squares = np.stack([to_square(one, SIDE) for one in photographs[start : start + BATCH]])
            with autocast(device):
                figures, surfaces = self(to_input(squares, device))
            figures = figures.cpu().numpy()
            told = zip(figures.mean(1), figures.std(1), surfaces.mean(1).tolist(), strict=True)
            found += [Figure(*each) for each in told]
        return found
