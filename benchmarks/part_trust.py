"""How far the trust of a part found without outlines can be trusted: sets with known masks, found and judged.

Sets are rendered (one part of one material in a station, fixed or free, before a background that changes or not, and
surfaces without a part), or photographs with known masks that lie side by side in a folder (--photographs: it holds
index.csv with columns file, mask, objects). Writes the signs and the true IoU of each set, and what
`finding.self_check` says of sound and wrong ones.

    python benchmarks/part_trust.py --pool PHOTOGRAPHS [--photographs FOLDER] --out trust.csv
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from defectflow.finding import self_check
from defectflow.finding.choice import find
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.parts.figure_ground import FigureGround
from defectflow.parts.patch_finder import GRID, SIDE, embedder, patches
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.rendered_scenes import light_up, photographed, surface
from defectflow.pretraining.silhouettes import CANVAS, placed, silhouette

PHOTOGRAPHS = 6  # of a set
SOUND, WRONG = 0.7, 0.6  # mean IoU from which masks are called right, and below which wrong


def rendered(rng: np.random.Generator, photos: list[np.ndarray]) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """A set of pictures of one part with their masks, and what kind of set it is."""
    kind = rng.choice(["station", "station", "table", "table", "heap", "surface"])
    shape = np.float32(silhouette(rng))
    material, second = surface(rng, photos, CANVAS), surface(rng, photos, CANVAS)
    half = cv2.GaussianBlur(np.float32(silhouette(rng)), (0, 0), 1)[..., None] * (rng.random() < 0.4)
    material = light_up(rng, material * (1 - half) + second * half, shape, CANVAS)
    backdrop = surface(rng, photos, SIDE)
    if kind == "table":
        quiet = cv2.GaussianBlur(backdrop, (0, 0), SIDE * rng.uniform(0.01, 0.1))
        backdrop = quiet + rng.uniform(0, 0.4) * (backdrop - quiet)
    extent, turns = rng.uniform(0.3, 1.1), kind != "station"
    clamp = placed(rng, SIDE, (0.3, 0.9)) if kind == "station" else np.zeros((SIDE, SIDE), np.float32)
    steel = surface(rng, photos, SIDE)
    images, masks = [], []
    for _ in range(PHOTOGRAPHS):
        image = backdrop.copy()
        if kind == "station" and rng.random() < 0.9:
            image = surface(rng, photos, SIDE)
        if kind == "surface":
            x, y = rng.integers(0, SIDE // 4, 2)
            image = cv2.resize(backdrop[y : y + 3 * SIDE // 4, x : x + 3 * SIDE // 4], (SIDE, SIDE))
        if kind == "heap":
            for _ in range(rng.integers(2, 6)):
                other = placed(rng, SIDE, (0.1, 0.5))[..., None]
                image = image * (1 - other) + other * surface(rng, photos, SIDE)
        image = image * (1 - clamp[..., None]) + steel * clamp[..., None]
        angle = rng.uniform(0, 2 * np.pi) if turns else rng.normal(0, 0.03)
        scale = SIDE * extent / CANVAS * np.exp(rng.normal(0, 0.03 if turns else 0.01))
        centre = SIDE * (0.5 + rng.normal(0, 0.08 if turns else 0.015, 2))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        affine = np.hstack([turn, (centre - turn @ np.array([CANVAS / 2] * 2))[:, None]])
        alpha, thing = (cv2.warpAffine(a, affine, (SIDE, SIDE)) for a in (shape, np.float32(material)))
        if kind != "surface":
            image = image * (1 - alpha[..., None]) + alpha[..., None] * thing
        images.append(photographed(rng, image))
        masks.append(alpha > 0.5 if kind != "surface" else np.zeros((SIDE, SIDE), bool))
    return kind, images, masks


def photographed_sets(
    folder: Path, rng: np.random.Generator
) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray]]]:
    """Sets of photographs with one thing that follow each other in a folder, by source in turn."""
    with open(folder / "index.csv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["figure"] == "yes"]
    by_source: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["objects"] == "1" or row["file"].startswith("clothing"):
            by_source.setdefault(row["file"].split("/")[0], []).append(row)
    while True:
        for name, found in sorted(by_source.items()):
            start = int(rng.integers(0, max(1, len(found) - PHOTOGRAPHS)))
            some = found[start : start + PHOTOGRAPHS]
            images = [to_square(read_rgb(folder / row["file"]), SIDE) for row in some]
            masks = [to_square(read_mask(folder / row["mask"]).astype(np.float32), SIDE) >= 0.5 for row in some]
            yield name, images, masks


def judged(images: list[np.ndarray], masks: list[np.ndarray], embed, ground: FigureGround) -> dict[str, float]:
    """Signs of what was found in a set, and its mean true IoU."""
    told = ground.predict(images)
    figure = np.stack([cv2.resize(t.probability, (GRID, GRID), interpolation=cv2.INTER_AREA) for t in told])
    doubt = float(np.mean([(t.doubt * t.probability).sum() / (t.probability.sum() + 1e-6) for t in told]))
    found = find(images, [patches(image, embed) for image in images], figure, doubt, True, 0)
    found.signs["surface"] = float(np.median([t.surface for t in told]))
    right = [iou(m, t) if t.any() else 0.0 for m, t in zip(found.masks, masks, strict=True)]
    head = [iou(f >= 0.5, to_square(np.float32(t), GRID) >= 0.5) for f, t in zip(figure, masks, strict=True)]
    return {"iou": float(np.mean(right)), "head_iou": float(np.mean(head)), "map": found.chosen} | found.signs


def tell(rows: list[dict]) -> None:
    """Print what the check says of wrong and of sound sets, and each sign of them."""
    signs = [{key: float(value) for key, value in row.items() if key not in ("kind", "map")} for row in rows]
    trust = np.array([self_check.judge(each).trust for each in signs])
    right = np.array([each["iou"] for each in signs])
    wrong, sound = right < WRONG, right >= SOUND
    for limit in (0.4, 0.5, 0.6, 0.7):
        told, doubted = np.mean(trust[wrong] < limit), np.mean(trust[sound] < limit)
        print(f"trust below {limit}: {told:.2f} of {wrong.sum()} wrong sets, {doubted:.2f} of {sound.sum()} sound ones")
    for name in self_check.SIGNS:
        values = np.array([each[name] for each in signs])
        print(f"{name}: wrong {np.quantile(values[wrong], [0.1, 0.5, 0.9]).round(2)}, "
              f"sound {np.quantile(values[sound], [0.1, 0.5, 0.9]).round(2)}")  # fmt: skip


def main() -> None:
    """Find and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, help="photographs that surfaces are made of")
    parser.add_argument("--photographs", type=Path, help="photographs with known masks")
    parser.add_argument("--sets", type=int, default=24, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judge-only", action="store_true", help="only judge what --out holds")
    args = parser.parse_args()
    if not args.judge_only:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        rng = np.random.default_rng(args.seed)
        photos = [read_rgb(p) for p in sorted(args.pool.iterdir())[:80]]
        embed, ground = embedder(), FigureGround.load()
        real = photographed_sets(args.photographs, rng) if args.photographs else None
        new = not args.out.exists()
        with open(args.out, "a", encoding="utf-8", newline="") as stream:
            table = None
            for number in range(args.sets):
                sets = [rendered(rng, photos)] + ([next(real)] if real else [])
                for kind, images, masks in sets:
                    if 0 < np.mean([m.mean() for m in masks]) < 0.003:
                        continue
                    row = {"kind": kind} | judged(images, masks, embed, ground)
                    table = table or csv.DictWriter(stream, list(row))
                    if new:
                        table.writeheader()
                        new = False
                    table.writerow(row)
                    stream.flush()
                    print(number, row, file=sys.stderr, flush=True)
    with open(args.out, encoding="utf-8") as stream:
        tell(list(csv.DictReader(stream)))


if __name__ == "__main__":
    main()
