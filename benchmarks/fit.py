"""Fit, from image files to the saved bank: defectflow's stages `features` and `fit` against anomalib's `Engine.fit`.

Both read the same files with the same backbone, layers, image size and coreset ratio, alternately. Each run has its own
process, like each stage in the workflow (the peak memory is that of the larger stage). Starting Python
and importing libraries is timed apart. anomalib's selection takes the same time for each center: only
``--peer-centers`` are run, and the rest is added in proportion (0: all are run).

    python benchmarks/fit.py                                         # 40 images of 512 pixels
    python benchmarks/fit.py --count 213 --size 1024 --ratios 0.01 0.1
    python benchmarks/fit.py --images data/good --weights resnet18.safetensors
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))


def features_run(args: argparse.Namespace) -> dict:
    """Stage `features` on the images without isolation."""
    begin = time.perf_counter()
    import pandas as pd
    from defectflow.core import tables
    from defectflow.detection import features

    embedder_imports()
    imports = time.perf_counter() - begin
    folder = Path(args.folder)
    paths = sorted(Path(args.images).iterdir())
    rows = [[p.stem, str(p), "", 0, 0, args.size, args.size, 0.0, args.size, args.size, "", "", 0] for p in paths]
    tables.write_table(folder / "t.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
    splits = pd.DataFrame([[p.stem, "", 0, "", "train", "", ""] for p in paths], columns=tables.SPLITS)
    tables.write_table(folder / "s.csv", splits, tables.SPLITS)
    weights = ["--weights", args.weights] if args.weights else []
    settings = json.dumps({"backbone": args.backbone, "image_size": args.image_size})
    options = ["--tables", f"{folder}/t.csv", "--settings", settings, *weights]
    return timed(features, args, *options, "--out", f"{folder}/f.safetensors") | {"imports": imports}


def fit_run(args: argparse.Namespace) -> dict:
    """Stage `fit` on what `features_run` wrote."""
    begin = time.perf_counter()
    from defectflow.detection import fit

    imports = time.perf_counter() - begin
    folder = Path(args.folder)
    settings = json.dumps({"method": "patchcore", "coreset_ratio": args.ratio, "coreset_max": 10**9})
    options = ["--features", f"{folder}/f.safetensors", "--splits", f"{folder}/s.csv", "--settings", settings]
    options += ["--out", f"{folder}/b.safetensors", "--report", f"{folder}/fit.json"]
    return timed(fit, args, *options) | {"imports": imports}


def timed(stage: ModuleType, args: argparse.Namespace, *options: object) -> dict:
    """Run a stage; wall-clock and processor seconds."""
    options = [str(option) for option in (*options, "--threads", args.threads, "--device", args.device)]
    gc.freeze()  # as `files.stage` does
    begin, cpu = time.perf_counter(), time.process_time()
    stage.main(stage.build_parser().parse_args(options))
    return {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}


def both(features: dict, fit: dict) -> dict:
    """Time and memory of both stages, one after the other, each in its own process, as in the workflow."""
    whole = {key: features[key] + fit[key] for key in ("seconds", "cpu", "imports")}
    return whole | {"extraction": features["seconds"], "peak_mb": max(features["peak_mb"], fit["peak_mb"])}


def embedder_imports() -> None:
    """Import what the embedding imports when it is made."""
    from defectflow.backbones.networks import create_backbone  # noqa: F401
    from torchvision.models.feature_extraction import create_feature_extractor  # noqa: F401


def anomalib_run(args: argparse.Namespace) -> dict:
    """`Engine.fit` with a shortened coreset selection; the rest of its time is added in proportion."""
    import torch

    begin = time.perf_counter()
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models.components.sampling import k_center_greedy

    imports = time.perf_counter() - begin
    torch.set_num_threads(args.threads)
    spent: dict[str, float] = {}

    class Short(k_center_greedy.KCenterGreedy):
        def select_coreset_idxs(self) -> list[int]:
            whole = self.coreset_size
            self.coreset_size = min(whole, args.peer_centers or whole)
            begin = time.perf_counter()
            chosen = super().select_coreset_idxs()
            seconds = time.perf_counter() - begin
            spent["coreset"] = seconds * whole / self.coreset_size
            spent["added"] = spent["coreset"] - seconds
            return chosen

    from anomalib.models.image.patchcore import torch_model

    torch_model.KCenterGreedy = Short
    model = anomalib_model(args)
    with tempfile.TemporaryDirectory() as name:
        data = Folder(
            name="x", root=args.images, normal_dir=".", normal_split_ratio=0, test_split_mode="none",
            val_split_mode="none", train_batch_size=32, num_workers=args.threads, seed=0,
        )  # fmt: skip
        engine = Engine(
            default_root_dir=name, accelerator=args.device, devices=1, enable_progress_bar=False, limit_val_batches=0
        )
        begin, cpu = time.perf_counter(), time.process_time()
        engine.fit(model=model, datamodule=data)
        total = time.perf_counter() - begin + spent["added"]
    cpu = (time.process_time() - cpu) * total / (total - spent["added"])
    return {"seconds": total, "extraction": total - spent["coreset"], "cpu": cpu, "imports": imports}


def anomalib_model(args: argparse.Namespace):
    """anomalib's Patchcore with our backbone, so that both compute the same features."""
    from anomalib.models import Patchcore
    from defectflow.backbones.networks import create_backbone

    layers = ["layer2", "layer3"]
    return Patchcore(
        backbone=create_backbone(args.backbone, layers, args.weights),
        layers=layers,
        pre_processor=Patchcore.configure_pre_processor((args.image_size, args.image_size)),
        coreset_sampling_ratio=args.ratio,
        visualizer=False,
        evaluator=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of square images; made up if absent")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--size", type=int, default=512, help="of the files, in pixels")
    parser.add_argument("--image-size", type=int, default=256, help="of the network's input")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--peer-centers", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--run", choices=["features", "fit", "anomalib"], help=argparse.SUPPRESS)
    parser.add_argument("--ratio", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        result = {"features": features_run, "fit": fit_run, "anomalib": anomalib_run}[args.run](args)
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return

    from common import in_process, medians, photographs

    args.images = args.images or photographs(
        Path(tempfile.gettempdir()) / "defectflow-benchmark", args.count, args.size
    )
    print(f"{len(list(Path(args.images).iterdir()))} images, {args.threads} threads, medians of {args.repeats}")
    print("| ratio | | defectflow | anomalib | ratio |\n|---|---|---|---|---|")
    shared = ["--images", args.images, "--size", args.size, "--image-size", args.image_size,
              "--backbone", args.backbone, "--threads", args.threads, "--device", args.device,
              "--peer-centers", args.peer_centers]  # fmt: skip
    shared += ["--weights", args.weights] if args.weights else []
    for ratio in args.ratios:
        ours, peer = [], []
        for _ in range(args.repeats):
            peer.append(in_process(__file__, *shared, "--ratio", ratio, "--run", "anomalib"))
            with tempfile.TemporaryDirectory() as folder:
                options = (*shared, "--ratio", ratio, "--folder", folder, "--run")
                ours.append(both(*(in_process(__file__, *options, stage) for stage in ("features", "fit"))))
        a, b = medians(ours), medians(peer)
        print(f"| {ratio} | fit, s | {a['seconds']:.1f} | {b['seconds']:.1f} | {b['seconds'] / a['seconds']:.1f} |")
        print(f"| | of it features, s | {a['extraction']:.1f} | {b['extraction']:.1f} | |")
        print(f"| | processor time of the main process, s | {a['cpu']:.1f} | {b['cpu']:.1f} | |")
        print(f"| | imports before, s | {a['imports']:.1f} | {b['imports']:.1f} | |")
        print(f"| | peak memory, MB | {a['peak_mb']:.0f} | {b['peak_mb']:.0f} | |", flush=True)


if __name__ == "__main__":
    main()
