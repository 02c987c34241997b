"""What backbones find on many rendered inspection sets: one part and one camera each, sound, scratched or blemished.

    python benchmarks/rendered_parts.py --pool FOLDER --backbones patch-nano resnet18.tv_in1k=resnet18.safetensors
    python benchmarks/rendered_parts.py --pool FOLDER --size 1024 --share 0.7 --isolations zero_out crop tight

Each set draws a part (outline, surface out of a photograph that no pre-training saw, or a texture) and a camera: how
far the part moves and turns, how the light changes, grain and focus. The bank holds all patches of 12 sound pictures,
isolated with the true mask as the workflow isolates them (entries of config.yaml); 8 others and 8 of each kind
of damage are scored by their farthest patch. Printed: the mean over the sets of the AUROC, and of its difference to the
first line, with a 95 % bootstrap interval over the sets. Sets 0 to 99 are for choosing, those from 1000 on for testing.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.backbones.network_input import object_cells
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core.parallel import in_threads
from defectflow.images.read_write import letterbox, write_png
from defectflow.isolation.crop_and_background import crop_window, cut, isolate, isolate_part
from defectflow.isolation.settings import IsolationSettings
from defectflow.metrics.metrics import auroc
from defectflow.pretraining.rendered_scenes import surface
from defectflow.pretraining.silhouettes import CANVAS, silhouette
from defectflow.pretraining.training_images import crop, load_pool, noise, scratch
from defectflow.search.nearest_neighbours import Neighbours

LEARNED, SOUND, BAD = 12, 8, 8  # pictures in the bank, sound ones scored, scored ones of each kind of damage
MARGIN = 0.03  # of the part's box, on each side of the window that crop cuts out
TIGHT = 640  # side of the square of the isolation tight, as in config.yaml
DILATION = 4  # pixels by which the part is enlarged before its cells are chosen, as in the features stage


def blemish(rng: np.random.Generator, image: np.ndarray, photos: list[np.ndarray]) -> None:
    """One or two spots of another material, of blur, light, shifted texture or grain, in ``image``, in place."""
    size = len(image)
    for _ in range(rng.integers(1, 3)):
        radius, angle, stretch = rng.uniform(4, size / 7), rng.uniform(0, np.pi), np.exp(rng.uniform(-1, 1))
        centre = rng.uniform(radius, size - radius, 2)
        y, x = np.mgrid[:size, :size]
        u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
        distance = np.hypot(u / (radius * stretch), v / (radius / stretch))
        distance += (noise(rng, size, (size // 12,) * 2) - 0.5) * rng.uniform(0, 1)
        alpha = np.clip((1 - distance) * rng.uniform(1, 8), 0, 1)[..., None] * rng.uniform(0.3, 1)
        kind = rng.integers(5)
        if kind == 0:
            other = crop(rng, photos[rng.integers(len(photos))], size)
        elif kind == 1:
            other = cv2.GaussianBlur(image, (0, 0), rng.uniform(1.5, 6))
        elif kind == 2:
            other = image * np.exp(rng.normal(0, 0.5)) + rng.normal(0, 20, 3)
        elif kind == 3:
            other = np.roll(image, rng.integers(3, 20, 2), (0, 1))
        else:
            other = image + rng.standard_normal(image.shape) * rng.uniform(8, 40)
        image[:] = np.clip(image + alpha * (other - image.astype(float)), 0, 255)


class Part:
    """One part before one camera; every picture is drawn from the part's generator.

    Args:
        seed: of the part and the camera.
        photos: for its surface, uint8 RGB.
        size: side of a picture in pixels.
        share: how large the part is; 1 nearly fills the frame.
    """

    def __init__(self, seed: int, photos: list[np.ndarray], size: int, share: float) -> None:
        self._photos, self._rng, self._size = photos, np.random.default_rng([seed, 4242]), size
        rng = self._rng
        outline = silhouette(rng)
        while not 0.2 < outline.mean() < 0.7:  # until the part has a sensible size
            outline = silhouette(rng)
        self._outline = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 0.7)
        self._surface = surface(rng, photos, CANVAS).astype(np.uint8)
        self._scale, self._angle = share * rng.uniform(0.6, 0.95) * size / CANVAS, rng.uniform(0, 360)
        self._turn, self._shift = rng.uniform(0.3, 3), rng.uniform(0.003, 0.02) * size  # degrees, pixels
        self._gain, self._shade = rng.uniform(0.03, 0.2), rng.uniform(0.02, 0.2)  # of the logarithm of the light
        self._grain, self._focus = rng.uniform(1, 5), rng.uniform(0, 0.8)  # grey levels, pixels
        depth = cv2.GaussianBlur(self._outline, (0, 0), rng.uniform(4, 14))
        self._relief = 1 + rng.uniform(-0.4, 0.4) * (1 - depth)[..., None]  # lighter or darker towards the edge

    def picture(self, damage: str = "") -> tuple[np.ndarray, np.ndarray]:
        """The isolated part, uint8 RGB (size, size, 3), and its mask; ``damage``: "", "scratch" or "blemish"."""
        rng, size, skin = self._rng, self._size, self._surface.copy()
        if damage:
            places = np.argwhere(self._outline > 0.9)
            half = CANVAS // 6
            top, left = np.clip(places[rng.integers(len(places))] - half, 0, CANVAS - 2 * half)
            spot = skin[top : top + 2 * half, left : left + 2 * half].copy()
            if damage == "scratch":
                scratch(rng, spot)
            else:
                blemish(rng, spot, self._photos)
            skin[top : top + 2 * half, left : left + 2 * half] = spot
        scale = self._scale * np.exp(rng.normal(0, 0.005))
        pose = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), self._angle + rng.normal(0, self._turn), scale)
        pose[:, 2] += (size - CANVAS) / 2 + rng.normal(0, self._shift, 2)
        mask = cv2.warpAffine(self._outline, pose, (size, size)) >= 0.5
        image = cv2.warpAffine(skin * self._relief, pose, (size, size), borderMode=cv2.BORDER_REFLECT)
        if self._focus > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self._focus * rng.uniform(0.7, 1.3))
        shade = (2 * noise(rng, size, (2, 3)) - 1) * rng.normal(0, self._shade)
        image *= np.exp(rng.normal(0, self._gain) + shade[..., None] + rng.normal(0, 0.01, 3))
        image += rng.standard_normal(image.shape) * self._grain
        return isolate(np.clip(image, 0, 255).astype(np.uint8), mask, "zero", ["brightness"], 0), mask


def patches(embedder: PatchEmbedder, image: np.ndarray, mask: np.ndarray, side: int) -> torch.Tensor:
    """Patches of the part, float32 (n, d), of a picture fitted into a square of ``side`` pixels."""
    image, mask = (letterbox(x, (side, side))[0] for x in (image, mask.astype(np.uint8) * 255))
    embedding = embedder(image[None])[0]
    cells = np.flatnonzero(object_cells(mask >= 128, tuple(embedding.shape[:2]), DILATION))
    return embedding.flatten(0, 1)[torch.from_numpy(cells)]


def cropped(pictures: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Windows around the part, all of one size, which the training pictures decide."""
    boxes = np.array([cv2.boundingRect(mask.astype(np.uint8)) for _, mask in pictures[:LEARNED]])
    size = tuple(np.ceil(boxes[:, 2:].max(axis=0) * (1 + 2 * MARGIN)).astype(int).tolist())
    windows = [crop_window(mask, size, (0, 0)) for _, mask in pictures]
    return [(cut(image, w), cut(mask, w)) for (image, mask), w in zip(pictures, windows, strict=True)]


