"""Training images for `pretrain_backbone`: crops of photographs and rendered textures, with variations typical of
inspection photos.

Every function draws from the generator that it is given, so the seed and the step fix the batch.
Images are uint8 RGB of shape (size, size, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from tqdm import tqdm

from defectflow.core.files import UserError
from defectflow.images.read_write import read_rgb
from defectflow.listing.image_names import is_image


def load_pool(folder: str | Path, seed: int, max_short: int = 384) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read all photographs below `folder` and hold out a tenth of them, drawn by `seed` from the sorted names.

    Returns:
        (training, held out), uint8 RGB (height, width, 3), short side at most `max_short` px.

    Raises:
        UserError: Fewer than two readable photographs.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if is_image(p.name))
    if len(paths) < 2:
        raise UserError(f"{folder}: a pool needs at least two photographs")
    photos = []
    for path in tqdm(paths, desc="pool", unit="image"):
        photo = read_rgb(path)
        scale = max_short / min(photo.shape[:2])
        if scale < 1:
            photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photos.append(photo)
    order = np.random.default_rng(seed).permutation(len(photos))
    held = max(1, len(photos) // 10)
    return [photos[i] for i in order[held:]], [photos[i] for i in order[:held]]


def noise(rng: np.random.Generator, size: int, cells: tuple[int, int], flags: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Smooth random field in [0, 1] with `cells` = (rows, columns) independent values, float32 (size, size)."""
    field = cv2.resize(rng.random(cells, dtype=np.float32), (size, size), interpolation=flags)
    return np.clip(field, 0, 1)


