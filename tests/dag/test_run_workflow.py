"""`defectflow run`: the command that it makes of a folder, what it prints of a dry run, and of one that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_coco_set
from defectflow.commands.run_workflow import ROOT, command_of, dataset_of
from defectflow.config.run_settings import name_of
from defectflow.core.files import UserError
from defectflow.reporting.snakemake_lines import errors_of, planned


def test_a_folder_gives_the_data_set_its_name(tmp_path):
    (tmp_path / "my parts").mkdir()
    assert dataset_of(str(tmp_path / "my parts"), None, ["demo"]) == ("my_parts", tmp_path / "my parts")
    assert dataset_of("demo", None, ["demo"]) == ("demo", None)
    assert dataset_of(str(tmp_path), "mine", ["demo"])[0] == "mine"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("nope", None, "nope: no such folder"),
        ("demo2", None, r"demo2: no such folder, .*\(did you mean 'demo'\?\)"),
        ("demo", "mine", "--name mine: demo is a data set of config.yaml"),
        (".", "a/b", "--name a/b"),
        (".", "demo", "has a data set 'demo' already"),
    ],
)
def test_a_name_that_cannot_be_is_told(data, name, message):
    with pytest.raises(UserError, match=message):
        dataset_of(data, name, ["demo"])


def test_a_typo_in_a_path_and_a_file_are_told_with_what_was_meant(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.jpg").touch()
    with pytest.raises(UserError, match=r"did you mean .*/photographs\?"):
        dataset_of(str(tmp_path / "photograhps"), None, ["demo"])
    with pytest.raises(UserError, match=r"a.jpg: a file \(give the folder of the photographs: .*/photographs\)"):
        dataset_of(str(tmp_path / "photographs" / "a.jpg"), None, ["demo"])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Größe und Maß", "Grosse_und_Mass"),
        ("é.v2", "e.v2"),
        ("_x_", "x"),
        ("部品", "photographs"),
        ("..", "photographs"),
    ],
)
def test_a_name_of_results_is_plain(folder, name):
    assert name_of(folder) == name


def test_the_command_can_be_run_by_hand():
    command = command_of("mine", Path("/data/größe"), ["isolation=none"], "2", "all", "bundle")
    assert command[:6] == ["snakemake", "--cores", "2", "--rerun-incomplete", "all", "bundle"]
    assert command[6:] == ["--config", "dataset=mine", 'datasets={"mine": {"path": "/data/größe"}}', "isolation=none"]


@pytest.mark.parametrize(
    ("setting", "cores", "message"),
    [
        ("isolation", "2", "--set isolation: must be KEY=VALUE"),
        ("isolation=", "2", "--set isolation=: must be KEY=VALUE"),
        ("dataset=other", "2", "--set dataset=other: the data set is what stands behind"),
        ("seed=1", "0", "--cores 0: must be a number from 1 on, or all"),
        ("seed=1", "many", "--cores many"),
    ],
)
def test_a_setting_that_cannot_be_is_told(setting, cores, message):
    with pytest.raises(UserError, match=message):
        command_of("mine", None, [setting], cores)


def test_a_lock_is_told_with_the_way_to_take_it_away():
    (line,) = errors_of(["LockException:", "Error: Directory cannot be locked."], ROOT)
    assert "another run is at work there, or was killed" in line and line.endswith("snakemake --unlock)")
    assert errors_of(["error: a", "x", "error: a"], ROOT) == ["error: a"] and "--verbose" in errors_of([], ROOT)[0]


def test_no_job_means_that_nothing_is_to_do():
    assert planned(["Job 1: Read the photographs", "Job 2: Fit"]) == ["2 jobs:", "  Read the photographs", "  Fit"]
    assert planned(["Nothing to be done"]) == ["Nothing to do: the results are up to date."]


def run(workflow, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "defectflow.commands.cli", "run", *words]
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "workflow")}
    return subprocess.run(command, cwd=workflow.folder.parent, env=environment, capture_output=True, text=True)


def test_a_dry_run_lists_its_jobs_and_a_mistake_is_one_line(workflow, tmp_path):
    data = str(make_coco_set(tmp_path / "data"))
    planned = run(workflow, data, "-n", "--set", "compare=[]")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("20 jobs:\n  ") and "\n  Read the photographs" in planned.stdout
    assert (
        f"in {workflow.folder}: snakemake --cores all --rerun-incomplete --dry-run --config dataset=data"
        in planned.stderr
    )
    wrong = run(workflow, data, "--set", "isolation=zero")
    assert wrong.returncode == 2 and "no entry 'zero' in isolations" in wrong.stderr and "Traceback" not in wrong.stderr


def test_problems_are_listed_with_the_error_that_tells_of_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = ["1 problem in a:", "  a/x.jpg: broken", "error: a: 1 problem, listed above (or set on_problem: leave_out)"]
    told = errors_of(["read: 100%", *lines, "RuleException:", lines[-1]], ROOT)
    assert told[:3] == lines and len(told) == 4 and "--set on_problem=leave_out" in told[3]


def test_paths_in_errors_lead_there_from_any_folder(monkeypatch, tmp_path):
    lines = ["error: /data/results/a.jpg: broken (drawn in results/a/sheets/outlines.jpg)"]
    monkeypatch.chdir(ROOT)
    assert errors_of(lines, ROOT) == lines
    monkeypatch.chdir(tmp_path)
    assert errors_of(lines, ROOT) == [lines[0].replace("in results/", f"in {ROOT}/results/")]


def test_an_interrupted_run_ends_soon_and_goes_on_later(workflow, tmp_path):
    words = [str(make_coco_set(tmp_path / "data")), "--set", "compare=[]", "--set", "segmenter=none", "isolation=none"]
    command = [sys.executable, "-m", "defectflow.commands.cli", "run", *words]
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "workflow")}
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options, preexec_fn=heed_interrupts) as process:
        told = []
        for line in iter(process.stderr.readline, ""):
            told.append(line)
            if line.startswith("Check "):
                time.sleep(0.2)  # the job has begun
                process.send_signal(signal.SIGINT)
    assert process.returncode == 2 and told[-1] == "stopped: the same command goes on from here\n"
    assert not list((workflow.folder / ".snakemake/locks").glob("*"))
    assert not list((workflow.folder / "results/data").rglob("*.tmp*"))
    more = run(workflow, *words, "-n")
    assert more.returncode == 0 and "Read the photographs" not in more.stdout and "jobs:" in more.stdout, more.stderr


def heed_interrupts() -> None:
    """What a terminal does: tests that are started in the background inherit that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
