"""What the slurm profile asks of sbatch for each rule, told by a sbatch that only writes down how it was called."""

import json
import os
import re
from pathlib import Path

from made import Made

CONFIG = {
    "dataset": "mine",
    "datasets": {"mine": {"path": "data/mine"}},
    "segmenter": "sam2.1-nano",
    "augmentation": {"copies": 1},
    "compare": [],
}
COMMANDS = {
    "sbatch": """
import json, sys
with open("calls.jsonl", "a+") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
    calls.seek(0)
    print(len(calls.readlines()))
""",
    "squeue": """
for number, _ in enumerate(open("calls.jsonl"), 1):
    print(f"{number}|COMPLETED")
""",
    "scontrol": "print('MinJobAge = 300 sec')",
    "sinfo": "print('PARTITION')",
    "scancel": "",
    "sacct": "",  # asked for an account; absent where Slurm is not installed
}
# Memory in MB, minutes, processors, partition: of a first attempt, most of a group.
EXPECTED = {
    "survey": (1000, 60, 4, "cpu"),
    "outlines_prior_sam_pairs_split_annotated": (1000, 130, 4, "cpu"),
    "tables_ingest_split": (1000, 70, 4, "cpu"),
    "segment": (6000, 480, 8, "gpu"),
    "masks": (4000, 120, 1, "gpu"),
    "isolate": (1000, 60, 4, "cpu"),
    "augment": (2000, 60, 1, "cpu"),
    "features": (3000, 120, 4, "gpu"),
    "fit": (4000, 240, 8, "gpu"),
    "calibrate": (4000, 480, 8, "gpu"),
    "score": (3000, 60, 4, "gpu"),
    "check_labels": (2000, 120, 8, "cpu"),
    "results_boxes_evaluate_next_to_label_render_report": (4000, 270, 9, "cpu"),
}


def submitted(folder: Path, config: dict) -> dict[str, dict[str, str]]:
    """Options that sbatch got for each rule or group, all jobs of a rule being alike."""
    made = Made(folder, config)
    tools = folder / "bin"
    tools.mkdir()
    for name, text in COMMANDS.items():
        (tools / name).write_text(f"#!/usr/bin/env python3\n{text}")
        (tools / name).chmod(0o755)
    result = made.snakemake(
        "--workflow-profile", "workflow/profiles/slurm", "--forceall", "--latency-wait", "1",
        "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
        "--slurm-no-account", config=config, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    found = {}
    for line in (folder / "calls.jsonl").read_text().splitlines():
        *options, _ = " ".join(json.loads(line)).partition(" --wrap")
        name = re.search(r"--comment (?:rule|group)_([a-z_]+?)(?:_wildcards| |$)", options[0])[1]
        options = dict(re.findall(r"(?:^| )(--?[\w-]+)[= ](\S+)", options[0]))
        kept = {key: options.get(key) for key in ("--mem", "-t", "--cpus-per-task", "--cpus-per-gpu", "-p", "--gpus")}
        assert found.setdefault(name, kept) == kept, name
    return found


def test_every_rule_asks_for_what_it_needs(tmp_path):
    found = submitted(tmp_path, CONFIG)
    asked = {
        name: (int(o["--mem"]), int(o["-t"]), int(o["--cpus-per-task"] or o["--cpus-per-gpu"]), o["-p"])
        for name, o in found.items()
    }
    assert asked == EXPECTED
    assert {name for name, o in found.items() if o["--gpus"]} == {n for n, e in EXPECTED.items() if e[3] == "gpu"}


def test_without_a_gpu_every_job_goes_to_the_cpu_partition(tmp_path):
    found = submitted(tmp_path, CONFIG | {"device": "cpu"})
    assert found.keys() == EXPECTED.keys()
    assert {(o["-p"], o["--gpus"]) for o in found.values()} == {("cpu", None)}
