"""What the benchmarks share: made-up photographs, runs in processes of their own, medians."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np


def photographs(folder: Path, count: int, size: int) -> Path:
    """Write ``count`` JPEG photographs of ``size`` pixels of a textured plate; every other call finds them there."""
    folder = folder / f"{count}x{size}"
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size] / size
    for i in range(count):
        path = folder / f"{i:05}.jpg"
        if path.exists():
            continue
        generator = np.random.default_rng(i)
        noise = [cv2.resize(generator.normal(0, 1, (n, n)).astype(np.float32), (size, size)) for n in (8, 32, 128)]
        waves = np.sin(40 * (x + 0.02 * generator.normal())) + np.sin(25 * (y + 0.3 * x))
        image = np.stack([110 + 25 * waves + a * noise[0] + 8 * noise[1] + 6 * noise[2] for a in (5, 12, 20)], axis=-1)
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    return folder


def in_process(script: str, *args: object) -> dict:
    """Run ``python script args`` and return the JSON object on the last line it prints."""
    done = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def medians(runs: list[dict]) -> dict:
    """Median of each figure of several runs."""
    return {key: median(run[key] for run in runs) for key in runs[0]}


def make_bank(path: Path, size: int, args: Any, precision: str = "float32") -> Path:
    """Write a bank of ``size`` patches of the first photographs, mirrored and jittered: it need not be a coreset here.

    ``precision`` is that of the network they come from.
    """
    import torch
    from defectflow.embedding import PatchEmbedder
    from defectflow.images import letterbox, read_rgb
    from safetensors.torch import save_file

    embedder = PatchEmbedder(args.backbone, ["layer2", "layer3"], args.weights, precision=precision)
    files = sorted(Path(args.images).iterdir())[:20]
    pictures = [letterbox(read_rgb(file), (args.image_size, args.image_size))[0][:, ::-1].copy() for file in files]
    patches = torch.cat([embedder(picture[None]) for picture in pictures])
    grid, dimensions = list(patches.shape[1:3]), patches.shape[3]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(patches[..., 0].numel(), (size,), generator=generator)
    bank = patches.reshape(-1, dimensions)[rows]
    bank = bank + bank.std() * 0.1 * torch.randn(bank.shape, generator=generator)
    config = {
        "backbone": args.backbone, "trained": embedder.trained, "layers": ["layer2", "layer3"], "grid": grid,
        "fitted_size": [args.image_size] * 2, "input_size": [args.image_size] * 2, "object_only": False, "dilation": 4,
        "method": "patchcore", "distance": "euclidean", "precision": precision,
    }  # fmt: skip
    save_file({"all": bank}, path, metadata={"defectflow": json.dumps(config)})
    return path
