"""Latency of an inspector by runtime, beside anomalib's model in eager PyTorch with the same backbone and bank.

    python benchmarks/latency.py results/demo/template/crop/patchcore/bundle results/demo/source/images

All get the same isolated pictures. Eager PyTorch means anomalib's modules, called one after the other unchanged: once
the whole model, which searches all cells of the grid and makes a map, and once for the part's cells only and without a
map, which is what the inspector computes. The inspector's own `torch` runs eagerly too, with fused calls and its own
search. The runtimes must agree in every verdict.
On a busy machine look at processor time.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.backbones.network_input import Loaded
from defectflow.images.read_write import read_photograph
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.latency import STEPS, quantile, report, run
from defectflow.inspection.mask_and_score import read_bank
from defectflow.inspection.photo_sources import photographs


def anomalib_eager(folder: Path, items: list[Loaded], threads: int) -> tuple[list[list[float]], list[bool]]:
    """anomalib's PatchcoreModel in evaluation mode: processor seconds for each picture, of the whole and of the part's
    cells; and its verdicts by the latter.
    """
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD
    from defectflow.backbones.networks import create_backbone

    torch.set_num_threads(threads)
    bundle = read_bundle(folder)
    network = bundle.settings["network"]
    backbone = create_backbone(network["backbone"], network["layers"], bundle.path("backbone.safetensors"))
    model = PatchcoreModel(layers=network["layers"], backbone=backbone).eval()
    model.memory_bank = torch.from_numpy(read_bank(bundle)[0][""]).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def of_part(x: torch.Tensor, cells: torch.Tensor) -> float:
        features = {layer: model.feature_pooler(feature) for layer, feature in model.feature_extractor(x).items()}
        patches = model.reshape_embedding(model.generate_embedding(features))[cells]
        distances, places = model.nearest_neighbors(embedding=patches, n_neighbors=1)
        return float(model.compute_anomaly_score(distances[None], places[None], patches))

    times, bad = [], []
    with torch.inference_mode():
        for item in [items[0], *items]:
            cells, clock = torch.from_numpy(item.cells), [time.process_time()]
            for judge in (model, partial(of_part, cells=cells)):
                found = judge(((torch.from_numpy(item.picture).permute(2, 0, 1) / 255 - mean) / std)[None])
                clock.append(time.process_time())
            times.append(np.diff(clock))
            bad.append(found >= bundle.settings["threshold"]["value"])
    return np.array(times[1:]).T.tolist(), bad[1:]


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
    items = [inspector.prepare(read_photograph(path)) for path in paths]
    cpu = {name: result["cpu"] for name, result in results.items()}
    # The steps that surround the model are ours there as well.
    names = ("anomalib, eager PyTorch", "the same, of the part")
    times_of_each, of_eager = anomalib_eager(args.bundle, items, args.threads)
    alike = sum(a == b for a, b in zip(of_eager, verdicts[0], strict=True))
    print(f"eager PyTorch, in the part: {alike} of {len(paths)} verdicts the same")
    eager = {
        name: {**cpu["torch"], "network": times, "search": [0.0] * len(paths)}
        for name, times in zip(names, times_of_each, strict=True)
    }
    steps = {
        "network and search": ("network", "search"),
        "all but finding the part": STEPS[:1] + STEPS[2:],
        "all": STEPS,
    }
    print(f"\n| processor ms, p50 / p95 | {' | '.join(steps)} |\n|---{'|---' * len(steps)}|")
    for name, times in (eager | cpu).items():
        sums = [[sum(values) for values in zip(*(times[step] for step in own), strict=True)] for own in steps.values()]
        cells = [f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f}" for values in sums]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
