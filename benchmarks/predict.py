"""Prediction, from image files to raw scores and maps: defectflow's stages against anomalib's `Engine.predict`.

defectflow's time includes its stages `features` and `score` with their files, and the map on the pixels of each
photograph; anomalib's the model, the loader and its map on the pixels of the network's input, without its visualiser.
Both have the same backbone and the same bank (a coreset of ``--banks`` patches of other photographs), run alternately,
each in a process of its own; with ``--precision float32 bfloat16`` our network and bank run in both. Imports are not
counted. The last columns compare the scores and, smoothed as anomalib does, the maps; the two resize differently, so
only with ``--size`` equal to ``--image-size`` do they see the same pixels.

    python benchmarks/predict.py                                     # 40 images of 512 pixels
    python benchmarks/predict.py --count 213 --size 1024 --precision float32 bfloat16
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from fit import anomalib_model, embedder_imports


def processor_seconds() -> float:
    """Processor time of this process and its finished children: anomalib's loader reads in separate processes."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def defectflow_run(args: argparse.Namespace) -> dict:
    """The two stages, and the full-resolution maps."""
    import cv2
    import pandas as pd
    from defectflow.core import tables
    from defectflow.core.anomaly_maps import full_resolution, load_maps, smooth_map
    from defectflow.core.parallel import in_threads
    from defectflow.detection import features, score

    embedder_imports()
    gc.freeze()  # as `files.stage` does
    paths = sorted(Path(args.images).iterdir())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [[p.stem, str(p), "", 0, 0, args.size, args.size, 0.0, args.size, args.size, "", "", 0] for p in paths]
        tables.write_table(folder / "t.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
        splits = pd.DataFrame([[p.stem, "", "", "", "unlabelled", "", ""] for p in paths], columns=tables.SPLITS)
        tables.write_table(folder / "s.csv", splits, tables.SPLITS)
        common = ["--threads", str(args.threads), "--device", args.device]
        weights = ["--weights", args.weights] if args.weights else []
        network = {"backbone": args.backbone, "image_size": args.image_size, "precision": args.precision[0]}
        begin, cpu = time.perf_counter(), processor_seconds()
        features.main(
            features.build_parser().parse_args(
                ["--tables", f"{folder}/t.csv", *weights, "--settings",
                 json.dumps(network), "--out", f"{folder}/f.safetensors", *common]
            )
        )  # fmt: skip
        score.main(
            score.build_parser().parse_args(
                ["--features", f"{folder}/f.safetensors", "--banks", args.bank, "--splits", f"{folder}/s.csv",
                 "--settings", '{"method": "patchcore"}',
                 "--scores", f"{folder}/scores.csv", "--maps", f"{folder}/m.safetensors", *common]
            )
        )  # fmt: skip
        maps = load_maps([folder / "m.safetensors"])
        frame = (args.size, args.size)
        for _ in in_threads(lambda m: full_resolution(m.grid_map, m.affine, m.input_size, frame), maps.values()):
            pass
        seconds, cpu = time.perf_counter() - begin, processor_seconds() - cpu
        smooth = [smooth_map(e.grid_map, e.input_size, cv2.INTER_NEAREST, sigma=4) for e in maps.values()]
        scores = tables.read_table(folder / "scores.csv", tables.SCORES)["raw_score"]
    np.savez(args.result, scores=scores.to_numpy(), maps=np.stack(smooth))
    return {"seconds": seconds / len(paths), "cpu": cpu / len(paths)}


def anomalib_run(args: argparse.Namespace) -> dict:
    """`Engine.predict` of a model with the bank in it."""
    import torch
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader

    torch.set_num_threads(args.threads)
    args.ratio = 0.1
    with tempfile.TemporaryDirectory() as name:
        begin, cpu = time.perf_counter(), processor_seconds()
        model = anomalib_model(args)
        model.post_processor = None  # raw scores
        model.model.memory_bank = load_file(args.bank)["all"]
        engine = Engine(default_root_dir=name, accelerator=args.device, devices=1, enable_progress_bar=False)
        data = PredictDataset(path=Path(args.images), image_size=(args.image_size, args.image_size))
        loader = DataLoader(data, batch_size=1, num_workers=args.threads, collate_fn=data.collate_fn)
        batches = engine.predict(model=model, dataloaders=loader)
        seconds, cpu = time.perf_counter() - begin, processor_seconds() - cpu
    scores = np.concatenate([batch.pred_score.numpy().reshape(-1) for batch in batches])
    np.savez(args.result, scores=scores, maps=np.stack([batch.anomaly_map.numpy().squeeze() for batch in batches]))
    return {"seconds": seconds / len(scores), "cpu": cpu / len(scores)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of square images; made up if absent")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--size", type=int, default=512, help="of the files, in pixels")
    parser.add_argument("--image-size", type=int, default=256, help="of the network's input")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--banks", type=int, nargs="+", default=[2181, 21811], help="sizes of the bank, in patches")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--run", choices=["bank", "defectflow", "anomalib"], help=argparse.SUPPRESS)
    parser.add_argument("--bank", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    args = parser.parse_args()
    from common import in_process, make_bank, medians, photographs

    if args.run == "bank":
        make_bank(Path(args.bank), args.banks[0], args)
        print("{}")
        return
    if args.run:
        result = {"defectflow": defectflow_run, "anomalib": anomalib_run}[args.run](args)
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return

    folder = Path(tempfile.gettempdir()) / "defectflow-benchmark"
    args.images = args.images or photographs(folder, args.count, args.size)
    shared = ["--images", args.images, "--size", args.size, "--image-size", args.image_size,
              "--backbone", args.backbone, "--threads", args.threads, "--device", args.device]  # fmt: skip
    shared += ["--weights", args.weights] if args.weights else []
    print(f"{len(list(Path(args.images).iterdir()))} images, {args.threads} threads, medians of {args.repeats}")
    print("| bank | precision | | defectflow | anomalib | ratio | scores differ | maps differ |\n|" + "---|" * 8)
    programs = [("anomalib", "float32"), *(("defectflow", precision) for precision in args.precision)]
    for size in args.banks:
        banks = {p: folder / f"bank{size}-{p}.safetensors" for _, p in programs}
        for precision, path in banks.items():
            options = ["--count", args.count, "--banks", size, "--precision", precision, "--bank", path]
            in_process(__file__, *shared, *options, "--run", "bank")
        results = [folder / f"{name}-{precision}.npz" for name, precision in programs]
        runs: list[list[dict]] = [[] for _ in programs]
        for _ in range(args.repeats):
            for (name, precision), path, done in zip(programs, results, runs, strict=True):
                options = ["--precision", precision, "--bank", banks[precision], "--run", name, "--result", path]
                done.append(in_process(__file__, *shared, *options))
        peer, peers = medians(runs[0]), np.load(results[0])
        for (_, precision), path, done in list(zip(programs, results, runs, strict=True))[1:]:
            own, owns = medians(done), np.load(path)
            differ = [float(np.abs(owns[key] - peers[key]).max()) for key in ("scores", "maps")]
            start, end = f"| {size} | {precision}", f"{differ[0]:.1e} | {differ[1]:.1e} |"
            for key, unit in (("seconds", "ms"), ("cpu", "processor ms")):
                times = f"{own[key] * 1e3:.0f} | {peer[key] * 1e3:.0f} | {peer[key] / own[key]:.1f}"
                print(f"{start} | {unit} per image | {times} | {end}")
                start, end = "| |", "| |"
            print(f"| | | peak memory, MB | {own['peak_mb']:.0f} | {peer['peak_mb']:.0f} | | | |", flush=True)


if __name__ == "__main__":
    main()
