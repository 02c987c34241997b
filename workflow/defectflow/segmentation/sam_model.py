"""SAM 2.1 through the sam2 package: building models, encoding photographs, prompts from the prior, decoding masks.

Imports torch; import this module inside the function that needs it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sam2
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from defectflow.core.device import autocast, pick_device
from defectflow.core.files import UserError, read_json, sha256_of
from defectflow.parts.part_model import Guess, Prior
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import MEAN, STD, to_square

CONFIGS = {
    "nano": Path(__file__).parent / "configs" / "sam2.1_nano.yaml",
    **{
        f"sam2.1_hiera_{v}": Path(sam2.__path__[0]) / "configs" / "sam2.1" / f"sam2.1_hiera_{v}.yaml"
        for v in ("t", "s", "b+", "l")
    },
}
PACKAGED = {"nano": Path(__file__).parent / "weights" / "sam2.1-nano.safetensors"}  # our own, from pretrain_sam
LOGIT = 6.0  # of a certain pixel in the mask prompt
BOX_MARGIN = 0.02
NOT_A_POINT, NEGATIVE, POSITIVE, BOX_CORNERS = -1, 0, 1, (2, 3)  # labels of SAM's prompt encoder


def config_path(name: str) -> Path:
    """YAML file of a model configuration: a key of CONFIGS, or the path of a YAML file of the same form.

    Raises:
        UserError: there is no such configuration.
    """
    if name in CONFIGS:
        return CONFIGS[name]
    if Path(name).suffix == ".yaml" and Path(name).is_file():
        return Path(name)
    raise UserError(f"model {name!r}: unknown SAM configuration (known: {', '.join(CONFIGS)}, or a YAML file)")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """State dict of a local file: safetensors, or a torch file of the official form {"model": state_dict}.

    Nothing in the file is executed (``weights_only=True``). Our own weights are compared with their checksum.

    Raises:
        UserError: the file is missing or not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if path in PACKAGED.values() and sha256_of(path) != read_json(path.with_suffix(".json"))["sha256"]:
        raise UserError(f"{path}: its sha256 is not that of its .json: the file is damaged (install defectflow again)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from None
    except Exception as error:  # UnpicklingError and whatever a damaged pickle raises
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__})") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f'{path}: not a SAM 2.1 checkpoint (expected {{"model": state_dict}})')
    state: dict[str, Any] = content["model"]
    return state


def load_weights(model: nn.Module, name: str, path: str | Path) -> None:
    """Load a checkpoint file into ``model``, all keys and shapes checked.

    Raises:
        UserError: the checkpoint does not belong to configuration ``name``.
    """
    state, own = read_checkpoint(path), model.state_dict()
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = [k for k in own if k in state and state[k].shape != own[k].shape]
    if missing or extra or shapes:
        counts = f"{len(missing)} weights missing, {len(extra)} unexpected, {len(shapes)} of another shape"
        first = (missing + extra + shapes)[0]
        raise UserError(
            f"{path}: does not fit {name} ({counts}, first: {first}); is it a checkpoint of another variant?"
        )
    model.load_state_dict(state)


def build(name: str, checkpoint: str | Path | None = None, seed: int = 0) -> nn.Module:
    """A SAM 2.1 model on the CPU in evaluation mode (on images it has no batch norm and no active dropout).

    Args:
        name: a key of CONFIGS.
        checkpoint: local file; None for random weights from ``seed``.
    """
    torch.manual_seed(seed)
    # As build_sam2, without its "dynamic multimask", which at evaluation may return another mask token than trained.
    model = instantiate(OmegaConf.load(config_path(name)).model, _recursive_=True)
    if checkpoint is not None:
        load_weights(model, name, checkpoint)
    return model.eval()


