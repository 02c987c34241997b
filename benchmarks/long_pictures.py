"""Rendered sets of long photographs, strips of 500 x 1250 pixels with small defects, for `sets.py`.

    python benchmarks/long_pictures.py ../long
    python benchmarks/sets.py ../long
    python benchmarks/sets.py ../long --results ../square --config 'detectors={patchcore: {input_shape: square}}'

Four materials (brushed, stone, woven, rolled), each a set in the MVTec layout: good strips to learn from, other good
ones, and strips with a scratch, with dots or with a stain, and their ground truth. The light differs from strip to
strip and along each, and defects lie anywhere, also at the border.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.images.read_write import write_png

HEIGHT, WIDTH = 500, 1250
MATERIALS = ("brushed", "stone", "woven", "rolled")
DEFECTS = ("scratch", "dots", "stain")
LEARNED, SOUND, BAD = 20, 12, 8  # strips to learn from, good ones to judge, and bad ones of each kind


def noise(rng: np.random.Generator, height: float, width: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1, its grains about ``height`` x ``width`` pixels."""
    cells = (max(2, round(WIDTH / width)), max(2, round(HEIGHT / height)))
    coarse = rng.standard_normal(cells[::-1]).astype(np.float32)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (smooth - smooth.mean()) / smooth.std()


def surface(rng: np.random.Generator, material: str) -> np.ndarray:
    """A sound strip without light, float32 (height, width): the share of light that it reflects, about 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    if material == "brushed":
        return 1 + 0.06 * noise(rng, 1, 90) + 0.04 * noise(rng, 3, 300)
    if material == "stone":
        grains = [noise(rng, size, size) for size in (2, 5, 14)]
        return 1 + 0.05 * grains[0] + 0.07 * grains[1] + 0.05 * grains[2] + 0.12 * (grains[1] > 1.8)
    if material == "woven":
        angle = rng.normal(0, 0.01)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        u, v = u + 0.6 * noise(rng, 60, 60), v + 0.6 * noise(rng, 60, 60)
        over = np.sin(2 * np.pi * u / 11) * np.sin(2 * np.pi * v / 11)
        return 1 + 0.16 * over + 0.03 * noise(rng, 40, 4) + 0.03 * noise(rng, 2, 2)
    lines = np.sin(2 * np.pi * (y + 5 * noise(rng, 250, 500)) / 24)
    pores = noise(rng, 2, 7) > 2.3
    return 1 + 0.07 * lines + 0.04 * noise(rng, 2, 40) - 0.15 * pores


def damage(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A defect, float32 (height, width) from 0 (sound) to 1."""
    drawn = np.zeros((HEIGHT, WIDTH), np.float32)
    place = rng.uniform((0, 0), (WIDTH, HEIGHT))
    if kind == "scratch":
        angle, length = rng.uniform(0, np.pi), rng.uniform(40, 110)
        steps = np.linspace(-0.5, 0.5, 12)
        bend = rng.normal(0, 0.15) * length * (steps**2 - 0.08)
        along = np.stack([np.cos(angle) * steps, np.sin(angle) * steps], 1) * length
        line = place + along + bend[:, None] * (-np.sin(angle), np.cos(angle))
        cv2.polylines(
            drawn, [np.round(line * 16).astype(np.int32)], False, 1.0, int(rng.integers(2, 4)), cv2.LINE_AA, 4
        )
    elif kind == "dots":
        for _ in range(rng.integers(1, 4)):
            spot = np.round((place + rng.normal(0, 15, 2)) * 16).astype(int)
            cv2.circle(drawn, spot.tolist(), round(16 * rng.uniform(3, 6)), 1.0, -1, cv2.LINE_AA, 4)
    else:
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        radius, stretch = rng.uniform(12, 26), np.exp(rng.normal(0, 0.2))
        away = np.hypot((x - place[0]) / stretch, (y - place[1]) * stretch) / radius + 0.15 * noise(rng, 12, 12)
        drawn = np.clip((1.3 - away) * 3, 0, 1)
    return drawn if drawn.sum() > 25 else damage(rng, kind)


def strip(rng: np.random.Generator, material: str, kind: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A strip, uint8 RGB, and its ground truth, bool; ``kind`` is one of DEFECTS or ""."""
    sheet, truth = surface(rng, material), np.zeros((HEIGHT, WIDTH), bool)
    if kind:
        defect = damage(rng, kind)
        strength = {"scratch": (0.2, 0.4), "dots": (0.2, 0.4), "stain": (0.08, 0.18)}[kind]
        sheet = sheet * (1 + rng.choice([-1, 1]) * rng.uniform(*strength) * defect)
        truth = defect > 0.3
    light = np.exp(rng.normal(0, 0.05) + 0.06 * noise(rng, 400, 700))
    colour = {"brushed": (150, 152, 155), "stone": (120, 112, 105), "woven": (90, 100, 130), "rolled": (150, 115, 80)}
    picture = (sheet * light)[..., None] * np.array(colour[material]) + rng.normal(0, 2, (HEIGHT, WIDTH, 3))
    return picture.clip(0, 255).astype(np.uint8), truth


def write(folder: Path, material: str, number: int) -> None:
    """Write the set of one material in the MVTec layout."""
    parts = [("train/good", "", LEARNED), ("test/good", "", SOUND), *((f"test/{kind}", kind, BAD) for kind in DEFECTS)]
    for part, (name, kind, count) in enumerate(parts):
        for i in range(count):
            picture, truth = strip(np.random.default_rng([number, part, i]), material, kind)
            write_png(folder / name / f"{i:03}.png", picture)
            if kind:
                write_png(folder / "ground_truth" / kind / f"{i:03}_mask.png", truth)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to put the sets")
    parser.add_argument("--only", nargs="+", choices=MATERIALS, default=MATERIALS, help="materials")
    args = parser.parse_args()
    for number, material in enumerate(MATERIALS):
        if material in args.only:
            write(args.folder / material, material, number)
