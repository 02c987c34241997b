"""Rendered scenes for `pretrain_sam`: parts with holes and thin limbs among clutter, with their masks and prompts.

Surfaces and backgrounds are crops of the pool's photographs and the rendered textures of `training_images`.
Every function uses the given random generator, so seed and step determine the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from defectflow.pretraining.silhouettes import placed
from defectflow.pretraining.training_images import crop, noise, texture
from defectflow.segmentation.sam_model import LOGIT, NOT_A_POINT, Prompt, make_prompt

SMALLEST = 0.004  # share of the frame that must be visible for an object to be a target
KINDS = (
    "box",
    "box",
    "filled",
    "filled",
    "guess",
    "guess",
    "point",
    "wide",
)  # prompts of `ask`, by frequency
VISIBLE = 0.6  # share of the object that must be visible: the extent of a hidden one is unknown


@dataclass(frozen=True)
class Scene:
    """A picture and the objects in it.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        masks: float32 (size, size) in [0, 1] each: visible part of an object, rearmost first; only visible objects.
        ghosts: The same for objects that are not in the picture, in places without other objects.
        main: Index in `masks` of the object meant by a box over the whole scene, or None.
    """

    image: np.ndarray
    masks: list[np.ndarray]
    ghosts: list[np.ndarray]
    main: int | None


def surface(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Material of an object or backdrop, float32 (size, size, 3) in 0 to 255."""
    kind = rng.random()
    if kind < 0.5:
        return crop(rng, photos[int(rng.integers(len(photos)))], size).astype(np.float32)
    if kind < 0.8:
        return texture(rng, size).astype(np.float32)
    plain = rng.uniform(0, 255, 3)
    if rng.random() < 0.6:
        plain = plain.mean() + 0.15 * (plain - plain.mean())
    return np.full((size, size, 3), plain, np.float32)


def _around(alpha: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Window around the area of ``alpha``, to save time for small objects; one pixel if it is empty."""
    x, y, w, h = cv2.boundingRect((alpha > 0.01).astype(np.uint8))
    return slice(max(0, y - margin), y + h + margin + 1), slice(max(0, x - margin), x + w + margin + 1)


def light_up(rng: np.random.Generator, material: np.ndarray, alpha: np.ndarray, size: int) -> np.ndarray:
    """Material with a light gradient, a bevel along the outline and now and then a highlight."""
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    down, across = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in alpha.shape)
    light = 1 + rng.uniform(0, 0.5) * (direction[0] * across + direction[1] * down[:, None])
    soft = cv2.GaussianBlur(alpha, (0, 0), size * rng.uniform(0.004, 0.03))
    bevel = direction[0] * cv2.Sobel(soft, -1, 1, 0) + direction[1] * cv2.Sobel(soft, -1, 0, 1)
    light = light + rng.uniform(0, 2.5) * bevel
    result: np.ndarray = material * light[..., None]
    if rng.random() < 0.25:
        spots = noise(rng, max(alpha.shape), (3, 3))[: alpha.shape[0], : alpha.shape[1]]
        result = result + 120 * rng.random() * (spots**4)[..., None]
    return result


def photographed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, exposure, white balance, blur and grain of a photograph, uint8."""
    size = len(image)
    if rng.random() < 0.4:
        image = image * (0.6 + 0.8 * noise(rng, size, (2, 2)))[..., None]
    gain = np.exp(rng.normal(0, 0.45) + rng.normal(0, 0.05, 3))
    image = 255 * (np.clip(image / 255, 0, None) * gain.astype(np.float32)) ** np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), size / 256 * rng.uniform(0.4, 1.8))
    if rng.random() < 0.15:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.5:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 14))
    return np.clip(image, 0, 255).astype(np.uint8)


