"""Images per second of patch-nano and of ResNet-18's trunk to layer3, the networks alone, in turns in one run.

python benchmarks/backbone.py [--threads 2] [--size 256] [--batch 1 8] [--rounds 30]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from defectflow.backbones import create_backbone

NAMES = ("patch-nano", "resnet18")  # the speed of a ResNet-18 does not depend on its weights


def seconds(networks: dict[str, torch.nn.Module], x: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Wall time of `rounds` forward passes of each network, in turns, after three that do not count."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for k in range(rounds + 3):
        for name, network in networks.items():
            start = time.perf_counter()
            network(x)
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print images per second and the median of the ratios of neighbouring passes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for layout in (torch.channels_last, torch.contiguous_format):
        networks = {name: create_backbone(name, ("layer2", "layer3")).to(memory_format=layout) for name in NAMES}
        for batch in args.batch:
            x = torch.randn(batch, 3, args.size, args.size).to(memory_format=layout)
            with torch.inference_mode():
                times = seconds(networks, x, args.rounds)
            rates = {name: batch / statistics.median(values) for name, values in times.items()}
            ratio = statistics.median(b / a for a, b in zip(*(times[name] for name in NAMES), strict=True))
            fastest = min(times["resnet18"]) / min(times["patch-nano"])  # what a busy machine disturbs least
            print(
                f"{layout}, batch {batch}, {args.size} px, {args.threads} threads: "
                + ", ".join(f"{name} {rate:.1f} images/s" for name, rate in rates.items())
                + f", median ratio {ratio:.2f}, of the fastest passes {fastest:.2f}"
            )


if __name__ == "__main__":
    main()
