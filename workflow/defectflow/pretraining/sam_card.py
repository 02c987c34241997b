"""Figures of a pre-trained SAM on rendered scenes of held-out photographs, and its model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm import tqdm

from defectflow.core.files import atomic, sha256_of
from defectflow.parts.registration_frame import iou
from defectflow.pretraining.annotated_photographs import Photograph
from defectflow.pretraining.photograph_figures import Sam, calibration, question_rows
from defectflow.pretraining.rendered_scenes import KINDS, SceneBatch, scene_batch
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_training import trained_parameters

EVALUATION_SEED = 2**31  # not used in training, so these scenes are held out


def answers(model: nn.Module, batch: SceneBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What `sam_model.decode` returns for the prompts of a batch, each scene encoded once."""
    features = sam_model.encode(model, sam_model.to_tensor(batch.images, device))
    owner = torch.from_numpy(batch.owner).to(device)
    return sam_model.decode(model, [f[owner] for f in features], batch.prompts)


def _filled(prompt: sam_model.Prompt, side: int, size: int) -> np.ndarray:
    """The mask of the prompt without the picture: its mask if it has one, otherwise its filled box."""
    if prompt.mask is not None:
        return np.asarray(torch.nn.functional.interpolate(torch.from_numpy(prompt.mask)[None, None], side)[0, 0] > 0)
    filled = np.zeros((side, side), bool)
    (left, top), (right, bottom) = np.rint(prompt.points[:2] * side / size).astype(int)
    filled[top:bottom, left:right] = True
    return filled


@torch.no_grad()
def evaluate(model: nn.Module, photos: Sequence[np.ndarray], seed: int, batches: int) -> dict[str, float]:
    """Evaluation on rendered scenes at the model's own image size, in float32.

    Args:
        photos: Photographs that were not trained on, uint8 RGB.
        batches: Batches of four scenes with three prompts each, for each kind of prompt.

    Returns:
        iou_<kind>: Mean IoU of the masks with the truth where the object is there, for each kind of prompt.
        iou_<kind>_prompt: The same for the prompt used as the mask (the filled box), which the network must beat.
        presence_auroc: AUROC of the object score for objects that are there against ones that are not; NaN where
            all are there.
        iou_error: Mean absolute error of the predicted IoU.
    """
    device = next(model.parameters()).device
    size, figures, scores, labels, errors = model.image_size, {}, [], [], []
    for kind in dict.fromkeys(KINDS):
        ours, naive = [], []
        for number in range(batches):
            batch = scene_batch(EVALUATION_SEED + seed, number, photos, 4, 3, size, kinds=(kind,))
            logits, predicted, score = answers(model, batch, device)
            masks = F.interpolate(logits[:, None], batch.truth.shape[-2:], mode="bilinear")[:, 0].cpu().numpy() > 0
            scores += score.tolist()
            labels += batch.present.tolist()
            for i in np.flatnonzero(batch.present):
                truth = batch.truth[i] >= 0.5
                ours.append(iou(masks[i], truth))
                errors.append(abs(float(predicted[i]) - ours[-1]))
                if kind != "point":
                    naive.append(iou(_filled(batch.prompts[i], len(truth), size), truth))
        figures[f"iou_{kind}"] = float(np.mean(ours))
        if naive:
            figures[f"iou_{kind}_prompt"] = float(np.mean(naive))
    both = len(set(labels)) == 2
    figures["presence_auroc"] = float(roc_auc_score(labels, scores)) if both else float("nan")
    figures["iou_error"] = float(np.mean(errors))
    return figures


def measure(
    weights: Path, config: str, held: Sequence[np.ndarray], seed: int, batches: int, device: str
) -> dict[str, Any]:
    """Figures of an exported file: size, and results on scenes of held-out photographs."""
    model = sam_model.build(config, weights).to(device)
    parts = trained_parameters(model, "all")
    return {
        "parameters_on_images": sum(p.numel() for group in parts.values() for p in group),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "image_size": model.image_size,
        "scenes": 4 * batches,
        "held_out": evaluate(model, held, seed + 1, batches),
    }


