"""A run that is killed, finds no room, or is not alone: the next one ends with the same bytes.

A short sample; python tests/e2e/kill.py --draws 50 is the long one.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Workflow, make_coco_set
from kill import LIGHT, LIGHT_TARGETS, Finished, digests, draw

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Finished:
    return Finished(tmp_path_factory.mktemp("undisturbed"), LIGHT, *LIGHT_TARGETS)


@pytest.fixture(scope="module")
def reference(undisturbed) -> dict[str, str]:
    return undisturbed.expected


def test_whatever_moment_a_stage_is_killed_at_the_next_run_ends_with_the_same_bytes(undisturbed):
    generator = random.Random(0)
    outcomes = [
        draw(undisturbed, rule, generator.uniform(0, undisturbed.seconds[rule]), alone)
        for rule, alone in (("masks", False), ("isolate", False), ("prior", True), ("sam_pairs", False))
    ]
    assert "killed" in outcomes


def light(folder: Path) -> Workflow:
    workflow = Workflow(folder)
    make_coco_set(folder / "data/mine")
    return workflow


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of this size in a folder."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a file system of one's own needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def test_a_full_disk_is_told_in_one_line_and_with_more_room_the_run_ends_the_same(tmp_path, reference):
    workflow = light(tmp_path)
    results = tmp_path / "results"
    with small_disk(results, "160k"):
        stopped = workflow.snakemake("--cores", "2", *LIGHT_TARGETS, config=LIGHT)
        output = stopped.stdout + stopped.stderr
        assert stopped.returncode != 0 and "No space left on device" in output
        remount(results, "size=100m")
        done = workflow.snakemake("--cores", "2", "--rerun-incomplete", *LIGHT_TARGETS, config=LIGHT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert digests(workflow) == reference


def test_read_only_results_are_told_in_one_line_before_any_job_and_a_run_ends_the_same_once_they_are_not(
    tmp_path, reference
):
    workflow = light(tmp_path)
    results = tmp_path / "results"
    with small_disk(results, "100m"):
        done = workflow.snakemake("--cores", "1", LIGHT_TARGETS[0], config=LIGHT)
        assert done.returncode == 0, done.stdout + done.stderr
        before = digests(workflow)
        remount(results, "ro")
        assert workflow.jobs(*LIGHT_TARGETS, config=LIGHT)["masks"] == 1  # a dry run may look
        stopped = workflow.snakemake("--cores", "2", *LIGHT_TARGETS, config=LIGHT)
        output = stopped.stdout + stopped.stderr
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        assert stopped.returncode != 0 and "Traceback" not in output and len(errors) == 1
        assert errors[0].startswith("error: results: ") and "remount it, or make it writable" in errors[0]
        remount(results, "rw")
        assert digests(workflow) == before
        done = workflow.snakemake("--cores", "2", *LIGHT_TARGETS, config=LIGHT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert digests(workflow) == reference


def test_of_two_runs_at_once_the_second_is_turned_away(tmp_path, reference):
    workflow = light(tmp_path)
    command = workflow.command("--cores", "2", *LIGHT_TARGETS, config=LIGHT)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **quiet)
    try:
        locks = tmp_path / ".snakemake/locks"
        while first.poll() is None and not (locks.is_dir() and any(locks.iterdir())):
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGSTOP)  # it and its jobs: they may be done before the second has started
        second = workflow.snakemake("--cores", "2", *LIGHT_TARGETS, config=LIGHT)
        assert first.poll() is None, "the first run was over too soon"
        os.killpg(first.pid, signal.SIGCONT)
        assert second.returncode != 0 and "locked" in (second.stdout + second.stderr).lower()
        assert first.wait(600) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    assert digests(workflow) == reference