def verify(path: str | Path, name: str) -> None:
    """Reload ``path`` through the package's own ``build_sam2``; raises whatever that raises."""
    from sam2.build_sam import build_sam2

    # Hydra accepts an absolute path only after two more slashes; the package does not read safetensors.
    config = "//" + str(config_path(name).resolve())
    tensors = Path(path).suffix == ".safetensors"
    model = build_sam2(config, None if tensors else str(path), device="cpu", apply_postprocessing=False)
    if tensors:
        model.load_state_dict(read_checkpoint(path))


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (batch, size, size, 3) to normalised float32 (batch, 3, size, size)."""
    scaled = (images.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy()).to(device)


def neck_features(model: nn.Module, trunk_maps: list[Tensor]) -> list[Tensor]:
    """Input feature maps of the mask decoder, finest first, from the trunk's maps: strides 4, 8 and 16.

    As ``SAM2Base.forward_image`` and ``SAM2ImagePredictor.set_image``, but differentiable, for any image size, and
    with ``no_mem_embed`` added, with which the weights were trained on images.
    """
    maps, _ = model.image_encoder.neck(trunk_maps)
    maps = maps[: -model.image_encoder.scalp] if model.image_encoder.scalp else maps
    decoder = model.sam_mask_decoder
    embedding = maps[-1] + model.no_mem_embed.reshape(1, -1, 1, 1)
    return [decoder.conv_s0(maps[0]), decoder.conv_s1(maps[1]), embedding]


def encode(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Decoder features of normalised images (batch, 3, size, size); see :func:`neck_features`."""
    return neck_features(model, model.image_encoder.trunk(images))


@dataclass
class Prompt:
    """A prompt in pixels of the model's input square.

    Attributes:
        points: float32 (4, 2) as (x, y): box corners, a positive and a negative point.
        labels: int (4,), SAM's labels; NOT_A_POINT for a point that does not exist.
        mask: float32 (size/4, size/4) logits, or None.
    """

    points: np.ndarray
    labels: np.ndarray
    mask: np.ndarray | None


def _deepest(region: np.ndarray, rng: np.random.Generator | None) -> tuple[int, int] | None:
    """(x, y) of the pixel deepest inside ``region``, or with ``rng`` a random one at least half as deep."""
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if not depth.any():
        return None
    if rng is None:
        y, x = np.unravel_index(depth.argmax(), depth.shape)
    else:
        ys, xs = np.nonzero(depth >= 0.5 * depth.max())
        pick = rng.integers(len(ys))
        y, x = ys[pick], xs[pick]
    return int(x), int(y)


