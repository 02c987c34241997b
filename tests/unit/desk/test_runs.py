"""Settings in plain words, plans and runs; Snakemake itself is a small program here."""

import os
import signal
import threading
import time

import pytest
from defectflow.config.configuration import checked
from defectflow.core.files import UserError, read_json, write_json
from defectflow.desk.project import ROOT
from defectflow.desk.running import choices, run_process, run_queue, stages
from desk_client import Desk, photograph

SLOW = """
import signal, sys, time
from pathlib import Path
Path("started").touch()
def end(*_):
    print("Terminating processes on user request"); sys.exit(1)
signal.signal(signal.SIGINT, signal.SIG_IGN if STUBBORN else end)
Path(".snakemake/locks").mkdir(parents=True, exist_ok=True)
print("Job stats:\\njob count\\n--- ---\\nsurvey 1\\ningest 1\\nall 1\\ntotal 3\\n", flush=True)
print("Job 2: Read the photographs of shard 0 of part\\nFinished jobid: 2 (Rule: survey)", flush=True)
print("Job 1: Check every photograph, annotation and label of part\\ningest:  50%|##  | 1/2", flush=True)
time.sleep(WAIT)
print("error: labels.csv: line 3: wrong" if CODE else "Finished jobid: 1 (Rule: ingest)\\nVerdict: all is well")
sys.exit(CODE)
"""


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "part")


def program(desk, monkeypatch, wait=60.0, code=0, stubborn=False):
    """Let a run start this program and not Snakemake."""
    text = f"WAIT, CODE, STUBBORN = {wait}, {code}, {stubborn}\n{SLOW}"
    (desk.project.folder / "slow_snakemake.py").write_text(text)
    monkeypatch.setattr(type(desk.project), "snakemake", lambda self, *words: ["slow_snakemake"])


def wait_for(desk, status, seconds=20):
    until = time.monotonic() + seconds
    while (state := desk.get("/api/runs/state"))["status"] != status:
        assert time.monotonic() < until, state
        time.sleep(0.05)
    return state


def test_without_photographs_the_page_says_so(desk, tmp_path):
    assert "No photographs yet" in desk.client.get("/runs").text
    (tmp_path / "store").mkdir()
    (tmp_path / "store/1.png").write_bytes(photograph(1))
    (desk.project.photographs / "store").symlink_to(tmp_path / "store")  # a folder in place
    assert "No photographs yet" not in desk.client.get("/runs").text


def test_every_answer_is_a_config_that_a_run_accepts(desk):
    assert {name: one["option"] for name, one in desk.get("/api/runs/settings")["answers"].items()} == {
        "error": "balanced", "review": "no", "speed": "standard",
    }  # fmt: skip
    before = desk.project.config.read_text()
    for question in choices.QUESTIONS:
        for option in reversed(question.options):
            answers = desk.post("/api/runs/answer", question=question.name, option=option.name)["answers"]
            assert answers[question.name]["option"] == option.name
            checked(choices.effective(desk.project))
    assert desk.project.config.read_text() == before  # the first answers are the defaults


def test_a_share_is_kept_and_an_impossible_one_refused(desk):
    answers = desk.post("/api/runs/answer", question="error", option="miss", share=0.07)["answers"]
    assert answers["error"] == {"option": "miss", "share": 0.07}
    assert desk.project.settings()["threshold_options"] == {"max_fnr": 0.07}
    for share in (0, 1, 5, -0.1):
        desk.post("/api/runs/answer", status=422, question="error", option="miss", share=share)
    desk.post("/api/runs/answer", status=422, question="error", option="none")
    assert desk.project.settings()["threshold_options"] == {"max_fnr": 0.07}


