"""Scenes for `pretrain_sam` from real photographs with masks: moved, scaled, pasted onto others, relit.

Large-scale jitter and copy-paste after G. Ghiasi et al., Simple copy-paste is a strong data augmentation method for
instance segmentation, 2021. Every function uses the given random generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph
from defectflow.pretraining.rendered_scenes import (
    KINDS,
    SMALLEST,
    Scene,
    SceneBatch,
    ask,
    filled_box,
    photographed,
    scene_batch,
)
from defectflow.pretraining.training_images import crop, texture
from defectflow.segmentation.sam_model import LOGIT, NEGATIVE, NOT_A_POINT, POSITIVE, Prompt

PASTED = 0.35  # share of scenes whose background is another picture
PLAIN = 0.25  # share of scenes that are only moved and keep the light of the photograph
REAL = 0.75  # share of scenes from photographs, if there are any
CLICK_KINDS = ("box", "box", "box", "point", "point", "filled", "guess", "wide")
UNION = 0.5  # share of prompts for all objects together, if these are one figure


def backdrop(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """A background: a photograph, a texture or one colour; uint8 (size, size, 3)."""
    kind = rng.random()
    if kind < 0.7:
        return crop(rng, photos[int(rng.integers(len(photos)))], size)
    if kind < 0.85:
        return texture(rng, size)
    return np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)


def move(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> np.ndarray:
    """A random affine map (2, 3) from a picture of ``shape`` to a square: resized, scaled, rotated, mirrored."""
    height, width = shape[:2]
    scale = np.exp(rng.uniform(np.log(0.5), np.log(2.2))) if rng.random() < 0.7 else 1.0
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0, 0.12)
    c, s = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.normal(0, 0.12))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    square = np.diag([size / width * flip, size / height])
    linear = scale * np.diag([stretch, 1 / stretch]) @ np.array([[c, -s], [s, c]]) @ square
    slack = abs(scale - 1) / 2
    centre = size * (0.5 + rng.uniform(-slack, slack, 2) + rng.normal(0, 0.03, 2))
    return np.hstack([linear, (centre - linear @ np.array([width / 2, height / 2]))[:, None]])


def jpeg(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The picture after JPEG compression at a quality of 25 to 90."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 91))])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def photograph_scene(
    rng: np.random.Generator, photograph: Photograph, photos: Sequence[np.ndarray], size: int
) -> Scene | None:
    """A scene of one annotated photograph, or None if no object is left in the picture.

    Args:
        photos: Photographs to paste objects onto, uint8 RGB.
        size: Side of the picture in px.

    Returns:
        A scene whose ``main`` is the union of the objects, the last of its masks, where the photograph is of that.
    """
    affine = move(rng, photograph.labels.shape, size)
    zoom = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    image = photograph.image
    if zoom < 0.6:  # warpAffine does not average
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / zoom)
    labels = cv2.warpAffine(photograph.labels, affine, (size, size), flags=cv2.INTER_NEAREST)
    numbers, counts = np.unique(labels[(labels > 0) & (labels != UNKNOWN)], return_counts=True)
    numbers = numbers[counts > SMALLEST * labels.size]
    if not len(numbers):
        return None
    inside = (labels > 0) & (labels != UNKNOWN)
    under = backdrop(rng, photos, size)
    warped = cv2.warpAffine(image, affine, (size, size), under.copy(), borderMode=cv2.BORDER_TRANSPARENT)
    if rng.random() < PASTED:
        alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), rng.uniform(0.4, 1.0) * size / 256)[..., None]
        warped = (alpha * warped + (1 - alpha) * under).astype(np.uint8)
    if rng.random() > PLAIN:
        warped = photographed(rng, warped.astype(np.float32))
    if rng.random() < 0.3:
        warped = jpeg(rng, warped)
    masks = [(labels == n).astype(np.float32) for n in numbers]
    main = None
    if photograph.figure:
        masks.append(inside.astype(np.float32))
        main = len(masks) - 1
    return Scene(warped, masks, [], main)


def pick_object(rng: np.random.Generator, scene: Scene) -> int:
    """Index of the target mask: the union with probability UNION, if there is one."""
    if scene.main is not None and rng.random() < UNION:
        return scene.main
    return int(rng.integers(len(scene.masks)))


def loosen(rng: np.random.Generator, prompt: Prompt, size: int) -> None:
    """Move the sides of a prompt's box by about a twentieth of its extent, like hand-drawn boxes."""
    box = prompt.points[:2]
    extent = np.tile(box[1] - box[0], 2).reshape(2, 2)
    moved = box + (rng.normal(0, 0.05, (2, 2)) * extent).clip(-size / 25, size / 25)
    prompt.points[:2] = moved.clip(0, size).astype(np.float32)


