"""Latency of an inspector by runtime, beside anomalib's model in eager PyTorch with the same backbone and bank.

    python benchmarks/latency.py results/demo/template/crop/patchcore/bundle results/demo/source/images

Both see the same isolated pictures; anomalib searches all cells of the grid. The runtimes must agree in every verdict.
On a busy machine look at processor time.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.bundle_files import read_bundle
from defectflow.inspector import Inspector, read_photograph
from defectflow.inspector_bench import STEPS, quantile, report, run
from defectflow.inspector_files import photographs
from defectflow.inspector_parts import read_bank


def anomalib_eager(folder: Path, pictures: list, threads: int) -> list[float]:
    """Processor seconds for each picture of anomalib's PatchcoreModel in evaluation mode."""
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from defectflow.backbones import create_backbone
    from defectflow.embedding import IMAGENET_MEAN, IMAGENET_STD

    torch.set_num_threads(threads)
    bundle = read_bundle(folder)
    network = bundle.settings["network"]
    backbone = create_backbone(network["backbone"], network["layers"], bundle.path("backbone.safetensors"))
    model = PatchcoreModel(layers=network["layers"], backbone=backbone).eval()
    model.memory_bank = torch.from_numpy(read_bank(bundle)[0][""]).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    times = []
    with torch.inference_mode():
        for picture in [pictures[0], *pictures]:
            start = time.process_time()
            model(((torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std)[None])
            times.append(time.process_time() - start)
    return times[1:]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    paths = [str(path) for path in photographs(args.paths)]
    results = {name: run(args.bundle, paths, name, "fp32", args.threads, 1) for name in ("openvino", "onnx", "torch")}
    print(report(results))
    verdicts = [result["bad"] for result in results.values()]
    assert all(other == verdicts[0] for other in verdicts), "verdicts differ between runtimes"
    print(f"\n{len(paths)} photographs, {sum(verdicts[0])} bad, the same verdicts by every runtime")
    inspector = Inspector.load(args.bundle, "openvino")
    pictures = [inspector.prepare(read_photograph(path)).picture for path in paths]
    cpu = {name: result["cpu"] for name, result in results.items()}
    # The steps that surround the model are ours there as well.
    eager = {
        **cpu["torch"],
        "network": anomalib_eager(args.bundle, pictures, args.threads),
        "search": [0.0] * len(paths),
    }
    steps = {
        "network and search": ("network", "search"),
        "all but finding the part": STEPS[:1] + STEPS[2:],
        "all": STEPS,
    }
    print(f"\n| processor ms, p50 / p95 | {' | '.join(steps)} |\n|---{'|---' * len(steps)}|")
    for name, times in {"anomalib, eager PyTorch": eager, **cpu}.items():
        sums = [[sum(values) for values in zip(*(times[step] for step in own), strict=True)] for own in steps.values()]
        cells = [f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f}" for values in sums]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