def test_all_settings_have_help_and_are_checked(desk):
    groups = desk.get("/api/runs/settings")["groups"]
    fields = {field["path"]: field for group in groups for field in group["fields"]}
    assert all(field["help"] and field["type"] for field in fields.values())
    assert fields["segmenter"]["choices"][0] == "auto" and "found" in fields["segmenter"]["choices"]
    assert fields["detectors.patchcore.neighbours"]["default"] == "9"
    found = desk.post("/api/runs/setting", path="detectors.patchcore.neighbours", text="5")
    changed = [one["path"] for group in found["groups"] for one in group["fields"] if one["changed"]]
    assert changed == ["detectors.patchcore.neighbours"]
    desk.post("/api/runs/setting", path="datasets.part.part", text="whole")
    assert desk.project.settings()["datasets"]["part"]["part"] == "whole"
    desk.post("/api/runs/setting", path="threshold", text="max_fnr")
    assert desk.project.settings()["threshold_options"] == {"max_fnr": 0.05}
    desk.post("/api/runs/setting", path="threshold_options", text="{max_fnr: 0.03}")
    assert desk.project.settings()["threshold_options"] == {"max_fnr": 0.03}
    desk.post("/api/runs/setting", path="threshold", text="auto")
    for path in ("detectors.patchcore.neighbours", "datasets.part.part"):
        desk.post("/api/runs/setting", path=path, text="")
    assert desk.project.settings().keys() == {"dataset", "compare", "datasets"}
    assert desk.project.settings()["datasets"]["part"].keys() == {"images", "labels"}


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("folds", "1", "minimum of 2"),
        ("detectors.patchcore.coreset_ratio", "7", "greater than the maximum"),
        ("seed", "[", "is not a value"),
        ("dataset", "other", "no such setting"),
        ("datasets.part.images", "/etc", "no such setting"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(desk, path, text, told):
    before = desk.project.config.read_text()
    assert told in desk.post("/api/runs/setting", status=422, path=path, text=text)["error"]
    assert desk.project.config.read_text() == before


def test_own_settings_are_shown_as_such(desk):
    desk.project.change_settings({"threshold": "normal_sigma", "threshold_options": {"sigma": 3}})
    assert desk.get("/api/runs/settings")["answers"]["error"] == {"option": "own", "share": None}


def test_a_run_tells_how_far_it_is_and_its_end(desk, monkeypatch):
    assert desk.get("/api/runs/state")["status"] == "none"
    program(desk, monkeypatch, wait=1.5)
    desk.post("/api/runs/start", cores=1)
    until = time.monotonic() + 10
    while (state := desk.get("/api/runs/state")).get("inside") is None and time.monotonic() < until:
        time.sleep(0.05)
    assert (state["status"], state["done"], state["total"], state["inside"]) == ("running", 1, 2, 0.5)
    (stage,) = state["stages"]
    assert stage["words"] == "Read and check the photographs" and stage["running"][0].startswith("Check every")
    state = wait_for(desk, "done")
    assert state["done"] == 2
    assert "Check every photograph" in desk.client.get("/api/runs/log").text


def test_settings_stay_during_a_run(desk, monkeypatch, tmp_path):
    program(desk, monkeypatch)
    desk.post("/api/runs/start")
    other = Desk(tmp_path / "part")  # a desk that was started anew finds it
    assert other.get("/api/runs/state")["status"] == "running"
    for window in (desk, other):
        assert "during a run" in window.post("/api/runs/setting", status=422, path="seed", text="1")["error"]
    other.post("/api/runs/stop")
    wait_for(desk, "stopped")


def waiting(desk):
    return [one["number"] for one in desk.get("/api/runs/state")["queue"]]


def marks(desk):
    """What the runs have noted, in their order."""
    path = desk.project.folder / "order"
    return path.read_text().split() if path.is_file() else []


def queue_of(desk, monkeypatch, *programs):
    """Ask for runs one after the other; each notes its name in the file `order`, waits, and ends with its code."""
    for name, wait, code in programs:
        text = f"import sys, time\nopen('order', 'a').write('{name} ')\ntime.sleep({wait})\nsys.exit({code})\n"
        (desk.project.folder / f"run_{name}.py").write_text(text)
        monkeypatch.setattr(type(desk.project), "snakemake", lambda self, *words, name=name: [f"run_{name}"])
        desk.post("/api/runs/start", bundle=name == "b", cores=1)


def noted(desk, *names, seconds=20):
    until = time.monotonic() + seconds
    while marks(desk) != list(names):
        assert time.monotonic() < until, marks(desk)
        time.sleep(0.05)


def test_runs_wait_in_order_over_a_restart_of_the_desk_and_can_be_taken_out(desk, monkeypatch, tmp_path):
    queue_of(desk, monkeypatch, ("a", 3, 0), ("b", 0, 0), ("c", 0, 0), ("d", 0, 0))
    found = desk.get("/api/runs/state")
    assert found["status"] == "running" and [one["bundle"] for one in found["queue"]] == [True, False, False]
    other = Desk(tmp_path / "part")  # the desk is started anew
    assert waiting(other) == [2, 3, 4]
    assert [one["number"] for one in other.post("/api/runs/unqueue", number=3)["queue"]] == [2, 4]
    noted(other, "a", "b", "d")
    wait_for(other, "done")
    assert waiting(other) == [] and len(run_process.Runs(other.project).names()) == 3
    queue_of(desk, monkeypatch, ("a", 60, 0), ("b", 0, 0), ("c", 0, 0))
    assert desk.post("/api/runs/unqueue")["queue"] == []
    desk.post("/api/runs/stop")
    wait_for(desk, "stopped")
    assert marks(desk)[3:] == ["a"]


def test_after_a_stop_the_next_one_starts_only_if_one_says_so(desk, monkeypatch):
    queue_of(desk, monkeypatch, ("a", 60, 0), ("b", 60, 0), ("c", 0, 0))
    noted(desk, "a")
    desk.post("/api/runs/stop", go_on=True)
    noted(desk, "a", "b")
    desk.post("/api/runs/stop")
    wait_for(desk, "stopped")
    time.sleep(0.5)
    assert marks(desk) == ["a", "b"] and len(waiting(desk)) == 1
    desk.post("/api/runs/next")
    noted(desk, "a", "b", "c")
    wait_for(desk, "done")


def test_after_an_error_the_next_one_waits(desk, monkeypatch):
    queue_of(desk, monkeypatch, ("a", 1, 1), ("b", 0, 0))
    wait_for(desk, "failed")
    assert marks(desk) == ["a"] and len(waiting(desk)) == 1
    queue_of(desk, monkeypatch, ("c", 0, 0))  # what is asked for now goes behind it
    noted(desk, "a", "b", "c")


def test_a_run_that_was_asked_for_as_the_one_before_ended_is_not_forgotten(desk, monkeypatch):
    queue_of(desk, monkeypatch, ("a", 0, 0))
    wait_for(desk, "done")
    (desk.project.folder / "run_b.py").write_text("open('order', 'a').write('b ')")
    run_process.Runs(desk.project).queue.add([], "1", ["run_b"])
    desk.get("/api/runs/state")
    noted(desk, "a", "b")
    wait_for(desk, "done")
    for _ in range(run_queue.MOST):
        run_process.Runs(desk.project).queue.add([], "1", ["run_b"])
    with pytest.raises(UserError, match="wait already"):
        run_process.Runs(desk.project).queue.add([], "1", ["run_b"])


@pytest.mark.parametrize("stubborn", [False, True])
def test_stop_ends_it_within_five_seconds(desk, monkeypatch, stubborn):
    program(desk, monkeypatch, stubborn=stubborn)
    desk.post("/api/runs/start")
    until = time.monotonic() + 20
    while not (desk.project.folder / "started").exists() or "ingest" not in desk.client.get("/api/runs/log").text:
        assert time.monotonic() < until
        time.sleep(0.05)
    begin = time.monotonic()
    assert "has ended" in desk.post("/api/runs/stop", status=422, run="20260101-000000-000000")["error"]
    desk.post("/api/runs/stop", run=desk.get("/api/runs/state")["run"])
    wait_for(desk, "stopped", 10)
    assert time.monotonic() - begin < 5
    assert (desk.project.folder / ".snakemake/locks").exists() != stubborn  # of one that was killed it is taken away


def test_an_error_is_told_in_one_line(desk, monkeypatch):
    program(desk, monkeypatch, wait=0, code=1)
    desk.post("/api/runs/start")
    assert wait_for(desk, "failed")["errors"] == ["labels.csv: line 3: wrong"]


def test_a_run_that_was_killed_with_the_machine_is_interrupted(desk, monkeypatch):
    program(desk, monkeypatch)
    desk.post("/api/runs/start")
    until = time.monotonic() + 10
    runs = run_process.Runs(desk.project)
    while "group" not in runs.state() and time.monotonic() < until:
        time.sleep(0.05)
    state = runs.state()
    os.kill(state["pid"], signal.SIGKILL)
    wait_for(desk, "interrupted")
    program(desk, monkeypatch, wait=0)
    desk.post("/api/runs/start")
    wait_for(desk, "done")
    with pytest.raises(ProcessLookupError):  # what it had left is gone
        for _ in range(100):
            os.kill(state["group"], 0)
            time.sleep(0.02)


def test_every_rule_of_the_workflow_has_its_stage_and_words():
    rooms = {path.stem for path in (ROOT / "workflow/rules").glob("*.smk")} - {"common"}
    assert rooms == set(stages.WORDS)
    assert {rule.room for rule in stages.rules().values()} == rooms
    lines = [
        "Job 3: Extract patch features of shard 0 (crop, patchcore)",
        "Job 4: Find the part in shard 1 of a with found",
    ]
    table = ["Job stats:", "job  count", "features  2", "masks  1", "total  3", ""]
    found = stages.progress([*table, *lines, "Finished jobid: 3 (Rule: features)"], {"features": 10.0, "masks": 4.0})
    assert [(stage.room, stage.done, stage.total, len(stage.running)) for stage in found.stages] == [
        ("segmentation", 0, 1, 1), ("detection", 1, 2, 0),
    ]  # fmt: skip
    assert found.seconds == 14 and (found.done, found.total) == (1, 3)


def test_times_come_from_the_benchmarks_of_earlier_runs(tmp_path):
    for name, seconds in (("features-0", 8), ("features-1", 12), ("fit", 3), ("unknown", 9)):
        path = tmp_path / "benchmarks/part" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\n{seconds}\t0:00:0{seconds}\n")
    assert stages.durations(tmp_path) == {"features": 10, "fit": 3}
    assert stages.untouched(["evaluate"], tmp_path) == ["detection"] and stages.untouched(["fit"], tmp_path) == []


def test_a_plan_says_what_is_wrong_with_the_photographs(desk):
    plan = desk.get("/api/runs/plan")
    assert plan["jobs"] == 0 and "no images in this folder" in plan["errors"][0]
    assert not plan["errors"][0].startswith(("error", "/")), plan


def test_reports_are_shown_cut_off_from_the_desk(desk):
    folder = desk.project.results / "part/found/crop/patchcore"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<script>1</script>")
    (one,) = desk.get("/api/runs/reports")
    answer = desk.client.get(f"/api/runs/report/{one['path']}")
    assert answer.text == "<script>1</script>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts allow-popups;")
    for path in ("part/none/x/y", "../.desk"):
        assert desk.client.get(f"/api/runs/report/{path}").status_code in (404, 422)


def test_a_run_that_has_only_just_started_is_stopped_too(desk, monkeypatch):
    runs, ended = run_process.Runs(desk.project), []
    name = run_process.prepare(runs.folder, {"targets": [], "command": []})
    path = runs.folder / name / "state.json"
    later = threading.Timer(0.2, lambda: write_json(path, read_json(path) | {"pid": 4242}))
    monkeypatch.setattr(run_process.os, "kill", lambda *which: ended.append(which))
    with run_process._lock(runs.folder) as held:
        assert held
        later.start()
        runs.stop()
    assert ended == [(4242, signal.SIGTERM)]