def rotated_grid(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates rotated by a random angle, two float32 (size, size)."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rendered surface: clouds, grain, brushed metal, gratings, checks or weave between two colours, unevenly lit."""
    kind = rng.integers(6)
    if kind == 0:
        octaves = [2**k for k in range(2, 8)]
        weights = rng.random(len(octaves)) ** 2
        pattern = sum(w * noise(rng, size, (n, n)) for w, n in zip(weights, octaves, strict=True)) / weights.sum()
    elif kind == 1:
        pattern = noise(rng, size, (size // int(rng.integers(1, 5)),) * 2)
    elif kind == 2:
        cells = (int(rng.integers(1, 8)), size // int(rng.integers(1, 5)))
        pattern = noise(rng, size, cells if rng.random() < 0.5 else cells[::-1])
    else:
        u, v = rotated_grid(rng, size)
        period = np.exp(rng.uniform(np.log(4), np.log(size / 2)))
        a, b = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period / rng.uniform(0.5, 2))
        pattern = (a, a * b, np.maximum(a, b))[kind - 3]
        if rng.random() < 0.5:
            pattern = np.tanh(pattern * rng.uniform(2, 20))
        pattern = pattern / 2 + 0.5
    if rng.random() < 0.5:
        pattern = pattern * (0.5 + noise(rng, size, (2, 2)))
    low, high = rng.random((2, 3)) * 255
    if rng.random() < 0.5:  # most parts are nearly grey
        low, high = low.mean() + (low - low.mean()) * 0.15, high.mean() + (high - high.mean()) * 0.15
    coloured: np.ndarray = np.clip(low + (high - low) * pattern[..., None], 0, 255).astype(np.uint8)
    return coloured


def crop(rng: np.random.Generator, photo: np.ndarray, size: int) -> np.ndarray:
    """Random crop of a quarter to the whole of a photograph (short side), at most a third out of proportion."""
    height, width = photo.shape[:2]
    short = min(height, width) * np.exp(rng.uniform(np.log(0.25), 0))
    h = int(np.clip(short * np.exp(rng.uniform(-0.15, 0.15)), 8, height))
    w = int(np.clip(short * np.exp(rng.uniform(-0.15, 0.15)), 8, width))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    flags = cv2.INTER_AREA if h > size else cv2.INTER_LINEAR
    return cv2.resize(photo[top : top + h, left : left + w], (size, size), interpolation=flags)


def quilt(rng: np.random.Generator, photo: np.ndarray, size: int) -> np.ndarray:
    """A surface of one small patch of a photograph: mirrored tiles or overlapping pieces; uint8 (size, size, 3)."""
    height, width = photo.shape[:2]
    side = int(np.clip(min(height, width) * np.exp(rng.uniform(np.log(0.06), np.log(0.4))), 16, min(height, width)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    patch = photo[top : top + side, left : left + side]
    scale = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    side = max(12, min(int(side * scale), size // 4))  # repeated at least twice each way
    patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if rng.random() < 0.4:
        double = np.vstack([np.hstack([patch, patch[:, ::-1]]), np.hstack([patch, patch[:, ::-1]])[::-1]])
        repeats = size // len(double) + 2
        dy, dx = rng.integers(len(double), size=2)
        return np.tile(double, (repeats, repeats, 1))[dy : dy + size, dx : dx + size]
    piece = max(10, side // 2)
    ramp = np.minimum(np.arange(piece) + 1, np.arange(piece)[::-1] + 1) / piece
    weight = (np.outer(ramp, ramp) ** 2).astype(np.float32)[..., None] + np.float32(1e-5)
    total = np.zeros((size + 2 * piece, size + 2 * piece, 3), np.float32)
    sums = np.zeros((*total.shape[:2], 1), np.float32)
    for y in range(0, size + piece, max(1, piece // 2)):
        for x in range(0, size + piece, max(1, piece // 2)):
            v, u = rng.integers(side - piece + 1, size=2)
            total[y : y + piece, x : x + piece] += weight * patch[v : v + piece, u : u + piece]
            sums[y : y + piece, x : x + piece] += weight
    return (total / np.maximum(sums, 1e-6))[piece // 2 :][:size, piece // 2 :][:, :size].astype(np.uint8)


def evenest(rng: np.random.Generator, photo: np.ndarray, size: int, tries: int = 24) -> np.ndarray:
    """The most uniform of a few small windows of a photograph, with the least variation of light and colour."""
    height, width = photo.shape[:2]
    found = []
    for _ in range(tries):
        side = int(max(24, min(height, width) * np.exp(rng.uniform(np.log(0.1), np.log(0.35)))))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        window = photo[top : top + side, left : left + side]
        coarse = cv2.resize(window, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32)
        found.append((float(coarse.std((0, 1)).sum()), window))
    return cv2.resize(min(found, key=lambda each: each[0])[1], (size, size), interpolation=cv2.INTER_LINEAR)


def even_surface(rng: np.random.Generator, photo: np.ndarray, size: int) -> np.ndarray:
    """A surface without an object, uint8 (size, size, 3)."""
    kind = rng.random()
    if kind < 0.5:
        return np.ascontiguousarray(quilt(rng, photo, size))
    if kind < 0.75:
        return evenest(rng, photo, size)
    if kind < 0.95:
        return texture(rng, size)
    return np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)


def shape_mask(rng: np.random.Generator, size: int) -> np.ndarray:
    """Silhouette like a part's (ellipse, rectangle, polygon, blob), sometimes with a hole; bool (size, size)."""
    mask = np.zeros((size, size), np.uint8)
    kind = rng.integers(4)
    centre = rng.uniform(0.35, 0.65, 2) * size
    axes = rng.uniform(0.2, 0.5, 2) * size
    if kind == 0:
        cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), rng.uniform(0, 180)), 1, -1)
    elif kind == 1:
        box = cv2.boxPoints((tuple(centre), tuple(2 * axes), rng.uniform(0, 180)))
        cv2.fillPoly(mask, [box.astype(np.int32)], 1)
    elif kind == 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        radii = rng.uniform(0.3, 1, len(angles))[:, None] * axes.max()
        points = centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    else:
        mask = (noise(rng, size, (4, 4)) > rng.uniform(0.35, 0.6)).astype(np.uint8)
    if rng.random() < 0.3:
        hole = rng.uniform(0.3, 0.7, 2) * size
        cv2.circle(mask, (int(hole[0]), int(hole[1])), int(rng.uniform(0.03, 0.15) * size), 0, -1)
    return mask > 0


def scratch(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw one to five scratches, dots or patches into `image`, in place."""
    size = len(image)
    for _ in range(rng.integers(1, 6)):
        colour = tuple(float(c) for c in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            colour = (colour[0],) * 3
        start = rng.uniform(0, size, 2)
        kind = rng.integers(3)
        if kind == 0:
            points = start + np.cumsum(rng.normal(0, size / 12, (rng.integers(2, 6), 2)), 0)
            width = int(rng.integers(1, 4))
            cv2.polylines(image, [points.astype(np.int32)], False, colour, width, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(image, (int(start[0]), int(start[1])), int(rng.integers(1, 8)), colour, -1, cv2.LINE_AA)
        else:
            axes = rng.uniform(2, size / 8, 2)
            cv2.ellipse(image, (tuple(start), tuple(axes), rng.uniform(0, 180)), colour, -1, cv2.LINE_AA)


def vary(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Flip, rotate, relight, recolour, blur or add noise to an image."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.3:
        image = np.rot90(image, int(rng.integers(1, 4)))
    image = np.ascontiguousarray(image)
    if rng.random() < 0.15:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    if rng.random() < 0.6:
        gamma, gain = np.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.3) + rng.normal(0, 0.05, 3))
        shift = rng.normal(0, 15)
        table = 255 * (np.arange(256)[:, None] / 255) ** gamma * gain + shift
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8).reshape(1, 256, 3))
    effect = rng.random()
    if effect < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5))
    elif effect < 0.24:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 15)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return image


def training_image(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """One training image.

    Five in six start from a photograph, the rest from a rendered texture. One in six is a part on black (the workflow
    blackens backgrounds), on a plain colour or in front of another image; a few are letterboxed.
    """

    def surface() -> np.ndarray:
        if rng.random() < 5 / 6:
            return crop(rng, photos[int(rng.integers(len(photos)))], size)
        return texture(rng, size)

    image = surface()
    if rng.random() < 0.15:
        scratch(rng, image)
    image = vary(rng, image)
    if rng.random() < 1 / 6:
        choice = rng.random()
        if choice < 0.6:
            behind = np.zeros_like(image)
        elif choice < 0.75:
            behind = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), image.shape)
        else:
            behind = surface()
        image = np.where(shape_mask(rng, size)[..., None], image, behind)
    if rng.random() < 0.05:
        bar = int(rng.uniform(0.05, 0.25) * size)
        bars = image if rng.random() < 0.5 else image.transpose(1, 0, 2)
        bars[:bar] = bars[size - bar :] = 0
    return image


def training_batch(seed: int, step: int, photos: Sequence[np.ndarray], count: int, size: int) -> np.ndarray:
    """The batch of one step, uint8 (count, size, size, 3); the same for the same arguments."""
    rng = np.random.default_rng([seed, step])
    return np.stack([training_image(rng, photos, size) for _ in range(count)])


def retake(rng: np.random.Generator, square: np.ndarray, size: int, damaged: bool) -> np.ndarray:
    """Another shot of a scene: shifted by up to the margin of `square` over `size`, relit, grainy, damaged or not."""
    top, left = rng.integers(0, len(square) - size + 1, 2)
    image = square[top : top + size, left : left + size].copy()
    if damaged:
        scratch(rng, image)
    image = image * np.exp(rng.normal(0, 0.05)) + rng.standard_normal(image.shape, dtype=np.float32) * 3
    shot: np.ndarray = np.clip(image, 0, 255).astype(np.uint8)
    return shot


def centre_squares(photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Central square of each photograph, resized; uint8 (n, size, size, 3)."""
    squares = []
    for photo in photos:
        height, width = photo.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = photo[top : top + side, left : left + side]
        squares.append(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))
    return np.stack(squares)


def to_input(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W), ImageNet-normalised, channels last."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_DEFAULT_STD, device=device).view(3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