def question(rng: np.random.Generator, mask: np.ndarray, size: int, kind: str) -> Prompt:
    """As `ask`, with boxes that are loose in half of the cases and points anywhere inside in half of them."""
    prompt = ask(rng, mask, size, kind)
    if kind in ("box", "filled") and rng.random() < 0.5:
        loosen(rng, prompt, size)
        prompt.mask = filled_box(prompt, size) if kind == "filled" else None
    if kind == "point" and prompt.labels[2] == POSITIVE and rng.random() < 0.5:
        ys, xs = np.nonzero(mask > 0.5)
        pick = rng.integers(len(ys))
        prompt.points[2] = xs[pick] + 0.5, ys[pick] + 0.5
    return prompt


def mixed_batch(
    seed: int,
    step: int,
    photos: Sequence[np.ndarray],
    sources: Sequence[Sequence[Photograph]],
    scenes: int,
    prompts: int,
    size: int,
    kinds: Sequence[str] = KINDS,
) -> SceneBatch:
    """The batch of one step: REAL of the scenes are photographs of ``sources``, all sources equally often.

    The rest are rendered; the same for the same arguments. Other arguments as for `scene_batch`.
    """
    rng = np.random.default_rng([seed, step, 1])
    real = int(rng.binomial(scenes, REAL)) if sources else 0
    parts = [scene_batch(seed, step, photos, scenes - real, prompts, size, kinds)] if real < scenes else []
    images: list[np.ndarray] = []
    asked, truth = [], []
    if kinds is KINDS:
        kinds = CLICK_KINDS
    while len(images) < real:
        source = sources[int(rng.integers(len(sources)))]
        scene = photograph_scene(rng, source[int(rng.integers(len(source)))], photos, size)
        if scene is None:
            continue
        images.append(scene.image)
        for _ in range(prompts):
            pick = pick_object(rng, scene)
            kind = kinds[int(rng.integers(len(kinds)))]
            kind = "box" if kind == "wide" and pick != scene.main else kind
            asked.append(question(rng, scene.masks[pick], size, kind))
            truth.append(cv2.resize(scene.masks[pick], (size // 2, size // 2), interpolation=cv2.INTER_AREA))
    if images:
        owner = np.repeat(np.arange(real), prompts)
        parts.append(SceneBatch(np.stack(images), owner, asked, np.stack(truth), np.ones(len(asked), np.float32)))
    return SceneBatch(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.owner + sum(len(q.images) for q in parts[:i]) for i, p in enumerate(parts)]),
        [prompt for p in parts for prompt in p.prompts],
        np.concatenate([p.truth for p in parts]),
        np.concatenate([p.present for p in parts]),
    )


def corrected(prompt: Prompt, logits: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> Prompt:
    """The prompt with one more click on an error of its mask, and this mask as mask prompt, as in SAM's training.

    The click is on a random wrong pixel; without wrong pixels it is empty.

    Args:
        prompt: The previous prompt.
        logits: float32 (side, side), the previous mask.
        truth: float32 (n, n) in [0, 1].
    """
    side = len(logits)
    true = cv2.resize(truth, (side, side), interpolation=cv2.INTER_AREA) > 0.5
    errors = true != (logits > 0)
    place, label = np.zeros(2, np.float32), NOT_A_POINT
    if errors.any():
        ys, xs = np.nonzero(errors)
        pick = rng.integers(len(ys))
        y, x = ys[pick], xs[pick]
        place, label = np.array([4 * x + 2, 4 * y + 2], np.float32), POSITIVE if true[y, x] else NEGATIVE
    mask = np.clip(logits, -2 * LOGIT, 2 * LOGIT).astype(np.float32)
    return Prompt(np.vstack([prompt.points, place]).astype(np.float32), np.append(prompt.labels, label), mask)
