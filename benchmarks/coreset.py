"""Coreset: defectflow's greedy k-center, anomalib's KCenterGreedy and the approximate sampler of the PatchCore authors.

All three work on the same features, one after the other in each repeat. The peers take the same time for each center:
only ``--peer-centers`` of them are timed, and the time of a whole selection is that in proportion. That ours is the
greedy selection is checked for every center in float64 (`deviation`).

    python benchmarks/coreset.py                                     # 20,000 x 303, a minute
    python benchmarks/coreset.py --rows 218112 --peer-centers 20     # the size of 213 images at 256 pixels
    python benchmarks/coreset.py --features results/.../features/*.safetensors
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.detection.feature_files import open_patches
from defectflow.search.coreset import k_center_greedy, project


def synthetic_features(rows: int, dimensions: int) -> torch.Tensor:
    """Features with a spectrum that falls like that of ResNet features, in clusters, after a ReLU."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(dimensions, dimensions, generator=generator) / torch.arange(1, dimensions + 1)[:, None] ** 0.6
    kind = torch.randint(50, (rows,), generator=generator)
    codes = torch.randn(rows, dimensions, generator=generator)
    codes += torch.randn(50, dimensions, generator=generator)[kind]
    return (codes @ axes + 0.5).relu_()


def anomalib_sampler(features: torch.Tensor, centers: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that anomalib's KCenterGreedy takes for one center."""
    from anomalib.models.components import KCenterGreedy

    sampler = KCenterGreedy(features[:, :, None], sampling_ratio=1.0)  # with 3 axes it does not project
    sampler.coreset_size = centers + 1
    begin = clock()
    sampler.select_coreset_idxs()
    return (clock() - begin) / centers


def approximate_sampler(features: torch.Tensor, centers: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds for one center of the approximate greedy sampler that the PatchCore authors use.

    As their code describes it: a random linear map to 128 dimensions, the mean distance to 10 random points to begin
    with, then greedily, one center at a time.
    """
    reduced = features @ torch.randn(features.shape[1], 128).div_(features.shape[1] ** 0.5)

    def distances_to(points: torch.Tensor) -> torch.Tensor:
        squared = reduced.square().sum(1)[:, None] - 2 * reduced @ points.T + points.square().sum(1)
        return squared.clamp_min_(0).sqrt_()

    begin = clock()
    nearest = distances_to(reduced[torch.randperm(len(reduced))[:10]]).mean(dim=1, keepdim=True)
    for _ in range(centers):
        farthest = int(nearest.argmax())
        nearest = torch.cat([nearest, distances_to(reduced[farthest : farthest + 1])], dim=1).amin(1, keepdim=True)
    return (clock() - begin) / centers


def deviation(features: torch.Tensor, selected: torch.Tensor, rows: int = 20_000) -> float:
    """How far a selection is from the greedy one: 0 if each center was the farthest row when it was selected.

    Computed in float64, independently of the code under test: for the i-th center s_i, max over rows x of d(x,
    s_1..s_i-1) relative to d(s_i, s_1..s_i-1), less 1. Up to ``rows`` rows, evenly spaced, stand for all.
    """
    x = features[:: max(1, len(features) // rows)].double()
    centers = features[selected].double()
    radius, farthest = torch.full((len(centers),), torch.inf).double(), torch.zeros(len(centers)).double()
    for begin in range(0, len(centers), 2048):  # the distance of each center to those before it
        part = slice(begin, begin + 2048)
        squared = torch.cdist(centers[part], centers[: begin + 2048]).tril(begin - 1)
        later = torch.ones_like(squared, dtype=torch.bool).triu(begin)
        radius[part] = squared.masked_fill_(later, torch.inf).amin(dim=1)
    for chunk in x.split(512):  # the distance of each row to the first 1, 2, 3 ... centers
        farthest = torch.maximum(farthest, torch.cdist(chunk, centers).cummin(dim=1).values.amax(dim=0))
    return float((farthest[:-1] / radius[1:] - 1).clamp_min(0).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", help="patch files; synthetic features if absent")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=303)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--peer-centers", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.features:
        files = open_patches(args.features)
        features = project(torch.cat([file.patches(i) for file in files for i in range(len(file.items))]))
    else:
        features = synthetic_features(args.rows, args.dimensions)
    print(f"{len(features)} x {features.shape[1]}, {args.threads} threads, medians of {args.repeats}")
    print("| ratio | centers | defectflow s | anomalib s | ratio | authors' approximate s | ratio | deviation |")
    print("|---|---|---|---|---|---|---|---|")
    for ratio in args.ratios:
        n = int(ratio * len(features))
        ours, anomalib, approximate = [], [], []
        for _ in range(args.repeats):
            anomalib.append(n * anomalib_sampler(features, args.peer_centers))
            approximate.append(n * approximate_sampler(features, args.peer_centers))
            begin = time.perf_counter()
            selected = k_center_greedy(features, n, start=0, progress=False)
            ours.append(time.perf_counter() - begin)
        a, b, c = median(ours), median(anomalib), median(approximate)
        off = deviation(features, selected)
        print(f"| {ratio} | {n} | {a:.2f} | {b:.1f} | {b / a:.0f} | {c:.1f} | {c / a:.0f} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
