"""Photographs of an uneven part before a busy ground, with its outline: what the checks of outlines are tried on."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (240, 200)  # width, height
TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def blob(rng: np.random.Generator, size=SIZE, centre=(0.6, 0.55), reach=0.3) -> np.ndarray:
    """An uneven closed outline, float (n, 2), right of and below the middle."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 1 + sum(rng.uniform(0.1, 0.2) * np.cos(k * angles + rng.uniform(0, 6)) for k in (1, 2, 3, 5))
    radius *= reach * min(size) / radius.max()
    middle = np.array(centre) * size + rng.uniform(-6, 6, 2)
    return middle + radius[:, None] * np.stack([np.cos(angles) * 1.3, np.sin(angles)], 1)


def mask_of(points: np.ndarray, size=SIZE) -> np.ndarray:
    mask = np.zeros(size[::-1], np.uint8)
    return cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1).astype(bool)


def photograph(rng: np.random.Generator, points: np.ndarray, size=SIZE) -> np.ndarray:
    """uint8 RGB: boxes and stripes, the part before them."""
    image = np.full((size[1], size[0], 3), rng.integers(60, 120), np.uint8)
    for _ in range(14):
        corner = rng.integers(0, size)
        colour = rng.integers(20, 200, 3).tolist()
        cv2.rectangle(image, corner.tolist(), (corner + rng.integers(10, 60, 2)).tolist(), colour, -1)
    image[mask_of(points, size)] = rng.integers(170, 230, 3)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def make(
    root: Path, count: int = 6, seed: int = 0, orientations=(), size=SIZE, **place
) -> tuple[dict, list[np.ndarray]]:
    """Write images/ and labels.csv; return the COCO dict with right outlines, and these outlines."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    images, annotations, outlines = [], [], []
    for k in range(count):
        points = blob(rng, size, **place)
        picture = Image.fromarray(photograph(rng, points, size))
        orientation = orientations[k] if k < len(orientations) else 1
        if orientation != 1:
            picture = picture.transpose(TO_STORED[orientation])
        exif = picture.getexif()
        exif[0x112] = orientation
        picture.save(root / "images" / f"{k}.png", exif=exif)
        images.append({"id": k + 1, "file_name": f"{k}.png", "width": size[0], "height": size[1]})
        outlines.append(points)
        annotations.append(annotation(k + 1, points))
    (root / "labels.csv").write_text("filename,label\n" + "".join(f"{k}.png,0\n" for k in range(count)))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "part"}]}
    write(root, coco)
    return coco, outlines


def annotation(number: int, points: np.ndarray) -> dict:
    (x, y), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    box = {"bbox": [x, y, right - x, bottom - y]}
    return {"id": number, "image_id": number, "category_id": 1, "segmentation": [points.ravel().tolist()]} | box


def write(root: Path, coco: dict) -> None:
    (root / "annotations.json").write_text(json.dumps(coco))


def stored(points: np.ndarray, orientation: int, size=SIZE) -> np.ndarray:
    """Points of the upright picture in the frame of the pixels as stored."""
    (x, y), (w, h) = points.T, size
    frames = {1: (x, y), 2: (w - x, y), 3: (w - x, h - y), 4: (x, h - y)}
    frames |= {5: (y, x), 6: (y, w - x), 7: (h - y, w - x), 8: (h - y, x)}
    return np.stack(frames[orientation], 1)
