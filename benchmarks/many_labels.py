"""Labels to check in sets of many photographs: processor time, and peak memory and temporary disk, by their number.

Patch files of synthetic features are written first, one patch for each of --side x --side cells, so that many fit on
the disk; time is that of so many cells, 256 as of any real photograph with --side 16. The stage runs in a process of
its own for each number of photographs, a tenth of them labelled bad.

    python benchmarks/many_labels.py 5000 20000 --side 4    # memory
    python benchmarks/many_labels.py 200 400                # time
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import in_process

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.core.tables import MANIFEST, write_table
from defectflow.detection.feature_files import write_patches
from defectflow.labelling import check_labels

SHARD, DIMENSIONS = 1000, 384


def write_set(folder: Path, count: int, side: int) -> None:
    """Patch files and manifest.csv of ``count`` photographs."""
    generator = torch.Generator().manual_seed(0)
    names = [f"{number:06}" for number in range(count)]
    for begin in range(0, count, SHARD):
        own = names[begin : begin + SHARD]
        items = [{"image_id": name, "copy_of": "", "kind": "", "window": [0, 0, 1, 1], "frame": [1, 1]} for name in own]
        path = folder / f"{begin // SHARD}.safetensors"
        with write_patches(path, {"items": items, "grid": [side, side]}, DIMENSIONS, torch.float16) as writer:
            for name in own:
                patches = torch.randn(side * side, DIMENSIONS, generator=generator)
                patches[0] += int(name) % 10 == 0  # the bad ones
                writer.add(patches, np.arange(side * side), np.eye(2, 3), True)
    rows = [dict.fromkeys(MANIFEST, "") | {"image_id": n, "path": f"{n}.png", "label": int(n) % 10 == 0} for n in names]
    write_table(folder / "manifest.csv", pd.DataFrame(rows).assign(label=lambda t: t["label"].astype(int)), MANIFEST)


def main() -> None:
    """Print a line for each number of photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="+", help="photographs")
    parser.add_argument("--side", type=int, default=16, help="cells along a side (%(default)s)")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)  # a set that is written
    args = parser.parse_args()
    if args.of:
        files = sorted(args.of.glob("*.safetensors"))
        words = ["--features", *files, "--manifest", args.of / "manifest.csv", "--threads", 1]
        words += ["--looks", args.of / "looks.out", "--out", args.of / "labels_to_check.csv"]
        before = time.process_time()
        check_labels.main(check_labels.build_parser().parse_args([str(word) for word in words]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f'{{"seconds": {time.process_time() - before}, "peak": {peak}}}')
        return
    print("| photographs | processor time for each | peak memory | distances kept |\n|---|---|---|---|")
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder:
            write_set(Path(folder), count, args.side)
            found = in_process(__file__, count, "--of", folder)
        kept = min(count, check_labels.MOST) * 256 * 150 * 2 / 1e6
        print(
            f"| {count:,} | {found['seconds'] / count * 1000:.1f} ms | {found['peak']:.0f} MB | {kept:.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
