"""Fit of more patches than fit into memory: peak memory, time, and how far the bank is from every patch.

Patch files of synthetic features are written first (float16, as `features --stored float16` would). For each
``--max-patches``, `fit` runs in a process of its own. `radius` is the largest distance of a patch to the bank; `bound`
is what merge and reduce promises: the largest radius of an image's own coreset plus that of the bank among these
coresets. Both are taken over up to 500 evenly spaced images, so `radius` is at most `bound`; without reduction they are
equal.

    python benchmarks/large_set.py                                          # 200 images; 204800 reduces nothing
    python benchmarks/large_set.py --images 10000 --max-patches 1000000     # 8 GB of disk
    python benchmarks/large_set.py --features results/.../features/*.safetensors --max-patches 20000 1000000
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from coreset import synthetic_features
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.core import tables
from defectflow.detection import fit
from defectflow.detection.feature_files import PatchFile, open_patches, write_patches
from defectflow.methods.patchcore.memory_bank import Bank
from defectflow.search.coreset import k_center_greedy

SHARD = 1000  # images in a patch file


def write_set(folder: Path, images: int, patches: int, dimensions: int) -> list[Path]:
    """Patch files of ``images`` pictures of one kind of part: all draw from the same 50 kinds of patch."""
    pool = synthetic_features(4 * patches, dimensions)
    generator = torch.Generator().manual_seed(1)
    paths = []
    for begin in tqdm(range(0, images, SHARD), desc="write", unit="shard"):
        names = [f"{i:06}" for i in range(begin, min(begin + SHARD, images))]
        items = [{"image_id": n, "copy_of": "", "kind": "", "window": [0, 0, 1, 1], "frame": [1, 1]} for n in names]
        config = {"backbone": "made up", "trained": False, "layers": [], "grid": [1, patches], "fitted_size": [1, 1],
                  "input_size": [1, 1], "foreground_only": False, "dilation": 0, "items": items}  # fmt: skip
        paths.append(folder / f"{begin // SHARD}.safetensors")
        with write_patches(paths[-1], config, dimensions, torch.float16) as writer:
            for _ in names:
                drawn = pool[torch.randint(len(pool), (patches,), generator=generator)]
                drawn += 0.5 * pool.std() * torch.randn(drawn.shape, generator=generator)
                writer.add(drawn, np.arange(patches), np.eye(2, 3), True)
    return paths


def run_fit(args: argparse.Namespace) -> dict:
    """Fit in this process; `peak_mb` counts Python and its libraries too."""
    begin = time.perf_counter()
    settings = {"coreset_ratio": args.ratio, "coreset_max": args.coreset_max, "max_patches": args.max_patches[0]}
    fit.main(
        fit.build_parser().parse_args(
            ["--features", *args.features, "--splits", args.splits,
             "--settings", json.dumps({"method": "patchcore"} | settings),
             "--threads", str(args.threads), "--device", "cpu", "--out", args.bank, "--report", args.bank + ".json"]
        )
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.perf_counter() - begin, "peak_mb": peak}


def radii(files: list[PatchFile], bank: torch.Tensor, share: float) -> tuple[float, float]:
    """Largest distance of a patch to the bank, and the bound: see the module."""
    found, inner, outer = 0.0, 0.0, 0.0
    search = Bank(bank)
    items = [(file, i) for file in files for i in range(len(file.items))]
    for file, i in tqdm(items[:: max(1, len(items) // 500)], desc="radius", unit="image"):
        patches = file.patches(i)
        found = max(found, float(search.nearest(patches)[0].max()))
        if share < 1:
            kept = patches[k_center_greedy(patches, max(1, int(len(patches) * share)), seed=0, progress=False)]
            inner = max(inner, float(Bank(kept).nearest(patches)[0].max()))
            patches = kept
        outer = max(outer, float(search.nearest(patches)[0].max()))
    return found, inner + outer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", help="patch files; made-up ones if absent")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--patches", type=int, default=1024, help="of an image")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--max-patches", type=int, nargs="+", default=[20_480, 61_440, 204_800])
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--coreset-max", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where to write the made-up files (a temporary folder)")
    parser.add_argument("--splits", help=argparse.SUPPRESS)
    parser.add_argument("--bank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bank:
        print(json.dumps(run_fit(args)))
        return

    from common import in_process
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        paths = args.features or write_set(folder, args.images, args.patches, args.dimensions)
        files = open_patches(paths)
        names = [item["image_id"] for file in files for item in file.items]
        splits = pd.DataFrame([[n, "", 0, "", "train", "", ""] for n in names], columns=tables.SPLITS)
        tables.write_table(folder / "s.csv", splits, tables.SPLITS)
        total = sum(file.count(i) for file in files for i in range(len(file.items)))
        print(f"{len(names)} images, {total} patches x {files[0].dimensions}, {args.threads} threads")
        print("| max_patches | bank | fit s | peak MB | radius | bound |\n|---|---|---|---|---|---|")
        for cap in args.max_patches:
            bank = folder / "bank.safetensors"
            done = in_process(
                __file__, "--features", *paths, "--splits", folder / "s.csv", "--bank", bank, "--max-patches", cap,
                "--ratio", args.ratio, "--coreset-max", args.coreset_max, "--threads", args.threads,
            )  # fmt: skip
            chosen = load_file(bank)["all"]
            found, bound = radii(files, chosen, cap / total)
            figures = f"{done['seconds']:.0f} | {done['peak_mb']:.0f} | {found:.3f} | {bound:.3f}"
            print(f"| {cap} | {len(chosen)} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
