"""What each step from zero_out towards fixed-view inspection gains: frame, light, place, image score, resolution.

    python benchmarks/hawk.py results/hawk --backbones patch-nano resnet18.tv_in1k=resnet18.safetensors
    python benchmarks/hawk.py results/demo --steps 0 1 3 --backbones patch-nano

The folder is that of a data set in a run of the workflow with segmenter=template (targets: manifest.csv, splits.csv,
prior.safetensors, template/masks). Every labelled image is scored by the good images of the other folds, as in the
workflow, and the typical distance at a place comes from those alone (the one number that a shift costs from all).
Steps 1 to 6 are cumulative. All except 9 and 10 were fixed, constants included, before the first measurement on hawk;
those two were added after looking at its maps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.backbones.network_input import object_cells
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core import tables
from defectflow.core.anomaly_maps import SIGMA
from defectflow.core.parallel import in_threads
from defectflow.decision import chosen_threshold
from defectflow.images.read_write import letterbox, read_mask, read_rgb
from defectflow.isolation.crop_and_background import isolate
from defectflow.metrics import metrics
from defectflow.metrics.bootstrap import bootstrap
from defectflow.parts.part_model import Prior
from defectflow.parts.registration_frame import compose, frame_affine, invert, log_luminance, mask_from_frame

MARGIN = 0.03  # of the part's box, on each side of the common frame
WINDOW = 0.03  # share of the picture's longer side: a shift that costs as much as two good pictures typically differ
CLIPPED = 254  # grey level from which a pixel counts as clipped, as in pictures.py
DILATION = 4  # pixels of the network's input by which the part is enlarged, as in the features stage
MEDIAN = 90.0  # grey level of the part's median; `brightness` takes the mean to 110


@dataclass(frozen=True)
class Step:
    """Settings of one row of the table."""

    name: str
    register: bool = False  # warp the part into one frame, and take a window around it
    median: bool = False  # gain from the part's median, which clipping does not move, instead of its mean
    window: float = 0.0  # soft: place as two more coordinates of a patch; 0: place does not matter
    typical: bool = False  # distances over the mean held-out distance of good images at that place
    area: bool = False  # largest value of the smoothed map instead of the largest cell
    seeing: bool = False  # without cells of which more than half is clipped
    own: bool = False  # distances over the median distance of their own picture
    core: bool = False  # only cells at least half of which lie on the part (default: all that it touches, enlarged)
    size: int = 1  # in units of --size


def ladder() -> dict[str, Step]:
    """The steps by number; each adds one thing to the one before; from 7 on they stand alone."""
    steps = [Step("zero_out")]
    for name, change in (
        ("registered", {"register": True}),
        ("median light", {"median": True}),
        ("place", {"window": WINDOW}),
        ("typical distance", {"typical": True}),
        ("area", {"area": True}),
        ("twice the size", {"size": 2}),
    ):
        steps.append(replace(steps[-1], name=name, **change))
    steps.append(Step("zero_out, twice the size", size=2))
    steps.append(Step("zero_out, without clipped cells", seeing=True))
    steps.append(Step("zero_out, over the picture's own median", own=True))
    steps.append(Step("registered, place, core cells", register=True, window=WINDOW, core=True))
    return {str(i): step for i, step in enumerate(steps)}


class CommonFrame:
    """One frame for all photographs of a part: that of the template most like the others, cut to the part.

    Args:
        prior: of the data set.
        paths: photograph of each image_id.

    Attributes:
        size: (height, width) in pixels.
    """

    def __init__(self, prior: Prior, paths: dict[str, str]) -> None:
        self._prior, templates = prior, prior.templates
        ids = [prior.image_ids[i] for i in prior.chosen]
        coarse = templates.levels[0]
        likeness = np.zeros(len(ids))
        for field in templates.fields:
            likeness += coarse.peaks(coarse.reduced(field), [np.eye(2, 3)], range(len(ids)))[0][0]
        reference = int(likeness.argmax())
        others = np.delete(np.arange(len(ids)), reference)

        def place(index: int) -> np.ndarray | None:
            if index == reference:
                return np.eye(2, 3)
            match = templates.register(log_luminance(read_rgb(paths[ids[index]]), templates.frame), others)
            return match.affines[0] if match.score >= prior.info["score_threshold"] else None

        self._poses = list(in_threads(place, range(len(ids))))
        size = tuple(prior.info["size"])
        label = mask_from_frame(templates.labels[reference].astype(np.float32), size) >= 0.5
        x, y, width, height = cv2.boundingRect(label.astype(np.uint8))
        self.size = (round((1 + 2 * MARGIN) * height), round((1 + 2 * MARGIN) * width))
        corner = np.array([[1.0, 0, round(x - MARGIN * width)], [0, 1.0, round(y - MARGIN * height)]])
        self._to_reference = compose(invert(frame_affine(size, templates.frame)), corner)

    def affine(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """2x3, from pixels of the common frame to those of a photograph: the median over the voting templates."""
        prior = self._prior
        match = prior.register(image, prior.leave_out(image_id))
        voted = zip(match.templates, match.affines, strict=True)
        poses = [compose(affine, self._poses[i]) for i, affine in voted if self._poses[i] is not None]
        if not poses:
            sys.exit(f"{image_id}: found on no template that has a place in the common frame")
        centre = (np.array(prior.templates.frame[::-1]) - 1) / 2
        linear = np.median([pose[:, :2] for pose in poses], axis=0)
        middle = np.median([pose[:, :2] @ centre + pose[:, 2] for pose in poses], axis=0)
        pose = np.hstack([linear, (middle - linear @ centre)[:, None]])
        return compose(frame_affine(image.shape[:2], prior.templates.frame), compose(pose, self._to_reference))


def into_frame(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (uint8, or a bool mask) sampled at ``affine`` of each pixel of ``size`` (height, width); outside: 0."""
    source = image.astype(np.uint8) * 255 if image.dtype == bool else image
    result = cv2.warpAffine(source, affine, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return result >= 128 if image.dtype == bool else result


@dataclass(frozen=True)
class Patches:
    """Patches of one picture.

    Attributes:
        features: float32 (n, d).
        cell: int (n,), flat index in the grid.
        share: float (n,), share of the cell that lies on the part.
        clipped: float (n,), share of that which is clipped in the photograph.
        grid: (height, width).
    """

    features: torch.Tensor
    cell: np.ndarray
    share: np.ndarray
    clipped: np.ndarray
    grid: tuple[int, int]

    def chosen(self, step: Step) -> Patches:
        """The patches that a step uses."""
        keep = np.ones(len(self.cell), bool)
        if step.core:
            keep &= self.share >= 0.5
        if step.seeing:
            keep &= self.clipped <= 0.5
        kept = torch.from_numpy(keep)
        return Patches(self.features[kept], self.cell[keep], self.share[keep], self.clipped[keep], self.grid)


class Folder:
    """The labelled photographs of a data set, with their masks, folds and poses."""

    def __init__(self, path: Path) -> None:
        root = path.parents[1]  # paths in the tables are relative to where snakemake ran
        manifest, splits = (tables.read_table(path / f"{t}.csv", c) for t, c in
                            (("manifest", tables.MANIFEST), ("splits", tables.SPLITS)))  # fmt: skip
        files = sorted((path / "template/masks").glob("*.csv"))
        masks = pd.concat([tables.read_table(f, tables.MASKS) for f in files])
        table = splits[splits["detection"] == "fold"].merge(manifest[["image_id", "path"]], on="image_id")
        table = table.merge(masks[["image_id", "mask", "present"]], on="image_id")
        for column in ("path", "mask"):
            table[column] = [str(root / name) for name in table[column]]
        self.table = table[table["present"] == 1].sort_values("image_id").reset_index(drop=True)
        self.labels = self.table["label"].to_numpy(int)
        self._paths = {row.image_id: str(root / row.path) for row in manifest.itertuples()}
        self._prior = path / "prior.safetensors"

    @cached_property
    def affines(self) -> tuple[tuple[int, int], dict[str, np.ndarray]]:
        """Size of the common frame, and for each image where its pixels lie in the photograph."""
        frame = CommonFrame(Prior.load(self._prior), self._paths)
        ids = self.table["image_id"].tolist()
        found = in_threads(lambda i: frame.affine(read_rgb(self._paths[i]), i), ids)
        return frame.size, dict(zip(ids, found, strict=True))

    def picture(self, row, step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The isolated part, its mask, and what of it is clipped in the photograph."""
        image, mask = read_rgb(row.path), read_mask(row.mask)
        clipped = (image.max(axis=2) >= CLIPPED) & mask
        if step.median:
            gain = np.clip(MEDIAN / max(float(np.median(image[mask])), 1.0), 1 / 8, 8)
            image = np.clip(image * gain + 0.5, 0, 255).astype(np.uint8)
        image = isolate(image, mask, "zero", ["none" if step.median else "brightness"], 0)
        if step.register:
            size, affines = self.affines
            image, mask, clipped = (into_frame(x, affines[row.image_id], size) for x in (image, mask, clipped))
        return image, mask, clipped

    def patches(self, embedder: PatchEmbedder, step: Step, size: int) -> list[Patches]:
        """Patches of every labelled image, fitted into a square of ``size`` pixels."""

        def one(row) -> Patches:
            picture, mask, clipped = (letterbox(x, (size, size))[0] for x in self.picture(row, step))
            embedding = embedder(picture[None])[0]
            grid = tuple(embedding.shape[:2])
            cells = np.flatnonzero(object_cells(mask > 0, grid, DILATION))
            share, blind = (
                cv2.resize((x > 0).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA).ravel()[cells]
                for x in (mask, clipped)
            )
            kept = embedding.flatten(0, 1)[torch.from_numpy(cells)]
            return Patches(kept, cells, share, blind / np.maximum(share, 1e-6), grid)

        return list(in_threads(one, list(self.table.itertuples())))


def with_place(images: list[Patches], good: Sequence[int], window: float) -> list[torch.Tensor]:
    """Features with the place appended: a shift by ``window`` costs as much as good images differ in one place."""
    apart = []
    for a, b in pairwise(good):
        _, of_a, of_b = np.intersect1d(images[a].cell, images[b].cell, return_indices=True)
        apart.append(torch.linalg.vector_norm(images[a].features[of_a] - images[b].features[of_b], dim=1))
    unit = float(torch.cat(apart).median()) / (window * max(images[0].grid))
    places = [np.stack(np.divmod(image.cell, image.grid[1]), axis=1) * unit for image in images]
    return [torch.cat([i.features, torch.from_numpy(p).float()], dim=1) for i, p in zip(images, places, strict=True)]


def pair_distances(features: list[torch.Tensor], good: Sequence[int]) -> list[np.ndarray]:
    """For each image, distances (good, n) of its patches to the nearest patch of each good image."""
    mode = "use_mm_for_euclid_dist"

    def one(x: torch.Tensor) -> np.ndarray:
        return torch.stack([torch.cdist(x, features[j], compute_mode=mode).amin(dim=1) for j in good]).numpy()

    return list(in_threads(one, features))


def smoothed(values: np.ndarray, cell: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Weighted mean around each cell, with the Gaussian that maps are smoothed with; NaN where there is nothing."""
    total, count = np.zeros(grid[0] * grid[1], np.float32), np.zeros(grid[0] * grid[1], np.float32)
    np.add.at(total, cell, values)
    np.add.at(count, cell, 1)
    sigma = SIGMA * max(grid) / 256
    total, count = (cv2.GaussianBlur(x.reshape(grid), (0, 0), sigma).ravel() for x in (total, count))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 1e-3)


def scores(folder: Folder, images: list[Patches], step: Step, protocol: str) -> np.ndarray:
    """Held-out score of every image; ``protocol`` is the column of splits.csv that says what is held out together."""
    table, good = folder.table, np.flatnonzero(folder.labels == 0)
    fold, single = table[protocol].to_numpy(), table["fold"].to_numpy()
    features = with_place(images, good, step.window) if step.window else [image.features for image in images]
    distances = pair_distances(features, good)
    typical: dict[str, np.ndarray] = {}
    result = []
    for i, image in enumerate(images):
        kept = np.flatnonzero(fold[good] != fold[i])
        value = distances[i][kept].min(axis=0)
        if step.typical:
            if fold[i] not in typical:
                seen = []
                for k in kept:
                    rest = kept[single[good[kept]] != single[good[k]]]
                    seen.append((distances[good[k]][rest].min(axis=0), images[good[k]].cell))
                values, cells = (np.concatenate(parts) for parts in zip(*seen, strict=True))
                at = smoothed(values, cells, image.grid)
                typical[fold[i]] = np.where(np.isnan(at), values.mean(), at)
            value = value / typical[fold[i]][image.cell]
        if step.own:
            value = value / np.median(value)
        if step.area:
            value = smoothed(value, image.cell, image.grid)[image.cell]
        result.append(float(value.max()))
    return np.array(result)


def main() -> None:
    """Print a table of all steps and backbones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results/{dataset}")
    parser.add_argument("--backbones", nargs="+", default=["patch-nano"], help="name, or name=file of weights")
    parser.add_argument("--steps", nargs="+", choices=list(ladder()), default=list(ladder()))
    parser.add_argument("--size", type=int, default=512, help="side of the network's input (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines with every score")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    folder = Folder(args.folder.resolve())
    protocols = ["fold", *(["group_fold"] if folder.table["group_fold"].nunique() > 1 else [])]
    print("| backbone | step | AUROC [95 %] | F1, nested threshold | groups out |\n|---|---|---|---|---|")
    for backbone in args.backbones:
        name, _, weights = backbone.partition("=")
        embedder = PatchEmbedder(name, ["layer2", "layer3"], weights or None)
        seen: tuple = ()
        for number in args.steps:
            step = ladder()[number]
            if seen[:1] != (key := (step.register, step.median, step.size),):
                seen = key, folder.patches(embedder, step, args.size * step.size)
            images = [image.chosen(step) for image in seen[1]]
            raw = {p: scores(folder, images, step, p) for p in protocols}
            held = raw["fold"]
            chosen = chosen_threshold.nested_calibration(held, folder.labels, folder.table["fold"].tolist())
            called = np.array([s >= chosen[f].value for s, f in zip(held, folder.table["fold"], strict=True)])
            low, high = bootstrap(folder.labels, held, called, folder.table["fold"], 0)["auroc"]
            area = metrics.auroc(folder.labels, held)
            f1 = metrics.rates(metrics.confusion(folder.labels, called))["f1"]
            out = f"{metrics.auroc(folder.labels, raw['group_fold']):.3f}" if "group_fold" in raw else ""
            row = f"{number} {step.name} | {area:.3f} [{low:.2f}, {high:.2f}] | {f1:.3f} | {out}"
            print(f"| {name} | {row} |", flush=True)
            if args.out:
                record = {"backbone": name, "step": step.name, "labels": folder.labels.tolist()}
                record |= {"ids": folder.table["image_id"].tolist(), **{p: v.tolist() for p, v in raw.items()}}
                with open(args.out, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