def render_scene(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> Scene:
    """Render a scene.

    Half of the scenes show one large part over clutter, like inspection photographs, the others a heap of objects. A
    few objects share their neighbour's material, so that colour alone is not enough.

    Args:
        photos: uint8 RGB photographs.
        size: Side of the picture in px.
    """
    inspection = rng.random() < 0.5
    count = int(rng.integers(1, 7))
    extents = [(0.08, 0.5)] * count + [(0.45, 1.0)] if inspection else [(0.12, 0.8)] * (count + 1)
    image = surface(rng, photos, size)
    visible: list[np.ndarray] = []
    areas: list[float] = []
    palette: np.ndarray | None = None
    for extent in extents:
        alpha = placed(rng, size, extent)
        window = _around(alpha, margin=size // 10)
        part = alpha[window]
        if palette is None or max(part.shape) > len(palette) or rng.random() < 0.85:
            palette = surface(rng, photos, max(part.shape))
        under = image[window]
        if rng.random() < 0.6:
            dx, dy = rng.normal(0, 0.02 * size, 2)
            shadow = cv2.warpAffine(part, np.array([[1, 0, dx], [0, 1, dy]], np.float32), part.shape[::-1])
            shadow = cv2.GaussianBlur(shadow, (0, 0), size * rng.uniform(0.005, 0.03))
            under *= (1 - rng.uniform(0.2, 0.8) * shadow)[..., None]
        under += part[..., None] * (light_up(rng, palette[: part.shape[0], : part.shape[1]], part, size) - under)
        visible = [mask * (1 - alpha) for mask in visible] + [alpha]
        areas.append(float(alpha.sum()))
    shown = [i for i, mask in enumerate(visible) if mask.sum() > max(SMALLEST * mask.size, VISIBLE * areas[i])]
    masks = [visible[i] for i in shown]
    taken = np.max(visible, axis=0)
    ghosts = [placed(rng, size, (0.12, 0.6)) for _ in range(2)]
    ghosts = [g for g in ghosts if g.sum() > SMALLEST * g.size and (g * taken).sum() < 0.2 * g.sum()]
    main = len(masks) - 1 if inspection and shown and shown[-1] == len(visible) - 1 else None
    return Scene(photographed(rng, image), masks, ghosts, main)


def rough(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """An approximate mask like one from registration: slightly moved, rotated, grown or shrunk, with soft outlines."""
    size = len(mask)
    ys, xs = np.nonzero(mask > 0.5)
    centre = float(xs.mean()), float(ys.mean())
    affine = np.asarray(cv2.getRotationMatrix2D(centre, rng.normal(0, 2), float(np.exp(rng.normal(0, 0.03)))), float)
    affine[:, 2] += rng.normal(0, 0.008 * size, 2)
    guess = cv2.warpAffine(mask, affine, (size, size))
    k = int(rng.integers(0, 4) * size / 256)
    if k and rng.random() < 0.6:
        grow = cv2.dilate if rng.random() < 0.5 else cv2.erode
        guess = grow(guess, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * k + 1, 2 * k + 1)))
    if rng.random() < 0.3:  # small holes are often not in the label
        k = 2 * int(0.03 * size) + 1
        guess = cv2.morphologyEx(guess, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)))
    return cv2.GaussianBlur(guess, (0, 0), size / 256 * rng.uniform(0.3, 3))


