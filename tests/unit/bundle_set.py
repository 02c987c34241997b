"""A small bundle for the tests of inspection: made by the bundle stage from a real bank and made-up figures.

The part is a striped plate; there are no masks, so that verdicts come from the whole photograph.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from defectflow.backbones.network_input import fit_picture, scales_of
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.backbones.tiles import Tiles, graph_input, large_size
from defectflow.bundling import bundle
from defectflow.core.anomaly_maps import save_maps
from defectflow.core.files import sha256_of, write_json
from defectflow.core.tables import MANIFEST, PREDICTIONS, SPLITS, write_table
from defectflow.detection.features import patches_by
from defectflow.images.read_write import write_png
from defectflow.methods.detector import GoodPatches
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings
from safetensors.torch import save_file

# For code that a test runs in a process of its own: peak memory in kilobytes. Not ru_maxrss, in which Linux counts what
# the process that started it had.
PEAK = "peak = lambda: int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]);"
SIDE, GRID, LAYERS = 96, (12, 12), ["layer2", "layer3"]
STRIP, STRIP_INPUT = (60, 200), (64, 224)  # (height, width) of a long photograph and of the network's input
LARGE, TILE = (250, 330), Tiles(128, 32)
ENTRIES = {
    "segmenter": {"method": "none"},
    "isolation": {
        "background": "keep",
        "normalise": ["none"],
        "crop": False,
        "tight": None,
        "upright": False,
        "margin": 0.03,
        "dilate": 0,
    },
    "detector": {
        "method": "patchcore",
        "backbone": "patch-nano",
        "weights": None,
        "layers": LAYERS,
        "image_size": SIDE,
        "foreground_only": True,
        "max_patches": 2000000,
        "coreset_ratio": 1,
        "coreset_max": 10000,
        "bank_dtype": "float32",
        "distance": "euclidean",
        "neighbours": 9,
        "score": "max",
        "top_fraction": 0.01,
    },
    "regions": {},
    "look": {"colours": "inferno", "vmax_quantile": 0.999},
}


def photograph(seed: int, bad: bool = False, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A striped plate, uint8 RGB of ``size`` (height, width); a bad one has a dark blot."""
    rng = np.random.default_rng(seed)
    rows = np.arange(size[0])[:, None, None] * np.ones((1, size[1], 3))
    image = 140 + 30 * np.sin(rows / size[0] * 50) + rng.normal(0, 3, (*size, 3))
    if bad:
        centre = (int(size[1] * rng.uniform(0.3, 0.7)), int(size[0] * rng.uniform(0.3, 0.7)))
        cv2.circle(image, centre, size[0] // 9, (20, 20, 20), -1)
    return image.clip(0, 255).astype(np.uint8)


def banks_of(items: list, metadata: dict, precision: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A bank of all patches of these pictures, and one of a fold; made by PatchCore where there are several scales."""
    scales = scales_of(metadata)
    embedder = PatchEmbedder("patch-nano", LAYERS, precision=precision, reductions=graph_input(metadata)[1])
    run = patches_by(embedder, metadata)
    patches = torch.cat([run(item.picture[None])[0] for item in items])
    if len(scales) == 1:
        return {"all": patches}, {"fold/0": patches[:100].clone()}
    position = torch.from_numpy(np.concatenate([item.cells for item in items]))
    owner = torch.arange(len(items)).repeat_interleave(len(items[0].cells))
    names = pd.DataFrame({"image_id": [str(i) for i in range(len(items))], "fold": ""})
    grids = [scale.grid for scale in scales]
    good = GoodPatches(patches, position, owner, names, 0, len(patches), None, grids[0], 0, grids[1:])
    tensors = PatchCore.fit(good, PatchCoreSettings())(torch.ones(len(items), dtype=torch.bool))
    return tuple(
        {f"{bank}/{name}" if name else bank: tensor for name, tensor in tensors.items()} for bank in ("all", "fold/0")
    )


def arguments(folder: Path, frame: tuple[int, int] = (SIDE, 128), network: dict | None = None, **entries) -> list[str]:
    """Write what the bundle stage reads below ``folder``; returns its command line. ``entries`` replace those above.

    ``frame``: (height, width) of the photographs. ``network``: what replaces settings of the network or is new in them.
    """
    precision = entries.get("detector", {}).get("precision", "float32")
    metadata = {
        "backbone": "patch-nano", "trained": True, "layers": LAYERS, "precision": precision,
        "fitted_size": [SIDE, SIDE], "input_size": [SIDE, SIDE], "grid": list(GRID),
        "foreground_only": True, "dilation": 4, "method": "patchcore", "distance": "euclidean",
    }  # fmt: skip
    metadata |= network or {}
    size, grid = tuple(metadata["input_size"]), tuple(metadata["grid"])
    scales = scales_of(metadata)
    window = (0, 0, frame[1], frame[0])
    rim = metadata.get("rim")
    items = [fit_picture(photograph(i, size=frame), None, window, size, scales, 4, rim=rim) for i in range(6)]
    folder.mkdir(parents=True, exist_ok=True)
    banks, folds = banks_of(items, metadata, precision)
    for name, some in (("banks", banks), ("fold_banks", folds)):
        save_file(some, folder / f"{name}.safetensors", metadata={"defectflow": json.dumps(metadata)})
    image = {"auroc": 0.9, "accuracy": 0.8, "recall": 0.7, "precision": 0.6, "false_positive_rate": 0.1}
    spans = {key: [0.5, 1.0] for key in image}
    image |= {"n_good": 2, "n_bad": 1}
    write_json(
        folder / "metrics.json",
        {
            "image": image,
            "confidence_intervals": spans,
            "threshold": {"strategy": "f1_adaptive", "options": {}, "value": 1.2},
            "review": {"low": 1.1, "high": 1.3, "max_fpr": 0.02, "max_fnr": 0.02},
            "pixel": {"map_threshold": {"value": 0.8}},
            "warnings": ["few images"],
        },
    )
    write_json(folder / "fit.json", {"good_images": 6, "banks": {"all": {"size": len(banks["all"])}}})
    rows, manifest, splits, maps = [], [], [], {}
    for number, (label, score) in enumerate([(0, 0.7), (0, 0.9), (1, 3.0)]):
        name = f"known_{number}"
        write_png(folder / f"{name}.png", photograph(50 + number, bool(label), frame))
        rows.append({"filename": f"{name}.png", "image_id": name, "label": label, "raw_score": score, "split": "fold"})
        path = folder / f"{name}.png"
        manifest.append({"image_id": name, "path": str(path), "sha256": sha256_of(path), "label": label})
        splits.append({"image_id": name, "label": label, "detection": "fold", "fold": "0"})
        maps[name] = (np.linspace(0.3, score, grid[0] * grid[1], dtype=np.float32).reshape(grid), items[0].affine)
    write_table(folder / "predictions.csv", pd.DataFrame(rows, columns=PREDICTIONS), PREDICTIONS)
    write_table(folder / "manifest.csv", pd.DataFrame(manifest, columns=MANIFEST), MANIFEST)
    write_table(folder / "splits.csv", pd.DataFrame(splits, columns=SPLITS), SPLITS)
    save_maps(folder / "maps.safetensors", maps, size)
    files = {"banks": "banks.safetensors", "fit": "fit.json", "metrics": "metrics.json", "maps": "maps.safetensors"}
    files |= {"predictions": "predictions.csv", "manifest": "manifest.csv", "splits": "splits.csv", "out": "bundle"}
    files["fold-banks"] = "fold_banks.safetensors"
    words = [word for flag, name in files.items() for word in (f"--{flag}", str(folder / name))]
    return ["--entries", json.dumps(ENTRIES | entries), "--name", "a/run", *words]


def make(folder: Path, frame: tuple[int, int] = (SIDE, 128), network: dict | None = None, **entries) -> Path:
    """Run the bundle stage below ``folder``; returns the bundle. Arguments as of `arguments`."""
    bundle.main(bundle.build_parser().parse_args(arguments(folder, frame, network, **entries)))
    return folder / "bundle"


def make_with_two_scales(folder: Path) -> Path:
    """A bundle that judges at SIDE and half of it; a config could not ask for so small a picture."""
    detector = ENTRIES["detector"] | {"image_size": [128, 64]}
    coarser = [{"reduction": 2, "grid": [GRID[0] // 2, GRID[1] // 2]}]
    return make(folder, network={"coarser": coarser}, detector=detector)


def make_of_strips(folder: Path) -> Path:
    """A bundle for photographs of STRIP pixels."""
    height, width = STRIP_INPUT
    size = {"fitted_size": [height, width], "input_size": [height, width], "grid": [height // 8, width // 8]}
    return make(folder, STRIP, size | {"rim": 0})


def make_with_tiles(folder: Path) -> Path:
    """A bundle for photographs of LARGE pixels, in tiles of TILE, and as a whole of half the size."""
    size, reductions = large_size(LARGE, TILE.size)
    grid, *coarser = ([size[0] // k // 8, size[1] // k // 8] for k in reductions)
    network = {"fitted_size": list(size), "input_size": list(size), "grid": grid, "rim": 0, "tiles": TILE._asdict()}
    network |= {"coarser": [{"reduction": k, "grid": g} for k, g in zip(reductions[1:], coarser, strict=True)]}
    detector = ENTRIES["detector"] | {"image_size": TILE.size, "tiles": TILE._asdict()}
    return make(folder, LARGE, network | {"sigma": TILE.size / 64}, detector=detector)
