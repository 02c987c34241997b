"""Figures of `part-nano` on held-out photographs and surfaces, and its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectflow.core.files import atomic
from defectflow.parts.figure_ground import SIDE, FigureGround
from defectflow.parts.registration_frame import iou
from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph
from defectflow.pretraining.figure_scenes import surface_picture

EVALUATION_SEED = 2**31  # no training seed
SURFACES = 100  # for the share of surfaces that are taken for objects


def figure_iou(probability: np.ndarray, one: Photograph) -> float:
    """IoU of a probability over the whole photograph, of any grid, with the union of its objects, on known pixels."""
    found = cv2.resize(probability, one.labels.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
    known = one.labels != UNKNOWN
    return iou(found & known, (one.labels > 0) & known)


def figure_rows(network: FigureGround, photographs: Sequence[Photograph]) -> list[dict[str, Any]]:
    """One row for each photograph that has a usable figure: file, source, iou, surface, doubt (mean in the figure)."""
    rows = []
    for one in photographs:
        if one.figure and ((one.labels > 0) & (one.labels != UNKNOWN)).any():
            found = network.predict([one.image])[0]
            sure = found.probability >= 0.5
            doubt = float(found.doubt[sure].mean()) if sure.any() else 0.5
            row = {"file": one.name, "source": one.source, "iou": figure_iou(found.probability, one)}
            rows.append(row | {"surface": found.surface, "doubt": doubt, "probability": found.probability})
    return rows


def means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By source: number of photographs, mean IoU, share taken for a surface."""
    found = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        those = [row for row in rows if row["source"] == source]
        found[source] = {
            "photographs": len(those),
            "iou": float(np.mean([row["iou"] for row in those])),
            "as_surface": float(np.mean([row["surface"] >= 0.5 for row in those])),
        }
    return found


def surfaces(photos: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Surfaces made of photographs, uint8 RGB (SIDE, SIDE, 3); always the same."""
    generators = (np.random.default_rng([EVALUATION_SEED, k]) for k in range(count))
    return [surface_picture(rng, photos[k % len(photos)], 0, SIDE).image for k, rng in enumerate(generators)]


def surface_rows(network: FigureGround, photos: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Probability of a surface predicted for surfaces made of photographs, float (count,)."""
    return np.array([found.surface for found in network.predict(surfaces(photos, count))])


def write_card(path: Path, figures: dict[str, Any]) -> None:
    """Write the model card from the measured figures."""
    run, taught = figures["run"], figures["taught"]
    rows = "\n".join(
        f"| {source} | {figures['trained'].get(source, 0):,} | {row['photographs']:,} | {row['iou']:.3f} | "
        f"{row['as_surface']:.3f} |"
        for source, row in figures["held_out"].items()
    )
    picked = np.unique(np.linspace(0, len(run["curve"]) - 1, 8).round().astype(int))
    names = [key for key in run["curve"][0] if key.startswith("iou_")]
    curve = "\n".join(
        f"| {row['minutes']:.0f} | {row['pictures']:,.0f} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |"
        for row in (run["curve"][i] for i in picked)
    )
    teacher = ""
    if taught["count"]:
        teacher = f"""- Teacher of a tenth of the pictures: U2NetP (X. Qin et al., U2-Net: going deeper with nested
  U-structure for salient object detection, 2020), Apache-2.0; its soft masks of {taught["count"]} photographs of the
  pool, where they are clear. File with the sha256 {taught["teacher"][:12]}...; no weight of it is contained.
"""
    photographs = ""
    if figures["trained"]:
        notice = path.with_suffix(".NOTICE.md").name
        photographs = f"- Photographs with masks: [{notice}]({notice}) lists their origins and licences.\n"
    began = f", from weights with the sha256 {run['start'][:12]}..." if run["start"] else ""
    text = f"""# part-nano

Predicts, without a prompt, which pixels belong to the main object of a photograph: {figures["heads"]} heads on the
frozen features of `patch-nano`, trained separately. Their mean is the prediction, their standard deviation the
uncertainty. Each also predicts whether the photograph shows only a surface, without an object.
`parts/figure_ground.py` loads and runs it.
{figures["parameters"]:,} parameters in the heads, {figures["bytes"]:,} bytes in float16. Input: RGB, resized to
{figures["image_size"]} px square. Output: a grid with a quarter of that side over the whole photograph.

## Training

By `python -m defectflow.pretraining.pretrain_part`, seed {run["seed"]}{began}:
{run["steps"]:,} steps of {run["batch"]} new pictures ({run["pictures"]:,} in all) and {run["again"]} times as many
of earlier steps, in {run["minutes"]:.0f} minutes on {run["device"]}. Muon and AdamW, peak rate {run["rate"]}, half a
cosine. Losses: cross-entropy and dice of the figure, cross-entropy of "a surface".
Pictures (`figure_scenes.py`): windows of annotated photographs whose masks are a usable foreground; their objects
pasted in front of surfaces and scenes; rendered parts; photographs of a pool with a teacher's soft masks; surfaces made
of small patches of {figures["photos"]} photographs of the pool and of rendered textures, with small damage. Light,
colour, blur, grain and JPEG vary. Each head starts from other random numbers and never sees its own fifth of the
series and the pool. No photograph of an inspected part was used for training or for choosing the architecture.

## Figures

Measured with this file on series that were held out of training (`benchmarks/figure_ground.py`).

| source | trained on | held out | mean IoU | taken for a surface |
|---|---|---|---|---|
{rows}

Of {figures["surfaces"]} surfaces made of {figures["held"]} held-out photographs of the pool,
{figures["surfaces_as_objects"]:.3f} are taken for an object.

| minutes | pictures | {" | ".join(name.removeprefix("iou_") for name in names)} |
|---|---|{"---|" * len(names)}
{curve}

IoU on some of the held-out photographs during training; the whole curve is in the JSON file.

## Licences

- These weights: the licence of this repository.
{photographs}- Pool: natural photographs whose licences differ and are in part not stated.
  They were used to train and are not distributed.
{teacher}
## Not good for

- Outlines finer than {figures["image_size"] // 96} px at {figures["image_size"]} px: refine them.
- Several objects of which one is meant, and clamps or fixtures that touch the part: all of them may be
  included.
- Objects unlike tools, people, household objects and rendered parts: where the heads disagree, the uncertainty is high.
"""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
