"""How far the trust of a part found without outlines can be trusted: sets with known masks, found and judged.

Sets are rendered (one part of one material in a station, fixed or free, before a background that changes or not, and
surfaces without a part), or photographs with known masks that lie side by side in a folder (--photographs: it holds
index.csv with columns file, mask, objects). Writes the signs and the true IoU of each set, and what
`finding.self_check` says of sound and wrong ones.

    python benchmarks/part_trust.py --pool PHOTOGRAPHS [--photographs FOLDER] --seed 23 --out trust.csv
    python benchmarks/part_trust.py --fit --out trust.csv [--more OTHER.csv ...]
    python benchmarks/part_trust.py --judge-only --out other.csv

`--fit` prints the weights of `self_check.SIGNS`: those there come from seeds 23 to 27 and 77. Sets of other seeds tell
what they are worth.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from defectflow.demo import shop_floor
from defectflow.finding import self_check
from defectflow.finding.candidate_files import Candidates
from defectflow.finding.find_part import look
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.parts.figure_ground import FigureGround
from defectflow.parts.patch_finder import GRID, SIDE, embedder, patches
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.rendered_scenes import light_up, photographed, surface
from defectflow.pretraining.silhouettes import CANVAS, placed, silhouette
from scipy.optimize import minimize

PHOTOGRAPHS = 8  # of a set
SOUND, WRONG = 0.7, 0.6  # mean IoU from which masks are called right, and below which wrong
SENSE = {"maps": 1, "learned": 1, "doubt": -1, "head": 1}  # signs to learn from, and their direction
DECAY = 0.02


def rendered(rng: np.random.Generator, photos: list[np.ndarray]) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """A set of pictures of one part with their masks, and what kind of set it is."""
    kind = rng.choice(["station", "station", "table", "table", "heap", "floor", "floor", "surface"])
    shape = np.float32(silhouette(rng))
    material, second = surface(rng, photos, CANVAS), surface(rng, photos, CANVAS)
    half = cv2.GaussianBlur(np.float32(silhouette(rng)), (0, 0), 1)[..., None] * (rng.random() < 0.4)
    material = light_up(rng, material * (1 - half) + second * half, shape, CANVAS)
    backdrop = surface(rng, photos, SIDE)
    if kind == "table":
        quiet = cv2.GaussianBlur(backdrop, (0, 0), SIDE * rng.uniform(0.01, 0.1))
        backdrop = quiet + rng.uniform(0, 0.4) * (backdrop - quiet)
    floor = shop_floor.background(rng, SIDE, int(rng.integers(3))) if kind == "floor" else backdrop
    extent, turns = rng.uniform(0.3, 1.1), kind not in ("station", "floor")
    clamp = placed(rng, SIDE, (0.3, 0.9)) if kind == "station" else np.zeros((SIDE, SIDE), np.float32)
    steel = surface(rng, photos, SIDE)
    images, masks = [], []
    for _ in range(PHOTOGRAPHS):
        image = backdrop.copy()
        if kind == "station" and rng.random() < 0.9:
            image = surface(rng, photos, SIDE)
        if kind == "floor":
            x, y = (rng.integers(0, n - SIDE + 1) for n in (floor.shape[1], floor.shape[0]))
            image = floor[y : y + SIDE, x : x + SIDE]
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
        if row["objects"] == "1" or not row["file"].startswith("tools"):
            by_source.setdefault(row["file"].split("/")[0], []).append(row)
    while True:
        for name, found in sorted(by_source.items()):
            start = int(rng.integers(0, max(1, len(found) - PHOTOGRAPHS)))
            some = found[start : start + PHOTOGRAPHS]
            images = [to_square(read_rgb(folder / row["file"]), SIDE) for row in some]
            masks = [to_square(read_mask(folder / row["mask"]).astype(np.float32), SIDE) >= 0.5 for row in some]
            yield name, images, masks


def judged(
    images: list[np.ndarray], masks: list[np.ndarray], embed: Callable, ground: FigureGround
) -> dict[str, float | str]:
    """Signs of what was found in a set, and its mean true IoU, of masks and of the figure."""
    told = ground.predict(images)
    figure = [cv2.resize(t.probability, (GRID, GRID), interpolation=cv2.INTER_AREA) for t in told]
    doubt = [float((t.doubt * t.probability).sum() / (t.probability.sum() + 1e-6)) for t in told]
    names, sizes = [f"{k:02}" for k in range(len(images))], [(SIDE, SIDE)] * len(images)
    seen = [patches(image, embed) for image in images]
    surfaces = [float(t.surface) for t in told]
    found, shape, _ = look(Candidates(names, names, sizes, images, seen, figure, doubt, surfaces), 0)
    assert found is not None
    final = [shape.complete(mask).mask if shape is not None else mask for mask in found.masks]
    right = [iou(m, t) if t.any() else 0.0 for m, t in zip(final, masks, strict=True)]
    raw = [iou(m, t) if t.any() else 0.0 for m, t in zip(found.masks, masks, strict=True)]
    head = [iou(f >= 0.5, to_square(np.float32(t), GRID) >= 0.5) for f, t in zip(figure, masks, strict=True)]
    ious = {"iou": float(np.mean(right)), "raw_iou": float(np.mean(raw)), "head_iou": float(np.mean(head))}
    return ious | {"map": found.chosen, "looked_at": len(images)} | found.signs


def read(paths: list[Path]) -> list[dict[str, float]]:
    """The numbers of each set of some tables, those that are there twice once."""
    rows = []
    for path in paths:
        with open(path, encoding="utf-8") as stream:
            rows += [
                {k: float(v) for k, v in row.items() if k not in ("kind", "map")} for row in csv.DictReader(stream)
            ]
    return [row for k, row in enumerate(rows) if row not in rows[:k]]


def fit(rows: list[dict[str, float]]) -> None:
    """Print INTERCEPT and SIGNS of `self_check`, learned from sets that are clearly right or wrong.

    Ridge logistic regression; a weight whose sign is against sense (see `SENSE`) is 0. Surfaces and sets of nearly no
    area are told before the signs are asked, so nothing is learned from them.
    """
    kept = [r for r in rows if (r["iou"] < WRONG or r["iou"] >= SOUND) and self_check.judge(r).trust > 0]
    right = np.array([r["iou"] >= SOUND for r in kept])
    names = list(SENSE)
    x = np.array([[r[name] for name in names] for r in kept])
    middle, unit = x.mean(axis=0), x.std(axis=0)
    z = ((x - middle) / unit).clip(-self_check.LIMIT, self_check.LIMIT)
    side = np.where(right, 1.0, -1.0)
    weigh = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())  # both kinds alike, however many there are

    def loss(w: np.ndarray) -> float:
        return float(weigh @ np.logaddexp(0, -side * (z @ w[1:] + w[0])) + DECAY * w[1:] @ w[1:])

    bounds = [(None, None)] + [(0, None) if SENSE[name] > 0 else (None, 0) for name in names]
    found = minimize(loss, np.zeros(len(names) + 1), method="L-BFGS-B", bounds=bounds).x
    print(f"learned from {right.sum()} sound and {(~right).sum()} wrong sets\nINTERCEPT = {found[0]:.2f}")
    for name, m, u, weight in zip(names, middle, unit, found[1:], strict=True):
        print(f'"{name}": Sign({m:.3f}, {u:.3f}, {weight:.2f}, ...)')


def tell(rows: list[dict[str, float]]) -> None:
    """Print what the check says of wrong and of sound sets, and each sign of them."""
    trust = np.array([self_check.judge(row).trust for row in rows])
    right = np.array([row["iou"] for row in rows])
    wrong, sound = right < WRONG, right >= SOUND
    print(f"{len(rows)} sets; IoU of those that are trusted: {right[trust >= self_check.TRUSTED].round(2)}")
    for limit in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        told, doubted = np.mean(trust[wrong] < limit), np.mean(trust[sound] < limit)
        print(f"trust below {limit}: {told:.2f} of {wrong.sum()} wrong sets, {doubted:.2f} of {sound.sum()} sound ones")
    for name in (*SENSE, "head", "agreement", "edge", "spread", "rim", "area"):
        values = np.array([row[name] for row in rows])
        print(f"{name}: wrong {np.quantile(values[wrong], [0.1, 0.5, 0.9]).round(2)}, "
              f"sound {np.quantile(values[sound], [0.1, 0.5, 0.9]).round(2)}")  # fmt: skip


def main() -> None:
    """Find and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="photographs that surfaces are made of")
    parser.add_argument("--photographs", type=Path, help="photographs with known masks")
    parser.add_argument("--sets", type=int, default=24, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judge-only", action="store_true", help="only judge what --out and --more hold")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="tables of other seeds")
    parser.add_argument("--fit", action="store_true", help="learn weights from what --out and --more hold")
    args = parser.parse_args()
    if not (args.judge_only or args.fit):
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
    rows = read([args.out, *args.more])
    if args.fit:
        fit(rows)
    tell(rows)


if __name__ == "__main__":
    main()
