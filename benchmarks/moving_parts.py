"""Masks of parts in any position and orientation, where registration fails: SAM against both baselines.

Renders data sets of one part each (random outline and surface, turned by any angle, 0.35 to 0.75 of the frame wide,
over clutter that changes from picture to picture), runs the workflow up to the fine-tuning, which judges SAM and the
baselines on groups held out, and prints the IoU of each.

    python benchmarks/moving_parts.py                                    # 2 parts, textures for surfaces
    python benchmarks/moving_parts.py --parts 5 --pool FOLDER            # surfaces and backgrounds from photographs
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.pretraining.rendered_scenes import light_up, photographed, surface
from defectflow.pretraining.silhouettes import CANVAS, placed, silhouette
from defectflow.pretraining.training_images import load_pool, texture

ROOT = Path(__file__).parents[1]


def picture(rng, photos, size, outline, material):
    """One picture of the part, uint8 RGB, and its mask, bool."""
    image = surface(rng, photos, size)
    for _ in range(rng.integers(2, 7)):
        clutter = placed(rng, size, (0.08, 0.5))
        image += clutter[..., None] * (light_up(rng, surface(rng, photos, size), clutter, size) - image)
    scale = size * rng.uniform(0.35, 0.75) / CANVAS
    turn = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), rng.uniform(0, 360), scale)
    turn[:, 2] += rng.uniform(0.35, 0.65, 2) * size - CANVAS / 2
    alpha = cv2.warpAffine(outline, turn, (size, size))
    skin = cv2.warpAffine(material, turn, (size, size), borderMode=cv2.BORDER_REFLECT)
    image += alpha[..., None] * (light_up(rng, skin, alpha, size) - image)
    return photographed(rng, image), alpha >= 0.5


def run_lengths(mask):
    """COCO run-length encoding of a mask."""
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return encoded | {"counts": encoded["counts"].decode()}


def write_set(folder, photos, seed, views, groups, size):
    """A data set of one part: images/, annotations.json and labels.csv."""
    rng = np.random.default_rng([seed, 77])
    while True:  # until the part is large enough
        outline = silhouette(rng).astype(np.float32)
        if 0.15 < outline.mean() < 0.7:
            break
    outline = cv2.GaussianBlur(outline, (0, 0), 0.7)
    material = surface(rng, photos, CANVAS)
    (folder / "images").mkdir(parents=True)
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "part"}]}
    labels = ["filename,label,group"]
    for k in range(views):
        image, mask = picture(rng, photos, size, outline, material)
        name = f"{k:03d}.jpg"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
        ys, xs = np.nonzero(mask)
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        coco["images"].append({"id": k, "file_name": name, "width": size, "height": size})
        coco["annotations"].append(
            {"id": k, "image_id": k, "category_id": 1, "bbox": box, "area": int(mask.sum()), "iscrowd": 0,
             "segmentation": run_lengths(mask)}
        )  # fmt: skip
        labels.append(f"{name},0,g{k * groups // views}")
    (folder / "annotations.json").write_text(json.dumps(coco))
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")


def main():
    """Render, run, print."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--parts", type=int, default=2, help="data sets, one part each")
    cli.add_argument("--views", type=int, default=57, help="pictures of a part")
    cli.add_argument("--groups", type=int, default=6, help="groups that stay together when held out")
    cli.add_argument("--size", type=int, default=512, help="side of a picture in px")
    cli.add_argument("--pool", help="photographs for surfaces and backgrounds; the tenth that no pre-training saw")
    cli.add_argument("--segmenter", default="sam2.1-nano", help="entry of segmenters in config.yaml")
    cli.add_argument("--options", nargs="*", default=[], help="KEY=VALUE for that entry")
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--keep", help="folder for the rendered sets and results; else a temporary one")
    args = cli.parse_args()
    cv2.setNumThreads(1)
    photos = [texture(np.random.default_rng([5, k]), 384) for k in range(60)]
    if args.pool:
        photos = load_pool(args.pool, 0)[1]
    print("| part | SAM | appearance | template | constant | used | time |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for part in range(args.parts):
            work = Path(args.keep or name).resolve() / f"part{part}"
            if not (work / "data").exists():
                write_set(work / "data", photos, args.seed + part, args.views, args.groups, args.size)
            options = ", ".join(f"{key}: {value}" for key, value in (o.split("=") for o in args.options))
            target = f"results/part/{args.segmenter}/train.json"
            (work / target).unlink(missing_ok=True)
            began = time.monotonic()
            run = subprocess.run(
                [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", work, "--cores",
                 str(os.cpu_count()), "--configfile", ROOT / "config.yaml", "--quiet", "all", "--config",
                 "dataset=part", f"datasets={{part: {{path: {work / 'data'}}}}}", f"segmenter={args.segmenter}",
                 f"segmenters={{{args.segmenter}: {{{options}}}}}", "--", target],
                capture_output=True, text=True,
            )  # fmt: skip
            if run.returncode:
                sys.exit(run.stderr[-3000:])
            found = json.loads((work / target).read_text())
            names = ("sam2.1", "appearance", "template", "constant")
            told = " | ".join(f"{found[k]['iou_mean']:.3f}" if k in found else "-" for k in names)
            print(f"| {part} | {told} | {found['use']} | {time.monotonic() - began:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
