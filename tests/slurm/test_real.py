"""The demo on a real Slurm, by the profile that users have: two partitions, a job killed, one out of memory."""

import subprocess
import time

import pytest
from cluster import cluster, missing
from conftest import Workflow

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
CONFIG = {
    "datasets": {"demo": {"rendered": {"views": 10, "defects": 4, "size": 128}}},
    "compare": [],
    "shards": 1,
    "detectors": {"patchcore": {"image_size": 128}},
}
METRICS = "results/demo/template/crop/patchcore/metrics.json"


def jobs_of(environment: dict[str, str]) -> str:
    """What squeue knows of all jobs that were: id, state, partition, comment."""
    command = ["squeue", "--all", "--noheader", "--states=all", "--format=%i|%T|%P|%k"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def kill_first(rule: str, environment: dict[str, str], seconds: float) -> str:
    """Kill the first job of a rule that runs; its id."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in jobs_of(environment).splitlines():
            number, state, _, comment = line.strip().split("|")
            if state == "RUNNING" and rule in comment:
                subprocess.run(["scancel", "--signal=KILL", "--full", number], env=environment, timeout=60)
                return number
        time.sleep(0.2)
    raise TimeoutError(f"no job of {rule} within {seconds} s")


def test_a_run_on_slurm_survives_a_killed_job_and_too_little_memory_and_ends_with_the_same_metrics(tmp_path):
    local, remote = (Workflow(tmp_path / name) for name in ("local", "remote"))
    # The features take 600 MB and more; a first attempt gets 200, the second 1,600. One thread, so that two jobs fit on
    # two cores; the plug-in looks for finished ones after 3 s, then 13, so that a step takes 16 s, however short it is.
    arguments = (
        METRICS, "--workflow-profile", "workflow/profiles/slurm", "--max-threads", "1", "--latency-wait", "5",
        "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3",
        "--slurm-keep-successful-logs", "--set-resources", "features:mem_mb=200 * attempt ** 3",
    )  # fmt: skip
    with cluster() as environment:
        command = remote.command(*arguments, config=CONFIG)
        with open(tmp_path / "out.txt", "w") as out:
            run = subprocess.Popen(command, cwd=remote.folder, env=environment, stdout=out, stderr=out)
            try:
                killed = kill_first("rule_render_demo", environment, 300)
                done = local.snakemake("--cores", "1", METRICS, config=CONFIG)  # meanwhile: the other one mostly waits
                assert done.returncode == 0, done.stdout + done.stderr
                status = run.wait(900)
            finally:
                run.kill()
        jobs = jobs_of(environment)
    output = (tmp_path / "out.txt").read_text()
    assert status == 0, f"{output}\n{jobs}"
    rows = [line.strip().split("|") for line in jobs.splitlines()]
    states = {number: state for number, state, _, _ in rows}
    rows.sort(key=lambda row: int(row[0]))
    tried = {rule: [row for row in rows if rule in row[3]] for rule in ("render_demo", "features", "survey")}
    assert states[killed] != "COMPLETED" and len(tried["render_demo"]) == 2 and len(tried["survey"]) == 1
    # Slurm calls the job itself out of memory, or failed where only the step in it was killed for that: its log tells.
    first, second = (state for _, state, _, _ in tried["features"])
    logs = (remote.folder / "results/logs/slurm/rule_features").rglob(f"{tried['features'][0][0]}.log")
    assert first in ("OUT_OF_MEMORY", "FAILED") and second == "COMPLETED"
    assert "oom-kill event" in "".join(log.read_text() for log in logs)
    assert {partition for _, _, partition, _ in tried["features"]} == {"gpu"}
    assert {partition for _, _, partition, _ in tried["survey"]} == {"cpu"}
    assert (remote.folder / METRICS).read_bytes() == (local.folder / METRICS).read_bytes()
