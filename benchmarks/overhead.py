"""Share of a run's processor time spent outside the stages' work: starting Python, loading libraries, Snakemake.

    time snakemake --cores all --forceall; python benchmarks/overhead.py --total SECONDS

Reads the benchmark files of a finished run and measures what each stage loads, in a process of its own, and a dry run.
These files miss up to half a minute of a long job's processor time, because Snakemake samples a job less and less
often: without the total that ``time`` printed (user and sys) the share is too large.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
MODULES = {"render_demo": "demo", "split_annotated": "split"}  # where a rule and its stage have different names
# Modules that a stage imports only when it needs them.
LATER = {
    "prior": "import defectflow.parts.appearance",
    "masks": "import defectflow.parts.appearance",
    "evaluate": "import matplotlib.backends.backend_agg, matplotlib.figure",
    "render": "import matplotlib",
    "report": "import matplotlib.backends.backend_svg, matplotlib.figure",
    "segment": "import sam2",
}


def processor_seconds(*command: str) -> float:
    """User and system time of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def used(folder: Path) -> dict[str, tuple[int, float]]:
    """Jobs and processor seconds of each rule, from its benchmark files."""
    jobs: dict[str, list[float]] = defaultdict(list)
    for path in folder.rglob("*.tsv"):
        with open(path, newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                # A job that is over before psutil looks has no processor time: its wall time is the best guess.
                jobs[path.stem.partition("-")[0]].append(float(row["cpu_time"] or 0) or float(row["s"]))
    return {rule: (len(seconds), sum(seconds)) for rule, seconds in jobs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, default=ROOT / "results/benchmarks")
    parser.add_argument("--total", type=float, help="processor seconds of the whole run (default: sum of the files)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    work = start = 0.0
    print("| rule | jobs | processor time | of it to start |\n|---|---|---|---|")
    for rule, (jobs, seconds) in sorted(used(args.benchmarks).items(), key=lambda item: -item[1][1]):
        code = f"import defectflow.{MODULES.get(rule, rule)}\n{LATER.get(rule, '')}"
        once = median(processor_seconds(sys.executable, "-c", code) for _ in range(args.repeats))
        work, start = work + seconds, start + min(jobs * once, seconds)
        print(f"| {rule} | {jobs} | {seconds:.1f} s | {min(jobs * once, seconds):.1f} s |", flush=True)
    snakemake = processor_seconds(sys.executable, "-m", "snakemake", "-n", "--quiet")
    print(f"| Snakemake | | {snakemake:.1f} s | {snakemake:.1f} s |")
    start, work = start + snakemake, args.total or work + snakemake
    print(f"\noverhead: {start:.0f} of {work:.0f} s, {start / work:.0%}")


if __name__ == "__main__":
    main()
