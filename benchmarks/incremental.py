"""Adding photographs to a fitted set: the stages `features` and `fit` on their outputs, against both from scratch.

The patches of the old pictures are kept, and the bank is selected again from all of them. Checks that patches and bank
are byte for byte those made from scratch. Imports are not counted. Wall time and processor time of all threads are
printed; other jobs on the machine affect the latter less.

    python benchmarks/incremental.py                         # 1 image more than 40 of 512 pixels
    python benchmarks/incremental.py --count 200 --size 1024 --weights resnet18.safetensors
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from common import medians, photographs
from defectflow.core import tables
from defectflow.detection import features, fit
from fit import embedder_imports


def run(folder: Path, paths: list[Path], args: argparse.Namespace) -> dict[str, float]:
    """Both stages with their outputs in ``folder``; seconds of each."""
    folder.mkdir(exist_ok=True)
    rows = [[p.stem, str(p), "", 0, 0, args.size, args.size, 0.0, args.size, args.size, "", "", 0] for p in paths]
    tables.write_table(folder / "t.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
    splits = pd.DataFrame([[p.stem, "", 0, "", "train", "", ""] for p in paths], columns=tables.SPLITS)
    tables.write_table(folder / "s.csv", splits, tables.SPLITS)
    common = ["--threads", str(args.threads), "--device", "cpu"]
    weights = ["--weights", args.weights] if args.weights else []
    network = json.dumps({"backbone": args.backbone, "image_size": args.image_size})
    bank = json.dumps({"method": "patchcore", "coreset_ratio": args.ratio})
    seconds = {}
    for name, stage, options in (
        ("features", features, ["--tables", f"{folder}/t.csv", *weights, "--settings",
                    network, "--out", f"{folder}/f.safetensors"]),
        ("fit", fit, ["--features", f"{folder}/f.safetensors", "--splits", f"{folder}/s.csv", "--settings",
               bank, "--out", f"{folder}/b.safetensors", "--report", f"{folder}/fit.json"]),
    ):  # fmt: skip
        begin, cpu = time.perf_counter(), time.process_time()
        stage.main(stage.build_parser().parse_args([*options, *common]))
        seconds[name] = time.perf_counter() - begin
        seconds[f"{name}, processor"] = time.process_time() - cpu
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--added", type=int, default=1)
    parser.add_argument("--size", type=int, default=512, help="of the files, in pixels")
    parser.add_argument("--image-size", type=int, default=256, help="of the network's input")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights")
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    embedder_imports()
    pictures = photographs(Path(tempfile.gettempdir()) / "defectflow-benchmark", args.count + args.added, args.size)
    paths = sorted(pictures.iterdir())
    added, fresh = [], []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as name:
            old, new = Path(name, "old"), Path(name, "new")
            run(old, paths[: args.count], args)
            added.append(run(old, paths, args))
            fresh.append(run(new, paths, args))
            for file in ("f.safetensors", "b.safetensors"):
                assert (old / file).read_bytes() == (new / file).read_bytes(), file
    print(f"{args.count} images and {args.added} more, {args.threads} threads, medians of {args.repeats}")
    print("| | from nothing s | added s | ratio |\n|---|---|---|---|")
    a, b = medians(fresh), medians(added)
    for what in a:
        print(f"| {what} | {a[what]:.2f} | {b[what]:.2f} | {a[what] / b[what]:.1f} |")


if __name__ == "__main__":
    main()