def evaluate_photographs(model: nn.Module, asked: Sequence[Photograph]) -> dict[str, float]:
    """Mean IoU of photographs by prompt, as real_box and real_click_1 to real_click_3, at the model's own size."""
    segmenter = Sam(model)
    rows = [row for one in asked for row in question_rows(segmenter, one)]
    return {
        f"real_{prompt.replace(' ', '_')}": float(np.mean([row["iou"] for row in rows if row["prompt"] == prompt]))
        for prompt in dict.fromkeys(row["prompt"] for row in rows)
    }


def counted(photographs: Sequence[Photograph]) -> dict[str, int]:
    """Number of photographs by source."""
    return dict(Counter(one.source for one in photographs))


def measure_photographs(weights: Path, config: str, asked: Sequence[Photograph], device: str) -> dict[str, Any]:
    """Mean IoU by source and prompt of an exported file on photographs, and predicted against true IoU."""
    segmenter = Sam(sam_model.build(config, weights).to(device))
    rows = [row for one in tqdm(asked, desc="held out", unit="image") for row in question_rows(segmenter, one)]
    means = {
        source: {
            prompt: float(np.mean([r["iou"] for r in rows if (r["source"], r["prompt"]) == (source, prompt)]))
            for prompt in dict.fromkeys(row["prompt"] for row in rows)
        }
        for source in dict.fromkeys(row["source"] for row in rows)
    }
    return {"held": counted(asked), "iou": means, "calibration": calibration(rows)}


def write_notice(path: Path, photographs: Sequence[Photograph], network: str = "sam2.1-nano") -> None:
    """Write the origin and licence of each annotated photograph; sources with a single origin take one line."""
    by_source: dict[str, list[Photograph]] = {}
    for one in photographs:
        by_source.setdefault(one.source, []).append(one)
    rows = []
    for source in sorted(by_source):
        ordered = sorted(by_source[source], key=lambda one: one.name)
        terms = {(one.origin, one.licence) for one in ordered}
        for origin, licence in [*terms] if len(terms) == 1 else []:
            rows.append(f"| {source}: all {len(ordered):,} photographs and masks | {origin} | {licence} |")
        if len(terms) > 1:
            rows += [f"| {one.name} | {one.origin} | {one.licence} |" for one in ordered]
    table = "\n".join(rows)
    text = f"""# Photographs that {network} learned from

GitHub repositories are named with the commit. Numbers in the names of COCO's photographs are their ids at
cocodataset.org, which links to each photographer's page. Photographs and masks were reduced and varied for training;
none is distributed here. A tenth of the series was held out of training and used only for evaluation.

| photographs | from | licence |
|---|---|---|
{table}
"""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _about_photographs(path: Path, found: dict[str, Any]) -> tuple[str, str]:
    """Paragraphs of the card about real photographs: (figures, licences)."""
    prompts = list(next(iter(found["iou"].values())))
    rows = "\n".join(
        f"| {source} | {found['trained'].get(source, 0):,} | {found['held'][source]:,} | "
        + " | ".join(f"{means[prompt]:.3f}" for prompt in prompts)
        + " |"
        for source, means in found["iou"].items()
    )
    tenths = "\n".join(f"| {told:.2f} | {true:.2f} | {count} |" for told, true, count in found["calibration"])
    figures = f"""
Real photographs, held out by series: mean IoU for a box, and for one to three clicks, where each further click is on
the largest error of the previous mask (`benchmarks/zero_shot.py`).

| source | trained on | evaluated on | {" | ".join(prompts)} |
|---|---|---|{"---|" * len(prompts)}
{rows}

| predicted IoU | true IoU | masks |
|---|---|---|
{tenths}
"""
    notice = path.with_suffix(".NOTICE.md").name
    return figures, f"- Real photographs with masks: [{notice}]({notice}) lists their origins and licences.\n"


