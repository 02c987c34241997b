"""Detectors that train a network beside the others, in one process: figures, seconds to fit and to judge a photograph.

    snakemake --cores 1 --config dataset=cookie ... detector=pixel_difference keep_features=all
    python benchmarks/models.py results/cookie/none/none results/demo/template/crop --resnet18 resnet18.safetensors

A folder is what the runs of one data set share: isolated pictures, splits, masks; call it where the run was made, since
tables hold relative paths. The stages from features to evaluate are called as the rules call them, with the settings of
`MODELS`, and everything they write goes into a folder that is removed. fit: processor seconds of one training, the mean
of all of the run. judge: of a photograph, from its pixels.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.detection import calibrate, features, fit, score
from defectflow.evaluation import evaluate

ROOT = Path(__file__).parents[1]
NANO = {"backbone": "patch-nano", "layers": ["layer2", "layer3"]}
SMALL = {"method": "anomalib", "image_size": 128, "steps": 60}
RESNET = {"backbone": "resnet18"}
# By the name in the table; "weights" stands for the ResNet-18 of the command line.
MODELS = {
    "pixel_difference": {"method": "pixel_difference"},
    "patchcore": {"method": "patchcore", "image_size": 256},
    "spade": {"method": "spade", "image_size": 256},
    "vae": {"method": "vae", "steps": 300},
    "Padim, patch-nano": SMALL | {"model": "Padim", "options": NANO | {"n_features": 100}},
    "Patchcore, patch-nano": SMALL | {"model": "Patchcore", "options": NANO},
    "Dfm, patch-nano": SMALL | {"model": "Dfm", "options": {"backbone": "patch-nano", "layer": "layer3"}},
    "Stfpm, patch-nano": SMALL | {"model": "Stfpm", "options": NANO},
    "Supersimplenet, patch-nano": SMALL | {"model": "Supersimplenet", "options": NANO},
    "Fastflow, ResNet-18": SMALL | {"model": "Fastflow", "options": {"flow_steps": 4}, "weights": "weights"},
    "Cfa, ResNet-18": SMALL | {"model": "Cfa", "options": RESNET, "weights": "weights"},
    "ReverseDistillation, ResNet-18": SMALL | {"model": "ReverseDistillation", "options": RESNET, "weights": "weights"},
    "Ganomaly": SMALL | {"model": "Ganomaly", "options": {"n_features": 32}},
}
HEAD = "| set | model | banks | AUROC | AU-PRO | F1 | fit | judge |\n|---|---|---|---|---|---|---|---|"


def stage(module, *words: object) -> float:
    """Call a stage with the words of its command line; returns its processor seconds."""
    before = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        module.main(module.build_parser().parse_args([str(word) for word in words]))
    return time.process_time() - before


def row(shared: Path, name: str, settings: dict, folder: Path) -> str:
    """A line of the table."""
    data = shared.parents[1]
    shards = sorted(path.stem for path in (shared / "images").glob("*.csv"))
    of_stage = {key: value for key, value in settings.items() if key in ("image_size",)}
    text, threads = json.dumps(settings), ["--threads", torch.get_num_threads()]
    wholly = {"pixel_difference": "pixels", "patchcore": "patch-nano", "spade": "patch-nano"}
    wholly = wholly.get(settings["method"], "picture")
    of_stage |= {"backbone": wholly, "image_size": settings.get("image_size", 128 if wholly == "picture" else 512)}
    seconds = {"features": 0.0, "score": 0.0}
    files = {kind: [folder / f"{kind}-{shard}" for shard in shards] for kind in ("features", "scores", "maps")}
    for shard, made in zip(shards, files["features"], strict=True):
        tables = shared / "images" / f"{shard}.csv"
        seconds["features"] += stage(
            features, "--tables", tables, "--settings", json.dumps(of_stage), *threads, "--device", "cpu", "--out", made
        )
    splits, banks, report = ("--splits", data / "splits.csv"), folder / "banks", folder / "fit.json"
    learned = ("--features", *files["features"], *splits, *threads, "--device", "cpu", "--settings", text)
    fitted = stage(fit, *learned, "--out", banks, "--report", report)
    for made, table, maps in zip(*files.values(), strict=True):
        seconds["score"] += stage(
            score, "--features", made, "--banks", banks, *splits, *threads, "--device", "cpu", "--settings", text,
            "--scores", table, "--maps", maps,
        )  # fmt: skip
    stage(calibrate, *learned, "--out", folder / "calibration", "--maps", folder / "calibration-maps")
    masks = sorted((shared.parent / "masks").glob("*.csv"))
    stage(
        evaluate, "--scores", *files["scores"], "--maps", *files["maps"], "--calibration", folder / "calibration",
        "--calibration-maps", folder / "calibration-maps", "--manifest", data / "manifest.csv", *splits,
        "--fit", report, "--ingest-report", data / "ingest_report.json",
        *(["--masks", *masks] if masks else []), "--settings", json.dumps({"threshold": "auto"}),
        "--metrics", folder / "metrics.json", "--predictions", folder / "predictions.csv",
        "--robustness", folder / "robustness.csv", "--figures", folder / "figures",
    )  # fmt: skip
    figures, made = json.loads((folder / "metrics.json").read_text()), json.loads(report.read_text())["banks"]
    image, (low, high) = figures["image"], figures["confidence_intervals"]["auroc"]
    pixel = ((figures["pixel"] or {}).get("full_frame") or {}).get("au_pro")
    judged = image["n_good"] + image["n_bad"]
    cells = [
        data.name, name, len(made), f"{image['auroc']:.3f} ({low:.2f} to {high:.2f})",
        f"{pixel:.3f}" if pixel is not None else "", f"{image['f1']:.3f}" if image["f1"] is not None else "",
        f"{fitted / len(made):.1f} s", f"{1000 * sum(seconds.values()) / judged:.0f} ms",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print a line for each set and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="results/SET/SEGMENTER/ISOLATION")
    parser.add_argument("--only", nargs="+", metavar="MODEL", choices=MODELS, default=list(MODELS))
    parser.add_argument("--resnet18", type=Path, metavar="FILE", help="without it, models that need it are left out")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(HEAD, flush=True)
    for shared in args.folders:
        for name in args.only:
            settings = dict(MODELS[name])
            if settings.pop("weights", None):
                if args.resnet18 is None:
                    continue
                settings["weights"] = str(args.resnet18)
            with tempfile.TemporaryDirectory() as folder:
                print(row(shared, name, settings, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
