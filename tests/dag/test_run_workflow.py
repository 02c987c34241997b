"""`defectflow run`: the command that it makes of a folder, what it prints of a dry run, and of one that fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_coco_set
from defectflow.files import UserError
from defectflow.run_workflow import command_of, dataset_of, planned


def test_a_folder_gives_the_data_set_its_name(tmp_path):
    (tmp_path / "my parts").mkdir()
    assert dataset_of(str(tmp_path / "my parts"), None, ["demo"]) == ("my_parts", tmp_path / "my parts")
    assert dataset_of("demo", None, ["demo"]) == ("demo", None)
    assert dataset_of(str(tmp_path), "mine", ["demo"])[0] == "mine"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("nope", None, "nope: no such folder"),
        (".", "a/b", "--name a/b"),
        (".", "demo", "has a data set 'demo' already"),
    ],
)
def test_a_name_that_cannot_be_is_told(data, name, message):
    with pytest.raises(UserError, match=message):
        dataset_of(data, name, ["demo"])


def test_the_command_can_be_run_by_hand():
    command = command_of("mine", Path("/data/mine"), ["isolation=none"], "2", "all", "bundle")
    assert command[:5] == ["snakemake", "--cores", "2", "all", "bundle"]
    assert command[5:] == ["--config", "dataset=mine", 'datasets={"mine": {"path": "/data/mine"}}', "isolation=none"]
    with pytest.raises(UserError, match="--set isolation: must be KEY=VALUE"):
        command_of("mine", None, ["isolation"], "2")


def test_no_job_means_that_nothing_is_to_do():
    assert planned(["Job 1: Read the photographs", "Job 2: Fit"]) == ["2 jobs:", "  Read the photographs", "  Fit"]
    assert planned(["Nothing to be done"]) == ["Nothing to do: the results are up to date."]


def run(workflow, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "defectflow.cli", "run", *words]
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "workflow")}
    return subprocess.run(command, cwd=workflow.folder.parent, env=environment, capture_output=True, text=True)


def test_a_dry_run_lists_its_jobs_and_a_mistake_is_one_line(workflow, tmp_path):
    data = str(make_coco_set(tmp_path / "data"))
    planned = run(workflow, data, "-n", "--set", "compare=[]")
    assert planned.returncode == 0 and "jobs:\n  Read the photographs" in planned.stdout, planned.stderr
    assert f"in {workflow.folder}: snakemake --cores all --dry-run --config dataset=data" in planned.stderr
    wrong = run(workflow, data, "--set", "isolation=zero")
    assert wrong.returncode == 1 and "no entry 'zero' in isolations" in wrong.stderr and "Traceback" not in wrong.stderr