def squared(pictures: list[tuple[np.ndarray, np.ndarray]], upright: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each part cut to its own box, at one size, turned upright where that is asked."""
    how = IsolationSettings(background="zero", tight=TIGHT, upright=upright, margin=MARGIN)
    return [isolate_part(image, mask, how)[:2] for image, mask in pictures]


ISOLATIONS = {
    "zero_out": lambda pictures: pictures,
    "crop": cropped,
    "tight": lambda pictures: squared(pictures, upright=False),
    "tight_upright": lambda pictures: squared(pictures, upright=True),
}


def main() -> None:
    """Render, score, print."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--pool", required=True, help="photographs for surfaces; only the held-out tenth is used")
    cli.add_argument("--backbones", nargs="+", default=["patch-nano"], help="name, or name=file of weights")
    cli.add_argument("--sides", type=int, nargs="+", default=[512], help="of the network's input in pixels")
    cli.add_argument("--isolations", nargs="+", choices=[*ISOLATIONS], default=["zero_out"])
    cli.add_argument("--size", type=int, default=512, help="side of a picture in pixels")
    cli.add_argument("--share", type=float, default=1, help="size of the part; 1 nearly fills the frame")
    cli.add_argument("--sets", type=int, default=24)
    cli.add_argument("--seed", type=int, default=0, help="of the first set")
    cli.add_argument("--threads", type=int, default=2)
    cli.add_argument("--pictures", type=Path, help="folder for a strip of pictures of each set")
    args = cli.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    _, photos = load_pool(args.pool, 0)
    files = dict(backbone.partition("=")[::2] for backbone in args.backbones)
    embedders = {name: PatchEmbedder(name, ["layer2", "layer3"], file or None) for name, file in files.items()}
    lines = list(product(files, args.sides, args.isolations))
    found: dict[tuple[str, int, str], list[list[float]]] = {line: [] for line in lines}
    for seed in tqdm(range(args.seed, args.seed + args.sets), desc="sets"):
        part = Part(seed, photos, args.size, args.share)
        kinds = [""] * (LEARNED + SOUND) + ["scratch"] * BAD + ["blemish"] * BAD
        pictures = [part.picture(kind) for kind in kinds]
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            strip = [pictures[k][0] for k in (0, 1, LEARNED + SOUND, -BAD - 1, -BAD, -1)]
            write_png(args.pictures / f"{seed:03d}.png", np.hstack(strip))
        isolated = {how: ISOLATIONS[how](pictures) for how in args.isolations}
        for (name, side, how), values in found.items():

            def of_part(picture: tuple, embedder: PatchEmbedder = embedders[name], side: int = side) -> torch.Tensor:
                return patches(embedder, *picture, side)

            features = list(in_threads(of_part, isolated[how]))
            bank = Neighbours(torch.cat(features[:LEARNED]))
            scores = [float(bank.nearest(f)[0].max()) for f in features[LEARNED:]]
            sound, scratched, blemished = np.split(np.array(scores), [SOUND, SOUND + BAD])
            labels = np.repeat([0, 1], [SOUND, BAD])
            values.append([auroc(labels, np.concatenate([sound, bad])) for bad in (scratched, blemished)])
    print("| backbone | side | isolation | scratched | blemished | both, less the first line [95 %] |\n|" + "---|" * 6)
    first = np.array(next(iter(found.values()))).mean(axis=1)
    drawn = np.random.default_rng(0).integers(args.sets, size=(10_000, args.sets))
    for (name, side, how), values in found.items():
        difference = np.array(values).mean(axis=1) - first
        low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
        scratched, blemished = np.mean(values, axis=0)
        told = f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"| {name} | {side} | {how} | {scratched:.3f} | {blemished:.3f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
