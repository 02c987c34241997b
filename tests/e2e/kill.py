"""Kill stages at random moments, run again, and compare every result with those of a run that nobody disturbed.

    python tests/e2e/kill.py --draws 50

The whole process group dies by SIGKILL, Snakemake and the stage alike, as when a machine loses power; or the stage
alone, as when the system runs out of memory.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from safetensors import deserialize

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import Workflow, make_coco_set

CONFIG = {
    "dataset": "mine",
    "datasets": {"mine": {"path": "data/mine"}},
    "segmenter": "tiny",
    "segmenters": {"tiny": {"method": "sam2.1", "model": "nano", "steps": 2, "batch_size": 1, "augmentations": 1}},
    "augmentation": {"copies": 1},
    "compare": [],
    "shards": 1,
    "device": "cpu",
    "keep_features": "all",
    "detectors": {"patchcore": {"image_size": 96, "coreset_max": 500}},
}
RULES = (
    "survey", "ingest", "sam_pairs", "split_annotated", "split", "prior", "segment", "masks", "isolate", "augment",
    "features", "fit", "score", "calibrate", "keep_features", "evaluate", "boxes", "render", "report", "leaderboard",
)  # fmt: skip
# The part that needs no network, a tenth of the work.
LIGHT = CONFIG | {"segmenter": "template", "isolation": "crop"}
LIGHT_TARGETS = [
    f"results/mine/{name}"
    for name in (
        "shards/0.csv", "pairs.csv", "annotated.csv", "prior.json", "template/masks/0.csv",
        "template/crop/images/0.csv",
    )
]  # fmt: skip
LIGHT_RULES = ("survey", "sam_pairs", "split_annotated", "prior", "masks", "isolate")
MODULES = {"split_annotated": "split"}  # where a rule and its stage are not called the same


def checksum(path: Path) -> str:
    """sha256 of a file; of features less their keys, which hold a hash of the code, and that is what ``kill`` edits."""
    content = path.read_bytes()
    if path.parent.name == "features" and path.suffix == ".json":
        content = json.dumps(json.loads(content) | {"made_from": ""}).encode()
    elif path.parent.name == "features":
        tensors = sorted((name, t["shape"], bytes(t["data"])) for name, t in deserialize(content) if name != "key")
        content = repr(tensors).encode()
    return hashlib.sha256(content).hexdigest()


def digests(workflow: Workflow) -> dict[str, str]:
    """Checksum of every result; logs and benchmarks tell times."""
    files = (path for path in sorted((workflow.folder / "results").rglob("*")) if path.is_file())
    return {
        str(path.relative_to(workflow.folder)): checksum(path)
        for path in files
        if not {"logs", "benchmarks"} & set(path.parts) and path.name != ".snakemake_timestamp"
    }


def seconds_of(workflow: Workflow) -> dict[str, float]:
    """Processor seconds of a job of each rule that has a benchmark file; wall time where the job was too short."""
    found = {}
    for path in (workflow.folder / "results/benchmarks").rglob("*.tsv"):
        with open(path, newline="") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        found[path.stem.partition("-")[0]] = float(row["cpu_time"] or 0) or float(row["s"])
    return found


class Finished(Workflow):
    """A workflow that has run once, undisturbed, with its results' checksums and the time of its stages."""

    def __init__(self, folder: Path, config: dict, *targets: str):
        super().__init__(folder)
        make_coco_set(folder / "data/mine")
        self.config, self.targets = config, targets
        result = self.snakemake("--cores", "2", *targets, config=config)
        assert result.returncode == 0, result.stdout + result.stderr
        self.expected = digests(self)
        self.seconds = seconds_of(self)


def stage_of(process: subprocess.Popen, module: str) -> psutil.Process | None:
    """The stage among the descendants of Snakemake."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(word.startswith("defectflow.") and word.endswith(f".{module}") for word in child.cmdline()[1:3]):
                return child
        except psutil.Error:
            continue
    return None


def kill(workflow: Finished, rule: str, seconds: float, alone: bool) -> bool:
    """Edit a stage, run, and kill it after so many processor seconds of the stage; whether it was still running."""
    with open(workflow.packaged(f"{MODULES.get(rule, rule)}.py"), "a") as module:
        module.write(f"\nEDITED_{time.monotonic_ns()} = 1\n")
    command = workflow.command("--cores", "2", "--nolock", *workflow.targets, config=workflow.config)
    run = subprocess.Popen(
        command, cwd=workflow.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while run.poll() is None:
            stage = stage_of(run, MODULES.get(rule, rule))
            try:
                if stage and sum(stage.cpu_times()[:2]) >= seconds:
                    stage.kill() if alone else os.killpg(run.pid, signal.SIGKILL)
                    run.wait(120)
                    return True
            except psutil.Error:
                pass
            time.sleep(0.01)
        return False
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def draw(workflow: Finished, rule: str, seconds: float, alone: bool) -> str:
    """One kill and one run after it; "killed" or "too late", or an AssertionError if a result differs."""
    killed = kill(workflow, rule, seconds, alone)
    arguments = ("--cores", "2", "--rerun-incomplete", "--nolock", *workflow.targets)
    again = workflow.snakemake(*arguments, config=workflow.config)
    assert again.returncode == 0, again.stdout + again.stderr
    expected, found = workflow.expected, digests(workflow)
    differ = {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
    assert not differ, (rule, seconds, alone, sorted(differ))
    return "killed" if killed else "too late"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--first", type=int, default=1, help="draw to begin with, to go on after a finding is mended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--light", action="store_true", help="only stages that need no network")
    args = parser.parse_args()
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        if args.light:
            workflow, rules = Finished(Path(folder), LIGHT, *LIGHT_TARGETS), LIGHT_RULES
        else:
            workflow, rules = Finished(Path(folder), CONFIG), RULES
        for number in range(args.draws):
            rule, alone = rules[number % len(rules)], generator.random() < 0.3
            seconds = generator.uniform(0, workflow.seconds.get(rule, 0.5))
            if number + 1 < args.first:
                continue
            outcome = draw(workflow, rule, seconds, alone)
            print(f"{number + 1:3} {rule:16} {seconds:4.2f} s {'stage' if alone else 'all':6} {outcome}", flush=True)


if __name__ == "__main__":
    main()
