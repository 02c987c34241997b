"""Every data set below a folder with the default settings: figures with intervals, time, disk.

    python benchmarks/sets.py ../sets
    python benchmarks/sets.py ../sets --only cookie casting --config detector=padim --peer resnet18.safetensors

A set is a folder that the workflow takes as ``path`` of a data set. Each gets a run of its own below --results, which
goes on where it was stopped. Columns:

- good, bad: judged photographs. Each is judged by a memory bank and a threshold that have not seen it.
- F1: at those thresholds. Best F1: at the one threshold that is best on these very scores, which nobody could have
  known; the difference is what choosing a threshold cost.
- processor: seconds of all cores for a photograph, from survey to report, in this call; disk: megabytes for one.
- anomalib (--peer): image AUROC of its PatchCore at its defaults (256 pixels, a tenth of the patches), with the
  network of that file, on whole pictures; only for sets that say themselves what is learned and what is judged.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.images.read_write import letterbox, read_rgb, write_png

ROOT = Path(__file__).parents[1]
HEAD = (
    "| set | run | good, bad | AUROC | pixel AUROC | AU-PRO | F1 | best F1 | false alarms | misses | "
    "processor | disk | anomalib |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def run(folder: Path, args: argparse.Namespace) -> dict:
    """Run the workflow on one set, and collect its figures.

    Raises:
        subprocess.CalledProcessError: the run failed; its messages are in the log.
    """
    work = args.results / folder.name
    work.mkdir(parents=True, exist_ok=True)
    config = [f"dataset={folder.name}", f"datasets={json.dumps({folder.name: {'path': str(folder.resolve())}})}"]
    command = [
        "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", ROOT / "config.yaml",
        "--directory", work, "--cores", args.cores, "--quiet",
        "--config", *config, "compare=[]", *args.config,
    ]  # fmt: skip
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (work / "snakemake.log").open("w") as log:
        subprocess.run([str(word) for word in command], check=True, stdout=log, stderr=log, env=environment())
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (metrics,) = (work / "results" / folder.name).glob("*/*/*/metrics.json")  # --config names one run
    files = [path for path in (work / "results").rglob("*") if path.is_file() and not path.is_symlink()]
    table = pd.read_csv(work / "results" / folder.name / "manifest.csv")
    return {
        "set": folder.name, "run": "/".join(metrics.parts[-4:-1]), "figures": json.loads(metrics.read_text()),
        "scores": pd.read_csv(metrics.with_name("predictions.csv")), "photographs": len(table), "wall": wall,
        "processor": processor / len(table), "disk": sum(path.stat().st_size for path in files) / 1e6 / len(table),
    }  # fmt: skip


def environment() -> dict[str, str]:
    """That of the run: this checkout's package, and the programs beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "PATH": path}


def best_f1(scores: pd.DataFrame) -> float:
    """The largest F1 that one threshold reaches on these scores."""
    judged = scores[scores["label"].notna() & scores["raw_score"].notna()]
    precision, recall, _ = precision_recall_curve(judged["label"], judged["raw_score"])
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def peer(found: dict, args: argparse.Namespace) -> str:
    """Image AUROC of anomalib's PatchCore on the same split; "" for a set whose folds were drawn here."""
    if found["figures"]["protocol"]["name"] != "fixed":
        return ""
    from parity import anomalib_run

    folder = args.results / found["set"] / "results" / found["set"]
    table = pd.read_csv(folder / "manifest.csv", index_col="image_id")[["path"]]
    table = table.join(pd.read_csv(folder / "splits.csv", index_col="image_id")).sort_index()
    learned = table[(table["detection"] == "train") & (table["label"] == 0)]
    judged = table[(table["detection"] == "test") & table["label"].notna()]
    with tempfile.TemporaryDirectory() as name:
        for part, rows in (("train", learned), ("test", judged)):
            for number, path in enumerate(rows["path"]):
                picture, _ = letterbox(read_rgb(path), (args.image_size, args.image_size))
                write_png(Path(name) / part / f"{number:05}.png", picture)
        result, _ = anomalib_run(Path(name), args, 0.1, 0)
    return f"{roc_auc_score(judged['label'], result.scores):.3f}"


def row(found: dict, beside: str) -> tuple[str, list[float]]:
    """A line of the table, and what the last line averages: AUROC, pixel AUROC, AU-PRO, F1, best F1."""
    figures = found["figures"]
    image, intervals = figures["image"], figures["confidence_intervals"]
    pixel = (figures["pixel"] or {}).get("full_frame") or {}
    counts, f1, best = image["confusion_matrix"], image["f1"], best_f1(found["scores"])
    low, high = intervals["auroc"]
    f1_low, f1_high = intervals["bootstrap"]["f1"]
    areas = [pixel.get("auroc"), pixel.get("au_pro")]
    told = [
        found["set"], found["run"], f"{image['n_good']}, {image['n_bad']}",
        f"{image['auroc']:.3f} ({low:.3f} to {high:.3f})", *(f"{area:.3f}" if area else "" for area in areas),
        f"{f1:.3f} ({f1_low:.3f} to {f1_high:.3f})", f"{best:.3f}",
        f"{counts['false_positive']} of {image['n_good']}", f"{counts['false_negative']} of {image['n_bad']}",
        f"{found['processor']:.2f} s", f"{found['disk']:.1f} MB", beside,
    ]  # fmt: skip
    averaged = [image["auroc"], *(np.nan if area is None else area for area in areas), f1, best]
    return "| " + " | ".join(told) + " |", averaged


def main() -> None:
    """Print a line for each set, and one with the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="SET")
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings in place of the defaults"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "benchmarks" / "sets", metavar="FOLDER")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--peer", dest="weights", metavar="FILE", help="ResNet-18 for anomalib's PatchCore")
    args = parser.parse_args()
    args.backbone, args.image_size, args.threads = "resnet18.tv_in1k", 256, args.cores
    folders = sorted(path for path in args.folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if args.only:
        if absent := sorted(set(args.only) - {path.name for path in folders}):
            parser.error(f"{args.folder}: holds no folder {', '.join(absent)}")
        folders = [path for path in folders if path.name in args.only]
    print(HEAD)
    means = []
    for folder in folders:
        try:
            found = run(folder, args)
        except subprocess.CalledProcessError:
            lines = (args.results / folder.name / "snakemake.log").read_text().splitlines()
            why = next((line for line in lines if "rror" in line), "see its snakemake.log")
            print(f"| {folder.name} | failed: {why.strip()} |", flush=True)
            continue
        line, averaged = row(found, peer(found, args) if args.weights else "")
        print(line, flush=True)
        means.append(averaged)
    if means:
        columns = [[value for value in column if not np.isnan(value)] for column in zip(*means, strict=True)]
        auroc, pixel_auroc, au_pro, f1, best = (f"{np.mean(column):.3f}" if column else "" for column in columns)
        print(f"| mean of {len(means)} | | | {auroc} | {pixel_auroc} | {au_pro} | {f1} | {best} | | | | | |")


if __name__ == "__main__":
    main()