def filled_box(prompt: Prompt, size: int) -> np.ndarray:
    """The box of a prompt as mask logits, float32 (size/4, size/4)."""
    logits = np.full((size // 4, size // 4), -LOGIT, np.float32)
    (left, top), (right, bottom) = np.rint(prompt.points[:2] / 4).astype(int)
    logits[top:bottom, left:right] = LOGIT
    return logits


def ask(rng: np.random.Generator, mask: np.ndarray, size: int, kind: str) -> Prompt:
    """A prompt for an object, like those of the workflow and of people.

    Args:
        mask: float32 (size, size) of the target object.
        size: Side of the model's input in px.
        kind: "box"; "filled" (the box, given as a mask too); "point" (one inside, where there is room for it, else the
            box); "guess" (box, points and a rough mask, as from registration); "wide" (a box with much else in it, as
            where registration fails).
    """
    if kind == "wide":
        reach = int(size * rng.uniform(0.05, 0.4))
        wide = cv2.dilate((mask > 0.5).astype(np.float32), np.ones((2 * reach + 1, 2 * reach + 1)))
        return make_prompt(wide, size, rng, registered=False)
    if kind == "guess":
        return make_prompt(rough(rng, mask), size, rng)
    prompt = make_prompt(mask, size, rng)
    prompt.mask = filled_box(prompt, size) if kind == "filled" else None
    if kind == "point" and prompt.labels[2] != NOT_A_POINT:
        prompt.labels[[0, 1, 3]] = NOT_A_POINT
    else:
        prompt.labels[2:] = NOT_A_POINT
    return prompt


@dataclass(frozen=True)
class SceneBatch:
    """Scenes and their prompts.

    Attributes:
        images: uint8 (scenes, size, size, 3).
        owner: int64 (prompts,), the scene of each prompt.
        prompts: The prompts.
        truth: float32 (prompts, size/2, size/2) in [0, 1]; zeros if the object is not in the picture.
        present: float32 (prompts,) in {0, 1}.
    """

    images: np.ndarray
    owner: np.ndarray
    prompts: list[Prompt]
    truth: np.ndarray
    present: np.ndarray


def scene_batch(
    seed: int,
    step: int,
    photos: Sequence[np.ndarray],
    scenes: int,
    prompts: int,
    size: int,
    kinds: Sequence[str] = KINDS,
) -> SceneBatch:
    """The batch of one step: ``scenes`` pictures with ``prompts`` prompts each; the same for the same arguments.

    One prompt in eight is for an object that is not there. The first is for the main object, if there is one; only that
    can get a "wide" box, others get a close one.
    """
    rng = np.random.default_rng([seed, step])
    images: list[np.ndarray] = []
    owner, asked, truth, present = [], [], [], []
    while len(images) < scenes:
        scene = render_scene(rng, photos, size)
        if not scene.masks:
            continue
        for number in range(prompts):
            absent = bool(scene.ghosts) and rng.random() < 1 / 8
            if absent:
                mask, main = scene.ghosts[rng.integers(len(scene.ghosts))], False
            else:
                pick = scene.main if number == 0 and scene.main is not None else int(rng.integers(len(scene.masks)))
                mask, main = scene.masks[pick], pick == scene.main
            kind = kinds[int(rng.integers(len(kinds)))]
            asked.append(ask(rng, mask, size, "box" if kind == "wide" and not main else kind))
            small = cv2.resize(mask, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
            truth.append(np.zeros_like(small) if absent else small)
            present.append(not absent)
            owner.append(len(images))
        images.append(scene.image)
    return SceneBatch(np.stack(images), np.array(owner), asked, np.stack(truth), np.array(present, np.float32))


def contact_sheet(photos: Sequence[np.ndarray], seed: int, size: int = 192) -> np.ndarray:
    """A sheet of sixteen training scenes, each next to three of its prompts and true masks; uint8 RGB.

    Green: the truth. Red: the box of an object that is there, magenta: of one that is not. Yellow and blue: a point
    inside and outside. In the corner: the rough mask, if it is a part of the prompt.
    """
    batch = scene_batch(seed, 0, photos, 16, 3, size)
    rows = [[image] for image in batch.images]
    for scene, prompt, truth, present in zip(batch.owner, batch.prompts, batch.truth, batch.present, strict=True):
        view = batch.images[scene].copy()
        inside = cv2.resize(truth, (size, size)) >= 0.5
        view[inside] = view[inside] // 2 + np.array([0, 127, 0], np.uint8)
        if prompt.mask is not None:
            corner = (cv2.resize(prompt.mask, (size // 4, size // 4)) > 0).astype(np.uint8) * 255
            view[: size // 4, : size // 4] = corner[..., None]
        places = [tuple(int(v) for v in point) for point in prompt.points]
        if prompt.labels[0] != NOT_A_POINT:
            cv2.rectangle(view, places[0], places[1], (255, 0, 0) if present else (255, 0, 255), 1)
        for row, colour in ((2, (255, 255, 0)), (3, (0, 0, 255))):
            if prompt.labels[row] != NOT_A_POINT:
                cv2.circle(view, places[row], 3, colour, -1)
        rows[scene].append(view)
    strips = [np.hstack(row) for row in rows]
    return np.vstack([np.hstack(pair) for pair in zip(strips[::2], strips[1::2], strict=True)])