def write_card(path: Path, figures: dict[str, Any]) -> None:
    """Write the model card from the measured figures."""
    held, run = figures["held_out"], figures["run"]
    told = {
        "box": "a box",
        "filled": "a box, and the same box as a mask",
        "point": "one point",
        "guess": "box, points and a rough mask",
        "wide": "a wide box",
    }
    rows = "\n".join(
        f"| {told[kind]} | {held[f'iou_{kind}']:.3f} | "
        + (f"{held[f'iou_{kind}_prompt']:.3f} |" if f"iou_{kind}_prompt" in held else "- |")
        for kind in dict.fromkeys(KINDS)
    )
    picked = np.unique(np.linspace(0, len(run["curve"]) - 1, 6).round().astype(int))
    curve = "\n".join(
        f"| {row['minutes']:.0f} | {row['scenes']:,.0f} | "
        + " | ".join(f"{row[f'iou_{kind}']:.3f}" for kind in dict.fromkeys(KINDS))
        + " |"
        for row in (run["curve"][i] for i in picked)
    )
    real, licences, own = "", "", "No photograph of an inspected part and no mask drawn by a person was used."
    began = "from random weights"
    losses = "Losses: cross-entropy and dice, error of the predicted IoU, presence."
    if found := figures.get("photographs"):
        real, licences = _about_photographs(path, found)
        number = sum(found["trained"].values())
        own = f"""Three in four scenes are made of {number:,} real photographs with masks (`photograph_scenes.py`):
moved, scaled, rotated, relit, compressed, a third of them pasted onto other pictures. Prompts are for single objects
and for their union.
No photograph of an inspected part was used."""
    if run.get("start"):
        began = f"from weights with the sha256 {run['start'][:12]}..."
        losses = "Losses: focal and dice 20:1, error of the predicted IoU, presence."
    text = f"""# sam2.1-nano

Promptable segmenter with the architecture of SAM 2.1 (Hiera trunk, feature pyramid, two-way mask decoder, heads for
predicted IoU and presence), made to be fine-tuned on one kind of part on a CPU. Loads through `build_sam2` with
`configs/sam2.1_nano.yaml`. {figures["parameters_on_images"]:,} parameters on images
({figures["parameters"]:,} with the video memory, which is untrained), {figures["bytes"]:,} bytes in float16,
{figures["image_size"]} px.

## Training

Pre-trained by `python -m defectflow.pretraining.pretrain_sam` (rule `pretrain_sam`), seed {run["seed"]}, {began}:
{run["steps"]:,} steps, {run["scenes"]:,} scenes with {run["prompts"]} prompts each, in
{run["minutes"]:.0f} minutes on {run["device"]}; seven eighths of the time at 256 px, the rest at
{figures["image_size"]}. Muon and AdamW, peak rate {run["rate"]}, which falls to zero in the last
{run["decay"]:.0%} of the run; the exported weights are a running average over about a hundred steps. {losses}
Up to two further rounds add clicks on errors, with the previous mask as mask prompt; of the three proposals, only the
best one is trained on the mask.
Scenes (`rendered_scenes.py`): plates, brackets, gears, wires and blobs with holes, with light and shadow, in front of
clutter; surfaces are crops of {figures["photos"]} natural photographs and rendered textures; light, exposure, blur and
grain vary.
One prompt in eight of a rendered scene is for an object that is not in it.
{own}

## Figures

Measured with this file on {figures["scenes"]} scenes for each kind of prompt, made of {figures["held"]} photographs
that were held out of training.

| prompt | IoU | the prompt itself as the mask |
|---|---|---|
{rows}

AUROC of the object score (object present or absent): {held["presence_auroc"]:.3f}.
Mean error of the predicted IoU: {held["iou_error"]:.3f}.

| minutes | scenes | {" | ".join(told[kind] for kind in dict.fromkeys(KINDS))} |
|---|---|---|---|---|---|
{curve}

IoU on a dozen rendered scenes during training (the rate falls to zero at the end); the whole curve is in the JSON file.
{real}
## Licences

- These weights: the licence of this repository. The architecture is the `sam2` package's, Apache-2.0; no weight of
  Meta's checkpoints was used.
- Photographs: a pool of natural photographs whose licences differ and are in part not stated. They were used to train
  and are not distributed.
{licences}
## Not good for

- Use without fine-tuning where outlines matter: in real clutter, masks leak or cover only a part of the object. The
  official checkpoints, trained on 11 million photographs, are far better.
- Video: the memory is untrained.
- Outlines finer than 4 px at {figures["image_size"]} px.
"""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
