"""A small rendered data set in the form that the mask stages read: manifest, pairs, splits."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from defectflow.core.tables import MANIFEST, PAIRS, SPLITS, write_table
from pycocotools import mask as coco_mask

SIZE = (240, 320)


def scene(seed: int, part: bool = True, angle: float = 0, scale: float = 1, shift=(0, 0), gain: float = 1):
    """RGB picture of a textured part with an arm over clutter, and its mask."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.uniform(40, 160, (12, 16, 3)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        a, b = (tuple(int(v) for v in rng.integers(0, SIZE[::-1])) for _ in range(2))
        cv2.line(image, a, b, rng.uniform(20, 200, 3).tolist(), 2)
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (160, 125), (90, 40), 0, 0, 360, 1, -1)
    cv2.rectangle(mask, (90, 60), (120, 125), 1, -1)
    texture = np.full((*SIZE, 3), 150, np.float32)
    for x in range(60, 260, 22):
        cv2.line(texture, (x, 60), (x + 25, 180), (60, 60, 60), 4)
    turn = cv2.getRotationMatrix2D((160, 120), angle, scale)
    turn[:, 2] += shift
    mask = cv2.warpAffine(mask, turn, SIZE[::-1])
    texture = cv2.warpAffine(texture, turn, SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
    if part:
        image = np.where(mask[..., None] > 0, texture, image)
    noisy = image * gain + rng.normal(0, 2, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask > 0 if part else np.zeros(SIZE, bool)


def write_set(folder: Path, splits: list[str], groups: list[str], **last) -> Path:
    """Write manifest.csv, pairs/, pairs.csv and splits.csv; ``last`` changes the scene of the last photograph.

    splits: "train", "val" or "test" for an annotated photograph, "absent" for one that is listed and shows no part,
    "" for one without annotation. Image names are img_00, img_01, ...
    """
    rng = np.random.default_rng(5)
    manifest, pairs, rows = [], [], []
    (folder / "pairs").mkdir(parents=True)
    (folder / "images").mkdir()
    for number, (split, group) in enumerate(zip(splits, groups, strict=True)):
        name = f"img_{number:02d}"
        options = {"angle": rng.uniform(-2, 2), "shift": rng.uniform(-5, 5, 2), "part": split != "absent"}
        image, mask = scene(number, **(options | last if number == len(splits) - 1 else options))
        path = folder / "images" / f"{name}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        height, width = mask.shape
        manifest.append(dict.fromkeys(MANIFEST, "") | {"image_id": name, "path": str(path), "group": group})
        manifest[-1] |= {"width": width, "height": height}
        rows.append(dict.fromkeys(SPLITS, "") | {"image_id": name, "group": group, "detection": "unlabelled"})
        pair = dict.fromkeys(PAIRS, "") | {"image_id": name, "path": str(path), "group": group}
        pair |= {"n_annotations": 0, "area": 0}
        if split in ("train", "val", "test"):
            rows[-1]["segmentation"] = split
            pair |= {"pair": f"sa_{number + 1:06d}", "n_annotations": 1, "area": int(mask.sum())}
            cv2.imwrite(str(folder / "pairs" / f"{pair['pair']}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotation = {"id": 1, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
            annotation["area"] = int(mask.sum())
            content = {"image": {"width": width, "height": height}, "annotations": [annotation]}
            (folder / "pairs" / f"{pair['pair']}.json").write_text(json.dumps(content))
        if split:
            pairs.append(pair)
    for name, columns, table in (("manifest", MANIFEST, manifest), ("pairs", PAIRS, pairs), ("splits", SPLITS, rows)):
        write_table(folder / f"{name}.csv", pd.DataFrame(table), columns)
    return folder


def arguments(folder: Path) -> list[str]:
    """Command-line flags that prior and segment share."""
    flags = {"--pairs": "pairs", "--table": "pairs.csv", "--splits": "splits.csv"}
    return [part for flag, name in flags.items() for part in (flag, str(folder / name))]
