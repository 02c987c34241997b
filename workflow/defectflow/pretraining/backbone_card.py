"""Figures of a distilled backbone on held-out photographs, and its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from defectflow.core.files import atomic
from defectflow.pretraining.training_images import centre_squares, retake, to_input

VAL_SIZE = 256


def descriptors(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """PatchCore's descriptors (B, C, h, w): maps averaged over 3x3 cells, then stacked at the first one's size."""
    pooled = [F.avg_pool2d(m, 3, 1, 1) for m in maps]
    pooled[1:] = [F.interpolate(m, size=pooled[0].shape[-2:], mode="bilinear") for m in pooled[1:]]
    return torch.cat(pooled, 1)


@torch.no_grad()
def evaluate(student: nn.Module, teacher: nn.Module, images: np.ndarray, batch: int = 10) -> dict[str, float]:
    """Agreement of two extractors on uint8 images (n, H, W, 3), in float32.

    Returns:
        cosine: Mean cosine similarity of the descriptors, over all positions of all images.
        cosine_layer2, cosine_layer3: The same for the pooled map of each layer.
        cosine_centred: The same after subtracting the teacher's mean descriptor (non-negative maps are always similar).
        explained: 1 - squared error / variance of the teacher's descriptors; 1 is a perfect copy.
    """
    device = str(next(teacher.parameters()).device)
    pairs = []
    for i in range(0, len(images), batch):
        x = to_input(images[i : i + batch], device)
        pairs.append([descriptors(net(x)).permute(0, 2, 3, 1).flatten(0, 2).cpu() for net in (student, teacher)])
    a, b = (torch.cat(side) for side in zip(*pairs, strict=True))
    split = teacher(x)[0].shape[1]
    mean = b.mean(0)
    cosine = {
        "cosine": F.cosine_similarity(a, b, dim=1),
        "cosine_layer2": F.cosine_similarity(a[:, :split], b[:, :split], dim=1),
        "cosine_layer3": F.cosine_similarity(a[:, split:], b[:, split:], dim=1),
        "cosine_centred": F.cosine_similarity(a - mean, b - mean, dim=1),
    }
    figures = {key: value.mean().item() for key, value in cosine.items()}
    figures["explained"] = 1 - ((a - b).square().sum() / (b - mean).square().sum()).item()
    return figures


@torch.no_grad()
def find_defects(net: nn.Module, photos: Sequence[np.ndarray], seed: int, size: int = VAL_SIZE) -> float:
    """A small PatchCore: mean AUROC for retakes of a scene against retakes with a drawn scratch, dot or patch.

    For each photograph the bank holds the descriptors of six retakes (shifted, relit, grainy); the score of an image is
    the distance of its farthest patch from the bank. Eight fresh retakes are scored, half of them damaged.
    """
    device = str(next(net.parameters()).device)
    values = []
    for k, square in enumerate(centre_squares(photos, size + 16)):
        rng = np.random.default_rng([seed, k])
        shots = np.stack([retake(rng, square, size, damaged=i >= 10) for i in range(14)])
        found = descriptors(net(to_input(shots, device))).permute(0, 2, 3, 1).flatten(1, 2)
        bank = found[:6].flatten(0, 1)[::4]
        scores = torch.stack([torch.cdist(image, bank).amin(1).max() for image in found[6:]])
        good, bad = scores[:4], scores[4:]
        values.append((bad[:, None] > good[None]).float().mean().item())
    return float(np.mean(values))


def write_card(path: Path, figures: dict[str, Any]) -> None:
    """Write the model card from the measured figures."""
    held, run = figures["held_out"], figures["run"]
    first, last = run["curve"][0], run["curve"][-1]
    half = min(run["curve"], key=lambda row: abs(row["steps"] - last["steps"] / 2))
    rows = "\n".join(
        f"| {row['steps']:.0f} | {row['images']:.0f} | {row['cosine']:.4f} | {row['cosine_centred']:.4f} |"
        f" {row['explained']:.4f} |"
        for row in (first, half, last)
    )
    began = ""
    if run.get("start"):
        began = f"\nTraining continued from exported weights, sha256 {run['start'][:12]}..., with other images."
    licence = "see its page at timm"
    if ".tv_" in figures["teacher"]:
        licence = "torchvision, BSD-3-Clause; trained on ImageNet-1k, whose images are for non-commercial research"
    text = f"""# patch-nano

Backbone for PatchCore's patch descriptors: it replaces layer2 and layer3 of {figures["teacher"]}.
{figures["parameters"]:,} parameters, {figures["bytes"]:,} bytes in float16; dense 3x3 convolutions and ReLU only;
receptive fields of 95 and 207 px (a ResNet-18's: 99 and 211).
Input: RGB normalised with ImageNet's mean and standard deviation, any size.
Output: layer2 with 128 channels at stride 8, layer3 with 256 at stride 16, in the teacher's channels and scale.

## Training

Distilled by `python -m defectflow.pretraining.pretrain_backbone` (rule `pretrain_backbone`), seed {run["seed"]}:
{run["steps"]:,} steps of {run["batch"]} images of {run["size"]} px ({run["images"]:,} images) in
{run["minutes"]:.0f} minutes on {run["device"]}; Muon, AdamW for norms and biases; peak rate {run["lr"]}, half a cosine.
Five in six images are crops of {figures["photos"]} natural photographs, the rest rendered textures; both varied in
light, colour, blur and grain, with drawn damage, silhouettes on black and letterbox bars (`training_images.py`).{began}
No label, no defect and no photograph of an inspected part was used for training or for choosing the architecture.
The architecture was chosen by speed and by short runs of equally fast variants, compared on the held-out photographs:
the variants differed by 0.001 in cosine similarity, the optimisers by 0.035.

## Figures

Measured with this file on {figures["held"]} photographs that were held out of training, at {VAL_SIZE} px, in float32.

| agreement with the teacher's descriptors | |
|---|---|
| mean cosine similarity | {held["cosine"]:.4f} |
| of layer2 alone / layer3 alone | {held["cosine_layer2"]:.4f} / {held["cosine_layer3"]:.4f} |
| after subtracting the mean descriptor | {held["cosine_centred"]:.4f} |
| share of the variance explained | {held["explained"]:.4f} |

Mean AUROC of PatchCore for drawn damage in simulated retakes of 30 held-out scenes: {held["find_defects"]:.3f};
with the teacher {held["find_defects_teacher"]:.3f}, with this network untrained {held["find_defects_untrained"]:.3f}.

| step | images | cosine | centred | explained |
|---|---|---|---|---|
{rows}

Measured on 20 of the held-out photographs during training; the whole curve is in `patch-nano.json`.

## Licences

- These weights: the licence of this repository.
- Teacher {figures["teacher"]}: {licence}.
- Photographs: a pool of natural photographs whose licences differ and are in part not stated. They were used to train
  and are not distributed.

## Not good for

- Classification or retrieval: like the teacher's first three stages, it has no semantic layer.
- Anything that the teacher cannot do: where ResNet-18 descriptors fail, so do these. If downloads are allowed,
  `wide_resnet50_2.tv_in1k` or a DINOv2 is stronger and slower.
- Inputs other than RGB photographs (thermal, X-ray, depth): not tested.
"""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
