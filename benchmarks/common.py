"""What the benchmarks share: synthetic photographs, runs in separate processes, medians."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np


def photographs(folder: Path, count: int, size: int) -> Path:
    """Write ``count`` JPEG photographs of ``size`` pixels of a textured plate, unless they are there already."""
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


def make_bank(path: Path, size: int, args: Any) -> None:
    """Write a bank of ``size`` patches as `fit` selects them, of photographs other than ``args.images``.

    Made-up photographs have as many others of the same kind; a folder of real ones has its own, mirrored. A network in
    ``args.precision`` gets the patches that are selected in float32: the banks differ in nothing else.
    """
    import torch
    from defectflow.backbones.patch_embedding import PatchEmbedder
    from defectflow.core.parallel import in_threads
    from defectflow.images.read_write import letterbox, read_rgb
    from defectflow.search.coreset import k_center_greedy, project
    from safetensors.torch import save_file

    files, made_up = sorted(Path(args.images).iterdir()), Path(args.images) == path.parent / f"{args.count}x{args.size}"
    if made_up:
        files = sorted(photographs(path.parent, 2 * args.count, args.size).iterdir())[args.count :]

    def pool(embedder: PatchEmbedder) -> torch.Tensor:
        def embed(file: Path) -> torch.Tensor:
            picture, _ = letterbox(read_rgb(file), (args.image_size, args.image_size))
            return embedder(picture[None, :, :: 1 if made_up else -1])[0]

        return torch.stack(list(in_threads(embed, files)))

    (precision,) = args.precision
    network = [args.backbone, ["layer2", "layer3"], args.weights]
    exact, asked = PatchEmbedder(*network), PatchEmbedder(*network, precision=precision)
    patches = pool(exact)
    candidates = patches.flatten(0, 2)
    chosen = k_center_greedy(project(candidates), min(size, len(candidates)), progress=False)
    bank = candidates[chosen] if precision == "float32" else pool(asked).flatten(0, 2)[chosen]
    config = {
        "backbone": args.backbone, "trained": exact.trained, "layers": ["layer2", "layer3"],
        "grid": list(patches.shape[1:3]), "fitted_size": [args.image_size] * 2, "input_size": [args.image_size] * 2,
        "foreground_only": False, "dilation": 4, "method": "patchcore", "distance": "euclidean", "precision": precision,
    }  # fmt: skip
    save_file({"all": bank}, path, metadata={"defectflow": json.dumps(config)})
