"""Images per second of patch-nano and of ResNet-18's trunk to layer3, the networks alone, alternately in one run.

The last line is how the stages run them: traced and fused, each image by one thread.

python benchmarks/backbone.py [--threads 2] [--size 256] [--batch 1 8] [--rounds 30]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from defectflow.backbones.networks import create_backbone
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core.parallel import in_threads

LAYERS = ("layer2", "layer3")
NAMES = ("patch-nano", "resnet18")  # the speed of a ResNet-18 does not depend on its weights


def seconds(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall time in seconds of `rounds` passes of each network, alternately, after three warm-up passes."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for k in range(rounds + 3):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    return times


def tell(what: str, images: int, times: dict[str, list[float]]) -> None:
    """Print images per second and the median ratio of consecutive passes; each pass computes ``images`` images."""
    rates = {name: images / statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(b / a for a, b in zip(*(times[name] for name in NAMES), strict=True))
    fastest = min(times["resnet18"]) / min(times["patch-nano"])  # least affected by a busy machine
    speeds = ", ".join(f"{name} {rate:.1f} images/s" for name, rate in rates.items())
    print(f"{what}: {speeds}, median ratio {ratio:.2f}, of the fastest passes {fastest:.2f}")


def main() -> None:
    """Print images per second for both layouts of memory and batches, and as the stages do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = f"{args.size} px, {args.threads} threads"
    with torch.inference_mode():
        for layout in (torch.channels_last, torch.contiguous_format):
            networks = {name: create_backbone(name, LAYERS).to(memory_format=layout) for name in NAMES}
            for batch in args.batch:
                x = torch.randn(batch, 3, args.size, args.size).to(memory_format=layout)
                times = seconds({name: partial(network, x) for name, network in networks.items()}, args.rounds)
                tell(f"{layout}, batch {batch}, {size}", batch, times)
        images = torch.randn(4 * args.threads, 3, args.size, args.size).to(memory_format=torch.channels_last).split(1)

        def as_stages_do(network: torch.nn.Module) -> None:
            def run(x: torch.Tensor) -> None:
                with torch.inference_mode():  # it is set per thread
                    network(x)

            deque(in_threads(run, images), maxlen=0)

        networks = {name: PatchEmbedder(name, LAYERS).network for name in NAMES}
        times = seconds({name: partial(as_stages_do, network) for name, network in networks.items()}, args.rounds)
        tell(f"as the stages do, an image for each thread, {size}", len(images), times)


if __name__ == "__main__":
    main()
