"""The lean training loop of SAM 2.1 on photographs: losses, trained parameters, schedule, best weights, resuming.

Imports torch; import this module inside the function that needs it. The loss is that of the official trainer
(sam2/training/loss_fns.py): 20 x focal + dice + L1 of the predicted IoU + cross-entropy of presence.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defectflow.core.device import autocast
from defectflow.segmentation.sam_model import Prompt, decode
from defectflow.training.checkpoints import load_or_set_aside, save_checkpoint
from defectflow.training.loop import Loop, warmup_cosine
from defectflow.training.losses import dice_loss, focal_loss

TRAINABLE = ("decoder", "decoder_and_neck", "all")
DECODER_RATE, SCRATCH_RATE = 1e-4, 1e-3  # default learning rates with and without a checkpoint
NECK_FACTOR, TRUNK_FACTOR = 0.5, 0.1  # relative to the decoder's learning rate, when starting from a checkpoint
WEIGHT_DECAY, CLIP, WARM_UP = 0.01, 1.0, 20


def sam_loss(
    logits: Tensor, predicted: Tensor, score: Tensor, truth: Tensor, present: Tensor, from_scratch: bool = False
) -> Tensor:
    """Loss of one batch.

    Args:
        logits: (batch, h, w) mask logits.
        predicted: (batch,) predicted IoU.
        score: (batch,) object score logits.
        truth: (batch, H, W) in {0, 1}; the logits are resized to it.
        present: (batch,) in {0, 1}; items without the part count only in the presence term.
        from_scratch: plain cross-entropy instead of focal loss, as in MaskFormer (Cheng et al. 2021): from random
            weights focal loss leads to empty masks for any prompt (IoU 0.00 after 230 steps; with cross-entropy 0.6
            after 75).
    """
    if logits.shape[-1] != truth.shape[-1]:
        logits = F.interpolate(logits[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    with torch.no_grad():
        inside, true = logits > 0, truth > 0.5
        actual = (inside & true).sum(dim=(1, 2)) / (inside | true).sum(dim=(1, 2)).clamp(min=1)
    if from_scratch:
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2))
        masks = 5 * entropy + 5 * dice_loss(logits, truth)
    else:
        masks = 20 * focal_loss(logits, truth) + dice_loss(logits, truth)
    masks = masks + (predicted - actual).abs()
    return (masks * present).sum() / present.sum().clamp(min=1) + F.binary_cross_entropy_with_logits(score, present)


def proposals_loss(
    logits: Tensor, predicted: Tensor, score: Tensor, truth: Tensor, present: Tensor, from_scratch: bool = False
) -> Tensor:
    """Loss of the four masks of `propose`: of the first, and of the best of the other three.

    Of the three, only the one with the smallest mask loss learns its mask; all learn to predict their IoU (N. Ravi et
    al., SAM 2, 2024, appendix D). Arguments as for `sam_loss`, with logits (batch, 4, h, w), predicted (batch, 4).
    """
    with torch.no_grad():
        small = F.interpolate(truth[:, None], logits.shape[-2:], mode="area")[:, 0]
        costs = [20 * focal_loss(logits[:, k], small) + dice_loss(logits[:, k], small) for k in (1, 2, 3)]
        best = 1 + torch.stack(costs, 1).argmin(1)
        inside, true = logits > 0, (small > 0.5)[:, None]
        actual = (inside & true).sum(dim=(2, 3)) / (inside | true).sum(dim=(2, 3)).clamp(min=1)
    rows = torch.arange(len(logits), device=logits.device)
    first = sam_loss(logits[:, 0], predicted[:, 0], score, truth, present, from_scratch)
    second = sam_loss(logits[rows, best], predicted[rows, best], score, truth, present, from_scratch)
    quality = ((predicted[:, 1:] - actual[:, 1:]).abs().mean(1) * present).sum() / present.sum().clamp(min=1)
    return 0.5 * (first + second) + 0.5 * quality


def trained_parameters(model: nn.Module, trainable: str) -> dict[str, list[nn.Parameter]]:
    """Parameters to train by part ("decoder", "neck", "trunk"); the others, and always the memory parts, are frozen.

    The decoder's conv_s0 and conv_s1 run before the feature cache and count as neck: training them would make the
    cache outdated.
    """
    groups: dict[str, list[nn.Parameter]] = {"decoder": [], "neck": [], "trunk": []}
    for name, parameter in model.named_parameters():
        if name.startswith("image_encoder.trunk"):
            part = "trunk"
        elif name.startswith(("image_encoder.neck", "sam_mask_decoder.conv_s")) or name == "no_mem_embed":
            part = "neck"
        elif name.startswith(("sam_mask_decoder", "sam_prompt_encoder")):
            part = "decoder"
        else:
            part = ""
        wanted = {"decoder": ("decoder",), "decoder_and_neck": ("decoder", "neck")}.get(trainable, tuple(groups))
        parameter.requires_grad_(part in wanted)
        if part in wanted:
            groups[part].append(parameter)
    return {part: parameters for part, parameters in groups.items() if parameters}


@dataclass(frozen=True)
class Plan:
    """Training settings. ``rate``: learning rate of the decoder; ``from_scratch``: the same rate for all parts."""

    trainable: str
    steps: int
    rate: float
    from_scratch: bool
    seed: int = 0
    evaluate_every: int = 50
    patience: int = 5
    save_every: int = 100
    warm_up: int = WARM_UP


@dataclass
class Batch:
    """Inputs of one step: ``features`` for the decoder, prompts, truth (batch, H, W) and present (batch,)."""

    features: list[Tensor]
    prompts: list[Prompt]
    truth: np.ndarray
    present: np.ndarray


@dataclass
class Progress:
    """Progress of a run, stored in the state file with the weights."""

    step: int = 0
    best_step: int = -1
    best_iou: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the last evaluation


def rate_factor(step: int, plan: Plan) -> float:
    """Learning rate at ``step`` relative to its maximum: linear warm-up, then cosine to a tenth."""
    warm_up = min(plan.warm_up, max(1, plan.steps // 10))
    return warmup_cosine(step, plan.steps, warm_up, last=0.1, ahead=1)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def train(
    model: nn.Module,
    plan: Plan,
    batch_at: Callable[[int, np.random.Generator], Batch],
    validate: Callable[[], float | None],
    state: Path | None = None,
    resume: bool = False,
    fingerprint: dict[str, Any] | None = None,
    title: str = "segment: train",
) -> Progress:
    """Train ``model`` in place and leave the best weights by validation IoU in it.

    Every step uses a generator seeded by (seed, step), so a resumed run equals an uninterrupted one without storing
    generator states.

    Args:
        batch_at: makes the batch of a step from the step's generator.
        validate: held-out IoU of the current model; None if nothing can be held out (then the last weights are kept).
        state: file for the state of the run, written every ``plan.save_every`` steps and removed at the end.
        resume: continue from ``state`` if it exists and ``fingerprint`` is the same.
        fingerprint: settings and data that must match those in the state file.
        title: of the progress bar.
    """
    factors = {"decoder": 1.0, "neck": NECK_FACTOR, "trunk": TRUNK_FACTOR}
    groups: list[dict[str, Any]] = [
        {"params": parameters, "peak": plan.rate * (1.0 if plan.from_scratch else factors[part])}
        for part, parameters in trained_parameters(model, plan.trainable).items()
    ]
    device = next(model.parameters()).device
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, weight_decay=WEIGHT_DECAY)
    progress, fingerprint = Progress(), fingerprint or {}
    if resume and state is not None and (saved := load_or_set_aside(state, fingerprint)):
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        progress = Progress(**saved["progress"])

    def note(step: int, loss: float | None) -> None:
        score = validate()
        progress.curve.append({"step": step, "loss": loss, "val_iou": None if score is None else round(score, 6)})
        if score is None or score > progress.best_iou + 1e-6:
            progress.best_step, progress.best_iou = step, -1.0 if score is None else score
            progress.best = _weights(model)

    if progress.step == 0 and not progress.curve:
        note(0, None)
    loop = Loop(
        optimiser, lambda _: rate_factor(progress.step, plan), total_steps=plan.steps, steps=progress.step,
        clip=[p for g in groups for p in g["params"]], max_norm=CLIP, title=title,
    )  # fmt: skip
    for step in loop:
        batch = batch_at(step, np.random.default_rng([plan.seed, 2, step]))
        with autocast(device):
            logits, predicted, score = decode(model, batch.features, batch.prompts)
        truth = torch.from_numpy((batch.truth >= 0.5).astype(np.float32)).to(device)
        present = torch.from_numpy(batch.present.astype(np.float32)).to(device)
        progress.losses.append(loop.learn(sam_loss(logits, predicted, score, truth, present)))
        progress.step = loop.steps
        loop.show(loss=f"{progress.losses[-1]:.3f}", best=f"{progress.best_iou:.4f}")
        if progress.step % plan.evaluate_every == 0 or progress.step == plan.steps:
            note(progress.step, round(float(np.mean(progress.losses)), 6))
            progress.losses.clear()
            late = sum(entry["step"] > progress.best_step for entry in progress.curve)
            if late >= plan.patience and progress.best_step >= 0:
                break
        if state is not None and progress.step % plan.save_every == 0:
            parts = {"model": _weights(model), "optimiser": optimiser.state_dict(), "progress": vars(progress)}
            save_checkpoint(state, fingerprint, parts)
    if progress.best:
        model.load_state_dict(progress.best)
    if state is not None:
        state.unlink(missing_ok=True)
    return progress
