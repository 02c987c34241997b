"""How the workflow copes with 1,000, 10,000 and 100,000 photographs: dry runs, jobs, folders, memory of every stage.

    python benchmarks/scale.py --folder FOLDER --out FOLDER/scale.json --plot docs/scale.png

Makes small distinct pictures, plans the run cold (every file is hashed) and again, runs it up to --until, adds one
picture and makes what the fit waits for: the table of images, the splits and the features of that picture's shard.
Times are processor seconds, so that other work on the machine does not count.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from defectflow.config.configuration import shard_count
from defectflow.listing.image_names import image_ids, shard_of

ROOT = Path(__file__).parents[1]
SIZE = 48  # pixels a side
NEW = "new.png"


def picture(number: int) -> np.ndarray:
    """A grey plate with its number in noise, uint8 (SIZE, SIZE, 3); every tenth has a blot."""
    generator = np.random.default_rng(number)
    image = generator.integers(90, 130, (SIZE, SIZE, 3)).astype(np.uint8)
    if number % 10 == 9:
        cv2.circle(image, tuple(generator.integers(12, SIZE - 12, 2).tolist()), 5, (20, 20, 20), -1)
    return image


def photographs(folder: Path, count: int) -> None:
    """Write ``count`` pictures, 1,000 to a folder, and labels.csv: one in a hundred is labelled."""
    rows = ["filename,label"]
    for number in range(count):
        path = folder / "images" / f"{number // 1000:03d}" / f"{number:06d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(number))
        if number % 100 in (0, 1, 9):
            rows.append(f"{path.relative_to(folder / 'images')},{int(number % 10 == 9)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def measured(command: list[str], folder: Path) -> tuple[str, float, float]:
    """Output, processor seconds and peak memory in MB of a command with all its children."""
    script = (
        "import json, resource, subprocess, sys; r = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([r.returncode, r.stdout + r.stderr, u.ru_utime + u.ru_stime, u.ru_maxrss / 1024]))"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], cwd=folder, capture_output=True, check=True)
    status, output, seconds, memory = json.loads(done.stdout)
    if status:
        sys.exit(output)
    return output, seconds, memory


def snakemake(folder: Path, count: int, *arguments: str) -> tuple[str, float, float]:
    """Run Snakemake on the set of ``count`` pictures in a folder of its own."""
    config = {
        "dataset": "many",
        "datasets": {"many": {"path": f"{folder}/{count}/data"}},
        "compare": [],
        "device": "cpu",
        "detectors": {"patchcore": {"image_size": 64, "coreset_max": 1000, "max_patches": 20000}},
    }
    command = [sys.executable, "-m", "snakemake", *arguments, "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--directory", str(folder / str(count)), "--configfile", str(ROOT / "config.yaml")]
    command += ["--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())]
    return measured(command, folder)


def jobs(output: str) -> dict[str, int]:
    """Number of jobs of each rule in Snakemake's list of them."""
    lines = output.partition("Job stats:")[2].partition("total")[0].splitlines()[3:]
    return {rule: int(number) for rule, number in (line.split() for line in lines if line.strip())}


# Snakemake samples a job and misses the peaks of short ones; the operating system reports the true peak at the end.
WATCH = """
import json, resource, subprocess, sys
status = subprocess.call([sys.executable, *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open({log!r}, "a") as stream:
    print(json.dumps([sys.argv[2], used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]), file=stream)
sys.exit(status)
"""


def watched(folder: Path) -> Path:
    """Make the stages of the next runs log their memory and time; returns the path of the log."""
    log, watch, shell = (folder / name for name in ("used.jsonl", "watch.py", "watch.sh"))
    log.write_text("")
    watch.write_text(WATCH.format(log=str(log)))
    shell.write_text(f"python() {{ command python '{watch}' \"$@\"; }}\n")
    os.environ["BASH_ENV"] = str(shell)  # every bash that runs a job reads it
    return log


