"""How time and memory grow: coreset against patches, ratio and dimensions, whole fit against image size; with a plot.

One quantity at a time is varied from the base case. The selection is run on synthetic features by defectflow,
anomalib's KCenterGreedy and the approximate sampler of the PatchCore authors, each in its own process; its memory is
what the process needs beyond the libraries and the features. The peers take the same time for each center: they select
``--peer-centers`` and their time is given in proportion. The fit is that of `fit.py`, its memory all of the process.
Time is processor time of all threads, which other jobs on the machine affect least.

    python benchmarks/scaling.py                                                   # small, some minutes
    python benchmarks/scaling.py --rows 20000 60000 200000 --base 60000 0.01 384 --plot scaling.png
"""

import argparse
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from common import in_process, medians, photographs
from coreset import anomalib_sampler, approximate_sampler, synthetic_features
from defectflow.search.coreset import k_center_greedy

NAMES = {"defectflow": "defectflow", "anomalib": "anomalib", "approximate": "authors' approximate"}
AXES = {"rows": "patches", "ratio": "ratio", "dimensions": "dimensions", "image size": "image size, pixels"}


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def select(name: str, path: Path, ratio: float, args: argparse.Namespace) -> dict:
    """Time and memory of one selection, in this process."""
    torch.set_num_threads(args.threads)
    features = torch.from_numpy(np.load(path))
    centers = max(1, int(ratio * len(features)))
    before = peak_mb()
    if name == "defectflow":
        begin = time.process_time()
        k_center_greedy(features, centers, start=0, progress=False)
        seconds = time.process_time() - begin
    else:
        sampler = {"anomalib": anomalib_sampler, "approximate": approximate_sampler}[name]
        seconds = centers * sampler(features, min(centers, args.peer_centers), time.process_time)
    return {"seconds": seconds, "mb": peak_mb() - before}


def measure_selection(rows: int, ratio: float, dimensions: int, args: argparse.Namespace) -> dict[str, dict]:
    """Medians of each sampler on the same features, in turns."""
    import anomalib.models.components  # noqa: F401  (once, before the processes fork: it takes longer than they do)

    runs: dict[str, list[dict]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        # A process that has computed with several threads cannot fork: this one never computes.
        one_more = partial(ProcessPoolExecutor, 1, mp_context=get_context("fork"))
        with one_more() as pool:
            pool.submit(write_features, path, rows, dimensions).result()
        for _ in range(args.repeats):
            for name in NAMES:
                with one_more() as pool:
                    runs[name].append(pool.submit(select, name, path, ratio, args).result())
    return {name: medians(done) for name, done in runs.items()}


def write_features(path: Path, rows: int, dimensions: int) -> None:
    np.save(path, synthetic_features(rows, dimensions).numpy())


def measure_fit(size: int, args: argparse.Namespace) -> dict[str, dict]:
    """Whole fit, from image files of twice the size of the network's input to the saved bank."""
    images = photographs(Path(tempfile.gettempdir()) / "defectflow-benchmark", args.images, 2 * size)
    options = ["--images", images, "--size", 2 * size, "--image-size", size, "--ratio", args.base[1],
               "--threads", args.threads, "--peer-centers", args.peer_centers]  # fmt: skip
    options += ["--weights", args.weights] if args.weights else []
    script = str(Path(__file__).with_name("fit.py"))
    found = {}
    for name in ("defectflow", "anomalib"):
        done = medians([in_process(script, "--run", name, *options) for _ in range(args.repeats)])
        found[name] = {"seconds": done["cpu"], "mb": done["peak_mb"]}
    return found


def plot(points: dict[str, list[tuple[float, dict]]], path: Path, base: str) -> None:
    """Time and memory against each quantity, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, len(points), figsize=(11, 5), sharex="col", layout="constrained")
    for column, (axis, measured) in enumerate(points.items()):
        above, below = panels[:, column]
        for name, told in NAMES.items():
            for panel, key in ((above, "seconds"), (below, "mb")):
                curve = [(x, found[name][key]) for x, found in measured if name in found]
                if curve:
                    panel.plot(*zip(*curve, strict=True), "o-", label=told)
                panel.grid(alpha=0.3)
        above.set(xscale="log", yscale="log", title="whole fit" if axis == "image size" else "coreset")
        values = [x for x, _ in measured]
        below.set(xlabel=AXES[axis], ylim=(0, None), xticks=values, xticklabels=[f"{x:g}" for x in values])
        below.minorticks_off()
    panels[0, 0].set_ylabel("processor seconds")
    panels[1, 0].set_ylabel("memory, MB")
    figure.suptitle(base, fontsize="medium")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[96, 192, 384])
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--base", type=float, nargs=3, default=[20_000, 0.01, 384], metavar=("ROWS", "RATIO", "D"))
    parser.add_argument("--images", type=int, default=20, help="photographs of the fits")
    parser.add_argument("--weights")
    parser.add_argument("--peer-centers", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="PNG to write")
    args = parser.parse_args()
    rows, ratio, dimensions = int(args.base[0]), args.base[1], int(args.base[2])
    cases = {
        "rows": [(n, (n, ratio, dimensions)) for n in args.rows],
        "ratio": [(r, (rows, r, dimensions)) for r in args.ratios],
        "dimensions": [(d, (rows, ratio, d)) for d in args.dimensions],
    }
    base = f"coreset: {rows:,} patches, ratio {ratio:g}, {dimensions} dimensions, one of them varied; "
    base += f"fit: {args.images} images, ResNet-18; {args.threads} threads"
    print(base)
    print("| varied | value | defectflow s, MB | anomalib s, MB | ratio | authors' approximate s, MB | ratio |")
    print("|---|---|---|---|---|---|---|")
    known: dict[tuple, dict[str, dict]] = {}
    points: dict[str, list[tuple[float, dict]]] = {axis: [] for axis in AXES}

    def tell(axis: str, value: float, found: dict[str, dict]) -> None:
        points[axis].append((value, found))
        ours = found["defectflow"]
        cells = [f"{ours['seconds']:.2f}, {ours['mb']:.0f}"]
        for name in ("anomalib", "approximate"):
            peer = found.get(name)
            cells += (
                [f"{peer['seconds']:.1f}, {peer['mb']:.0f}", f"{peer['seconds'] / ours['seconds']:.0f}"]
                if peer
                else ["", ""]
            )
        print(f"| {axis} | {value:g} | {' | '.join(cells)} |", flush=True)

    for axis, values in cases.items():
        for value, case in values:
            if case not in known:
                known[case] = measure_selection(*case, args)
            tell(axis, value, known[case])
    for size in args.image_sizes:
        tell("image size", size, measure_fit(size, args))
    if args.plot:
        plot(points, args.plot, base)


if __name__ == "__main__":
    main()
