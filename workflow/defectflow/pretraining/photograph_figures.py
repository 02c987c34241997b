"""Evaluation of promptable segmenters on real photographs with masks: boxes, clicks and corrections.

Clicks as in the evaluation of SAM (A. Kirillov et al., Segment anything, 2023, section 7.1): the first click is deepest
inside the object, each further one deepest inside the largest error of the previous mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph
from defectflow.pretraining.rendered_scenes import SMALLEST
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_model import BOX_CORNERS, LOGIT, NEGATIVE, NOT_A_POINT, POSITIVE, Prompt

CLICKS = 3
OBJECTS = 4  # of a photograph, at most, besides its figure


class Segmenter(Protocol):
    """A network that segments a picture by prompts."""

    def look(self, image: np.ndarray) -> Any:
        """Encode an RGB picture for `answer`."""

    def answer(
        self, seen: Any, points: np.ndarray, labels: np.ndarray, before: Any, several: bool
    ) -> tuple[np.ndarray, float, Any]:
        """Mask, predicted IoU and the value of ``before`` for the next prompt.

        Args:
            seen: The result of `look`.
            points: float32 (n, 2) as (x, y) in pixels of the picture.
            labels: int (n,), SAM's.
            before: The previous result that these points correct, or None.
            several: Whether to use the best of three proposals.
        """


class Sam:
    """A model of `sam_model` as a `Segmenter`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.device = next(model.parameters()).device

    def look(self, image: np.ndarray) -> tuple[list[Tensor], tuple[int, int]]:
        """Decoder features, and (height, width)."""
        size = self.model.image_size
        square = sam_model.to_tensor(to_square(image, size)[None], self.device)
        return sam_model.encode(self.model, square), image.shape[:2]

    def answer(
        self, seen: tuple[Any, ...], points: np.ndarray, labels: np.ndarray, before: np.ndarray | None, several: bool
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """See `Segmenter`."""
        features, shape = seen
        scaled = (points * self.model.image_size / np.float32(shape[::-1])).astype(np.float32)
        prompt = Prompt(scaled, labels, before)
        logits, predicted, _ = sam_model.propose(self.model, features, [prompt])
        best = 1 + int(predicted[0, 1:].argmax()) if several else 0
        low = logits[0, best].cpu().numpy().clip(-2 * LOGIT, 2 * LOGIT)
        return sam_model.full_size(logits[0, best], shape), float(predicted[0, best]), low


def targets(photograph: Photograph, objects: int = OBJECTS) -> dict[str, list[np.ndarray]]:
    """Target masks, bool: the "figure", if there is one, and up to ``objects`` "object" drawn by the name's hash."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(photograph.name.encode()).digest()[:8], "big"))
    labels = photograph.labels
    numbers = [n for n in np.unique(labels) if n not in (0, UNKNOWN)]
    masks = [m for m in (labels == n for n in rng.permutation(numbers)) if m.mean() > SMALLEST]
    whole = (labels > 0) & (labels != UNKNOWN)
    figure = [whole] if photograph.figure and whole.mean() > SMALLEST else []
    if figure and len(numbers) == 1:
        masks = []  # the same mask twice would count double
    return {"figure": figure, "object": masks[:objects]}


def box_of(mask: np.ndarray) -> np.ndarray:
    """Corners of a mask's box, float32 (2, 2) as (x, y)."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([[x, y], [x + w, y + h]], np.float32)


def deepest(true: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, int] | None:
    """(x, y) and label of the click deepest inside the largest error of ``mask``, or None if there is none."""
    found = []
    for region, label in ((true & ~mask, POSITIVE), (mask & ~true, NEGATIVE)):
        depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        found.append((float(depth[y, x]), np.array([[x + 0.5, y + 0.5]], np.float32), label))
    deep, place, label = max(found, key=lambda each: each[0])
    return (place, label) if deep > 0 else None


def question_rows(segmenter: Segmenter, photograph: Photograph, objects: int = OBJECTS) -> list[dict[str, Any]]:
    """One row for each target and prompt of a photograph: source, target, prompt, iou, predicted, mask, points."""
    rows = []
    with torch.inference_mode():
        seen = segmenter.look(photograph.image)
        for target, masks in targets(photograph, objects).items():
            for true in masks:
                about = {"file": photograph.name, "source": photograph.source, "target": target}
                box = box_of(true)
                mask, predicted, _ = segmenter.answer(seen, box, np.array(BOX_CORNERS), None, several=False)
                row = {"prompt": "box", "iou": iou(mask, true), "predicted": predicted, "mask": mask, "true": true}
                rows.append(about | row | {"points": box})
                points, labels = np.zeros((0, 2), np.float32), np.zeros(0, int)
                mask, before = np.zeros_like(true), None
                for click in range(1, CLICKS + 1):
                    place, label = deepest(true, mask) or (np.zeros((1, 2), np.float32), NOT_A_POINT)
                    points, labels = np.vstack([points, place]), np.append(labels, label)
                    mask, predicted, before = segmenter.answer(seen, points, labels, before, several=click == 1)
                    row = {"prompt": f"click {click}", "iou": iou(mask, true), "predicted": predicted, "mask": mask}
                    rows.append(about | row | {"true": true, "points": points})
    return rows


def sampled(photographs: Sequence[Photograph], limit: int) -> list[Photograph]:
    """At most ``limit`` photographs of each source, in the order of their names' hashes."""
    ordered = sorted(photographs, key=lambda one: hashlib.sha256(one.name.encode()).digest())
    sources = dict.fromkeys(sorted(one.source for one in photographs))
    return [one for source in sources for one in [p for p in ordered if p.source == source][:limit]]


def calibration(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float, int]]:
    """(mean predicted IoU, mean true IoU, answers) of the answers in each tenth of the predicted IoU."""
    tenths: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        tenths.setdefault(min(9, int(10 * row["predicted"])), []).append((row["predicted"], row["iou"]))
    return [(*np.mean(tenths[k], 0).tolist(), len(tenths[k])) for k in sorted(tenths)]