def peaks(log: Path) -> dict[str, tuple[float, float]]:
    """Largest memory in MB and sum of processor seconds of each stage."""
    found: dict[str, tuple[float, float]] = {}
    for module, memory, seconds in map(json.loads, log.read_text().splitlines()):
        package, _, stage = module.partition(".")
        if package == "defectflow":
            largest, total = found.get(stage, (0.0, 0.0))
            found[stage] = max(largest, memory), total + seconds
    return found


def largest_folder(folder: Path) -> int:
    """Files in the folder that holds most of them."""
    return max(len(files) for _, _, files in os.walk(folder))


def measure(folder: Path, count: int, until: str) -> dict:
    """All figures of one size."""
    work = folder / str(count)
    photographs(work / "data", count)
    shutil.rmtree(work / ".snakemake/defectflow", ignore_errors=True)  # the hashes of a run before
    output, cold, cold_memory = snakemake(folder, count, "-n", "--quiet", "rules")
    _, warm, warm_memory = snakemake(folder, count, "-n", "--quiet", "rules")
    figures = {"images": count, "jobs": sum(jobs(output).values()), "dry_run_cold": cold, "dry_run": warm}
    figures["dry_run_memory"] = max(cold_memory, warm_memory)
    if until == "none":
        return figures
    log = watched(work)
    snakemake(folder, count, "--quiet", "all", *(["--until", *until.split(",")] if until else []))
    figures["stages"] = {rule: [round(m), round(s, 1)] for rule, (m, s) in sorted(peaks(log).items())}
    figures["largest_folder"] = largest_folder(work / "results")
    shard = shard_of(image_ids([NEW])[NEW], shard_count("auto", count))
    before_the_fit = (f"results/many/none/none/patchcore/features/{shard}.safetensors", "results/many/splits.csv")
    snakemake(folder, count, *before_the_fit, "--quiet", "all")
    cv2.imwrite(str(work / "data/images" / NEW), picture(count))
    try:
        output, _, _ = snakemake(folder, count, *before_the_fit, "-n", "--quiet", "rules")
        figures["jobs_for_one_more"] = jobs(output)
        _, figures["one_more"], _ = snakemake(folder, count, *before_the_fit, "--quiet", "all")
    finally:
        (work / "data/images" / NEW).unlink()
    return figures


def plot(found: dict[str, dict], path: Path) -> None:
    """Dry runs, and the memory of every stage, against the number of images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = dict(sorted(found.items(), key=lambda item: int(item[0])))
    counts = [int(count) for count in found]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for key, told in (("dry_run_cold", "every file hashed"), ("dry_run", "again"), ("one_more", "one more image")):
        curve = [(count, found[str(count)][key]) for count in counts if key in found[str(count)]]
        left.plot(*zip(*curve, strict=True), "o-", label=told)
    left.set(ylabel="processor seconds", title="dry run, and one more image up to the fit")
    left.legend()
    stages = sorted({stage for figures in found.values() for stage in figures.get("stages", {})})
    for number, stage in enumerate(stages):
        curve = [(n, found[str(n)]["stages"][stage][0]) for n in counts if stage in found[str(n)].get("stages", {})]
        right.plot(*zip(*curve, strict=True), "o-" if number < 10 else "s--", label=stage)
    right.set(ylabel="memory, MB", title="largest job of every stage")
    right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    for panel in (left, right):
        panel.set(xscale="log", ylim=(0, None), xlabel="images", xticks=counts)
        panel.set_xticklabels([f"{count:,}" for count in counts])
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--until", default="", help="rules, with commas, to run for real up to; none: only plan")
    parser.add_argument("--out", type=Path, help="JSON file to add the figures to")
    parser.add_argument("--plot", type=Path, help="PNG of all figures in --out")
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for count in args.counts:
        args.folder.mkdir(parents=True, exist_ok=True)
        found[str(count)] = found.get(str(count), {}) | measure(args.folder.resolve(), count, args.until)
        print(json.dumps(found[str(count)], indent=1), flush=True)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n")
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