def make_prompt(soft: np.ndarray, size: int, rng: np.random.Generator | None = None, registered: bool = True) -> Prompt:
    """Prompt from a soft mask: box, positive and negative point and mask logits; jittered if ``rng`` is given.

    Args:
        soft: float32 in [0, 1] over the whole picture, of any shape.
        size: side of the model's input in pixels.
        rng: for training; jitters box, points and mask.
        registered: False if the part was not found: only a box over all places where ``soft`` allows it.
    """
    side = size // 4
    soft = cv2.resize(soft.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    if rng is not None:
        dx, dy = rng.normal(0, 0.01 * side, 2)
        scale = np.exp(rng.normal(0, 0.02))
        centre = (1 - scale) * (side - 1) / 2
        soft = cv2.warpAffine(
            soft, np.array([[scale, 0, centre + dx], [0, scale, centre + dy]], np.float32), (side, side)
        )
    inside = soft >= (0.5 if registered else 0.02)
    if not inside.any():
        inside = np.ones_like(inside)
    ys, xs = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float32)
    extent = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float32)
    box += np.array([-1, -1, 1, 1], np.float32) * extent * (BOX_MARGIN if registered else 0.05)
    if rng is not None:
        box += rng.normal(0, 0.015, 4).astype(np.float32) * extent
    points = np.zeros((4, 2), np.float32)
    points[:2] = box.clip(0, side).reshape(2, 2)
    labels = np.array([*BOX_CORNERS, NOT_A_POINT, NOT_A_POINT])
    if not registered:
        return Prompt(points * (size / side), labels, None)
    boxed = np.zeros_like(inside)
    boxed[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = True
    for row, label, region in ((2, POSITIVE, soft >= 0.9), (3, NEGATIVE, boxed & (soft < 0.1))):
        found = _deepest(region, rng)
        if found is not None:
            points[row], labels[row] = np.add(found, 0.5), label
    return Prompt(points * (size / side), labels, ((2 * soft - 1) * LOGIT).astype(np.float32))


def propose(model: nn.Module, features: list[Tensor], prompts: list[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
    """All four masks of SAM's decoder: one for an unambiguous prompt, then three for an ambiguous one.

    Returns:
        Mask logits (batch, 4, size/4, size/4), predicted IoU (batch, 4) and object score logits (batch,).
    """
    device = features[-1].device
    encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    points = torch.from_numpy(np.stack([p.points for p in prompts])).to(device)
    labels = torch.from_numpy(np.stack([p.labels for p in prompts])).to(device)
    given = torch.tensor([p.mask is not None for p in prompts], device=device)
    empty = np.zeros(encoder.mask_input_size, np.float32)
    logits = torch.from_numpy(np.stack([empty if p.mask is None else p.mask for p in prompts]))[:, None].to(device)
    sparse, dense = encoder(points=(points, labels), boxes=None, masks=logits)
    none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = torch.where(given[:, None, None, None], dense, none.to(dense.dtype))
    masks, ious, _, scores = decoder.predict_masks(
        image_embeddings=features[-1],
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=features[:-1],
    )
    return masks.float(), ious.float(), scores[:, 0].float()


def decode(model: nn.Module, features: list[Tensor], prompts: list[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
    """Mask logits (batch, size/4, size/4), predicted IoU (batch,) and object score logits (batch,)."""
    masks, ious, scores = propose(model, features, prompts)
    return masks[:, 0], ious[:, 0], scores


def with_prior(logits: Tensor, guess: np.ndarray, weight: float) -> Tensor:
    """SAM's mask logits (h, w) plus ``weight`` times those of the prior's guess, float32 in [0, 1] of any shape.

    If registration or appearance finds the part exactly, SAM need not find its outline again from coarse features; the
    sum of logits corresponds to the product of both odds (G. Hinton, Training products of experts, 2002).
    """
    if not weight:
        return logits
    soft = cv2.resize(guess.astype(np.float32), logits.shape[::-1], interpolation=cv2.INTER_AREA)
    soft = soft.clip(1 / (1 + np.exp(LOGIT)), 1 / (1 + np.exp(-LOGIT)))
    return logits + weight * torch.from_numpy(np.log(soft / (1 - soft))).to(logits)


def full_size(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Mask logits (h, w) of one picture as bool mask of ``size`` (height, width)."""
    inside: np.ndarray = (
        (F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0] > 0).cpu().numpy()
    )
    return inside


@dataclass
class Found:
    """SAM's result for one photograph; see the MASKS table."""

    mask: np.ndarray
    guess: Guess
    prior_iou: float
    predicted_iou: float
    object_score: float


class Predictor:
    """A fine-tuned model with the prior that prompts it."""

    def __init__(self, config: str, model: str | Path, prior: Prior, device: str, prior_weight: float = 0.0):
        """``prior_weight``: see :func:`with_prior`."""
        self.device, self.prior_weight = pick_device(device), prior_weight
        self.model = build(config, model).to(self.device)
        self.prior = prior

    @torch.inference_mode()
    def predict(self, image: np.ndarray, leave_out: list[int] | None) -> Found:
        """Mask of the part in an RGB uint8 photograph; ``leave_out`` as in :meth:`Prior.register`."""
        size = self.model.image_size
        guess = self.prior.guess(image, leave_out)
        prompt = make_prompt(guess.soft, size, registered=guess.found)
        with autocast(self.device):
            features = encode(self.model, to_tensor(to_square(image, size)[None], self.device))
            logits, predicted, score = decode(self.model, features, [prompt])
        weight = self.prior_weight if guess.found else 0.0
        mask = self.prior.clean(full_size(with_prior(logits[0], guess.soft, weight), image.shape[:2]))
        guessed = self.prior.clean(guess.soft >= 0.5)
        return Found(mask, guess, iou(mask, guessed), float(predicted[0]), float(score[0]))
