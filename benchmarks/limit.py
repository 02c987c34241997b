"""How far the parts of a fit and a prediction are from what this machine can do: operations, bytes, times.

Least time is the larger of the operations at the machine's best matrix product or convolution and the bytes that have
to be read and written once at its copy speed, all measured here on one core; of a network, the bytes of each layer.
Search and coreset are compared with all distances by a product in bfloat16, where the processor has such products; they
can take less, because they measure along few axes. "Taken" is processor time with one thread.

    python benchmarks/limit.py --weights resnet18.safetensors
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))


def seconds(run: Callable[[], Any], repeats: int = 15) -> float:
    """Median processor time of a call, after a warm-up call."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return median(times)


def network_work(embedder: Any, picture: np.ndarray) -> tuple[int, int]:
    """Operations of the convolutions of a float32 network, and the bytes that each reads and writes."""
    from defectflow.backbones.patch_embedding import _Convolution

    found = []

    def note(module: Any, inputs: tuple, output: Any) -> None:
        weights = module._weight.numel()
        found.append((2 * weights * output[0, 0].numel(), 4 * (inputs[0].numel() + weights + output.numel())))

    convolutions = [module for module in embedder.network.modules() if isinstance(module, _Convolution)]
    hooks = [module.register_forward_hook(note) for module in convolutions]
    embedder(picture[None])
    for hook in hooks:
        hook.remove()
    return tuple(map(sum, zip(*found, strict=True)))


def main() -> None:
    """Print what the machine does at its best, and the table."""
    import torch
    from common import photographs
    from coreset import synthetic_features
    from defectflow.backbones.network_input import Scale, fit_picture
    from defectflow.backbones.patch_embedding import PatchEmbedder, _Convolution
    from defectflow.core.anomaly_maps import full_resolution
    from defectflow.core.device import multiplies_bfloat16, product
    from defectflow.detection.features import _read
    from defectflow.methods.patchcore.memory_bank import Bank
    from defectflow.search.coreset import k_center_greedy

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="of a ResNet-18")
    parser.add_argument("--rows", type=int, default=218_112, help="patches of the coreset (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    large, wide = torch.randn(2048, 2048), torch.randn(1, 256, 64, 64).to(memory_format=torch.channels_last)
    half, fast = large.bfloat16(), multiplies_bfloat16()
    kernel = torch.nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last).requires_grad_(False)
    convolution, source = _Convolution(kernel), np.ones(2**25, np.float32)
    target = source.copy()
    with torch.inference_mode():
        single = 2 * 2048**3 / seconds(lambda: product(large, large))
        double = 2 * 2048**3 / seconds(lambda: half @ half) if fast else single
        convolved = 2 * 9 * 256**2 * 64**2 / seconds(lambda: convolution(wide, None, False))
    copied = 2 * source.nbytes / seconds(lambda: np.copyto(target, source))
    rates = [f"{rate / 1e9:.0f}" for rate in (single, double, convolved, copied)]
    print(
        "One core: {} GFLOP/s in float32 products, {} in bfloat16, {} in float32 convolutions, {} GB/s".format(*rates)
    )
    print("\n| part | operations | bytes | least time | taken |\n|---|---|---|---|---|")

    def row(part: str, operations: float, rate: float, moved: float, taken: float) -> None:
        least = max(operations / rate, moved / copied)
        print(f"| {part} | {operations / 1e9:.2f} GFLOP | {moved / 1e6:.1f} MB | {least * 1e3:.1f} ms | "
              f"{taken * 1e3:.1f} ms |", flush=True)  # fmt: skip

    def fitted(path: Path) -> np.ndarray:
        return fit_picture(_read(str(path)), None, (0, 0, 1024, 1024), (256, 256), [Scale(1, (32, 32))], 4).picture

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = sorted(photographs(Path(folder), 24, 1024).iterdir())
        decoded = 2 * 1024**2 * 3 + paths[0].stat().st_size + 256**2 * 3
        row("JPEG of 1024 x 1024, letterbox to 256", 0, single, decoded, seconds(lambda: fitted(paths[0])))
        pictures = [fitted(path) for path in paths]
        embedder = PatchEmbedder("resnet18.tv_in1k", ["layer2", "layer3"], args.weights)
        patches = [embedder(picture[None])[0].flatten(0, 1) for picture in pictures]
        work, moved = network_work(embedder, pictures[0])
        row("ResNet-18 to layer3, embedding", work, convolved, moved, seconds(lambda: embedder(pictures[0][None])))
        pool = torch.cat(patches[:-2])
        for count in (2181, 21_811):
            bank = Bank(pool[k_center_greedy(pool, min(count, len(pool)), progress=False)])
            for other in patches:  # a warm-up, in which the bank chooses its number of axes
                bank.nearest(other)
            size_of = len(bank.features)
            pairs, moved = 2 * 1024 * size_of * 384, 4 * 384 * (1024 + size_of)
            row(f"nearest neighbours, 1,024 patches, bank of {size_of:,}", pairs, double, moved,
                seconds(lambda bank=bank: bank.nearest(patches[-1])))  # fmt: skip
        heat, affine = np.ones((32, 32), np.float32), np.array([[4.0, 0, 1.5], [0, 4, 1.5]])
        row("map of 1024 x 1024", 0, single, 4 * (1024**2 + 256**2 * 3),
            seconds(lambda: full_resolution(heat, affine, (256, 256), (1024, 1024))))  # fmt: skip
        features = synthetic_features(args.rows, 303)
        for ratio in (0.01, 0.1):
            centers = int(ratio * args.rows)
            taken = seconds(lambda n=centers: k_center_greedy(features, n, progress=False), 1)
            work, moved = 2 * args.rows * centers * 303, 4 * args.rows * 303
            row(f"coreset of {ratio:.0%}, {args.rows:,} x 303", work, double, moved, taken)


if __name__ == "__main__":
    main()
