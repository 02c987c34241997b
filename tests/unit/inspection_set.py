"""A small, complete input of the stages evaluate and render, as the earlier stages would write it.

A grey disc with darker spots (defects) before a noisy background; scores and maps are made up to fit.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from defectflow.core.anomaly_maps import save_maps
from defectflow.core.tables import MANIFEST, MASKS, SCORES, SPLITS, write_table
from defectflow.decision.region_settings import RegionSettings
from defectflow.images.read_write import write_png
from settings_words import with_settings

INPUT = 128  # side of the model's input in pixels
GRID = 16


def chosen(words) -> list[str]:
    """`--threshold STRATEGY NAME=VALUE ...` and `--review NAME=VALUE ...` as the JSON that the stage reads."""
    rest, settings = [], {"--settings": {"threshold": "f1_adaptive"}, "--review": {}}
    words, flag = list(words), ""
    for word in words:
        if word in ("--threshold", "--review"):
            flag = word.replace("threshold", "settings")
            continue
        flag = "" if word.startswith("--") else flag
        if not flag:
            rest.append(word)
        elif "=" in word:
            name, _, value = word.partition("=")
            settings[flag][name] = float(value)
        else:
            settings[flag]["threshold"] = word
    return [*rest, *(word for key, value in settings.items() if value for word in (key, json.dumps(value)))]


@dataclass
class InspectionSet:
    """Paths of the files of one set; ``flags`` are the arguments that the stages have in common."""

    root: Path
    manifest: Path
    splits: Path
    scores: list[Path]
    maps: list[Path]
    masks: list[Path]

    def evaluate_args(self, out: Path, *more: str) -> list[str]:
        paths = {"manifest": [self.manifest], "splits": [self.splits], "scores": self.scores, "maps": self.maps}
        args = [word for name, values in paths.items() for word in (f"--{name}", *map(str, values))]
        args += ["--masks", *map(str, self.masks), "--metrics", str(out / "metrics.json")]
        args += ["--predictions", str(out / "predictions.csv"), "--robustness", str(out / "robustness.csv")]
        return [*args, "--figures", str(out / "figures"), *chosen(more)]

    def boxes_args(self, out: Path, *more: str) -> list[str]:
        args = ["--predictions", str(out / "predictions.csv"), "--manifest", str(self.manifest)]
        args += ["--maps", *map(str, self.maps), "--masks", *map(str, self.masks)]
        return [
            *args,
            "--table",
            str(out / "regions.csv"),
            "--coco",
            str(out / "regions.json"),
            *with_settings(more, RegionSettings),
        ]

    def render_args(self, out: Path, *more: str) -> list[str]:
        args = ["--predictions", str(out / "predictions.csv"), "--metrics", str(out / "metrics.json")]
        args += ["--regions", str(out / "regions.csv"), str(out / "regions.json"), "--manifest", str(self.manifest)]
        args += ["--maps", *map(str, self.maps), "--masks", *map(str, self.masks)]
        for name in ("heatmaps", "overlays", "sheets"):
            args += [f"--{name}", str(out / name)]
        return [*args, *more]


def make(
    root: Path,
    *,
    good: int = 8,
    bad: int = 6,
    unlabelled: int = 2,
    size: tuple[int, int] = (96, 128),
    ground_truth: bool = True,
    group_out: bool = False,
    perturbed: bool = False,
    overlap: bool = True,
    seed: int = 0,
) -> InspectionSet:
    """Write the set below ``root``. ``size`` is (height, width); ``overlap``: one good, one bad score change sides."""
    rng = np.random.default_rng(seed)
    rows, splits, scores, masks = [], [], [], []
    maps: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    names = [f"good/{i:03d}.png" for i in range(good)] + [f"odd/{i:03d}.png" for i in range(bad)]
    names += [f"new/{i:03d}.png" for i in range(unlabelled)]
    height, width = size
    for number, name in enumerate(names):
        image_id = name[:-4].replace("/", "__")
        kind = ("scratch", "hole")[number % 2] if name.startswith("odd") else ""
        label = {"g": 0, "o": 1, "n": None}[name[0]]
        photo, part, truth = _photograph(rng, size, kind)
        path, part_path = root / "images" / name, root / "masks" / f"{image_id}.png"
        truth_path = root / "truth" / f"{image_id}.png" if kind and ground_truth else None
        for file, picture in ((path, photo), (part_path, part), (truth_path, truth)):
            if file is not None:
                write_png(file, picture)
        rows.append([image_id, path, "0" * 64, width, height, label, kind, f"g{number % 3}", truth_path or "", ""])
        fold = "" if label is None else str(number % 4)
        splits.append([image_id, f"g{number % 3}", label, "", "fold" if fold else "unlabelled", fold, fold])
        heat, affine = _map(rng, part, truth)
        maps[image_id] = (heat, affine)
        raw = np.float32(heat.max())
        if overlap and label is not None and number in (0, good):
            raw = np.float32(6.0 if label == 0 else 3.5)
        scores.append([image_id, "", "", f"fold/{fold}" if fold else "all", raw, "", raw * 0.9 if group_out else None])
        if perturbed and label is not None:
            shifted = np.float32(raw + rng.normal(0, 0.5))
            scores.append(
                [
                    f"{image_id}~{('blur', 'rotate')[number % 2]}~0.5",
                    image_id,
                    "perturbed",
                    f"fold/{fold}",
                    shifted,
                    "",
                    None,
                ]
            )
        doubtful = int(number == 1)
        masks.append([image_id, part_path, "template", 1, doubtful, "area off" if doubtful else ""] + [None] * 5)
    tables = {"manifest": (rows, MANIFEST), "splits": (splits, SPLITS)}
    for k in (0, 1):
        tables[f"scores/{k}"] = (scores[k::2], SCORES)
        tables[f"masks/{k}"] = (masks[k::2], MASKS)
    for stem, (content, columns) in tables.items():
        frame = pd.DataFrame(content, columns=columns)
        if "label" in columns:
            frame["label"] = frame["label"].astype("Int64")
        if stem == "manifest":
            frame = frame.sort_values("image_id")
        write_table(root / f"{stem}.csv", frame, columns)
    for k in (0, 1):
        save_maps(root / f"maps/{k}.safetensors", {i: maps[i] for i in sorted(maps)[k::2]}, (INPUT, INPUT))
    return InspectionSet(
        root,
        root / "manifest.csv",
        root / "splits.csv",
        [root / f"scores/{k}.csv" for k in (0, 1)],
        [root / f"maps/{k}.safetensors" for k in (0, 1)],
        [root / f"masks/{k}.csv" for k in (0, 1)],
    )


def _photograph(
    rng: np.random.Generator, size: tuple[int, int], kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = size
    unit = min(size)
    noise = cv2.resize(rng.integers(40, 200, (12, 16, 3)).astype(np.uint8), (width, height))
    centre = (int(width / 2 + rng.normal(0, unit / 60)), int(height / 2 + rng.normal(0, unit / 60)))
    part = cv2.circle(np.zeros(size, np.uint8), centre, int(unit * 0.4), 1, -1) > 0
    texture = 150 + 25 * np.sin(np.arange(width) / unit * 60)[None, :, None] + rng.normal(0, 4, (height, width, 1))
    photo = np.where(part[..., None], texture.clip(0, 255).astype(np.uint8), noise)
    truth = np.zeros(size, np.uint8)
    at = (centre[0] + int(rng.integers(-unit // 6, unit // 6)), centre[1] + int(rng.integers(-unit // 6, unit // 6)))
    if kind == "hole":
        cv2.circle(truth, at, unit // 18, 1, -1)
    elif kind == "scratch":
        cv2.line(truth, at, (at[0] + unit // 6, at[1] + unit // 10), 1, max(2, unit // 60))
    photo[truth > 0] = photo[truth > 0] // 3
    return photo, part, truth > 0


def _map(rng: np.random.Generator, part: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grid map (background lowest) and the affine from model input to photograph, letterboxed as isolate does."""
    height, width = part.shape
    scale = INPUT / max(part.shape)
    left, top = (INPUT - width * scale) / 2, (INPUT - height * scale) / 2
    back = np.array([[1 / scale, 0, (0.5 - left) / scale - 0.5], [0, 1 / scale, (0.5 - top) / scale - 0.5]])
    cell = {"dsize": (INPUT, INPUT), "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    inside, odd = (cv2.warpAffine(m.astype(np.float32), back, **cell) for m in (part, truth))
    grid = [cv2.resize(m, (GRID, GRID), interpolation=cv2.INTER_AREA) for m in (inside, odd)]
    heat = 3 + rng.normal(0, 0.35, (GRID, GRID)) + 14 * np.minimum(grid[1], 0.5)
    heat = np.where(grid[0] > 0.5, heat, heat.min() - 1).astype(np.float32)
    return np.maximum(heat, 0.5), back
