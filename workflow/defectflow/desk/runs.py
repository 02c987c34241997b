"""The page Run: settings, the plan, and the active run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field

from defectflow.core.files import UserError
from defectflow.desk.pages import render
from defectflow.desk.project import Project, holds_photographs
from defectflow.desk.running import choices, run_process, setting_forms, stages
from defectflow.reporting.snakemake_lines import errors_of

PLANNING = 300  # seconds for a dry run
TAIL = 400_000  # bytes of a log that are sent at most
SANDBOX = "sandbox allow-scripts allow-popups; default-src 'self' 'unsafe-inline' data: blob:"


class Answer(BaseModel):
    """An answer to a question of `choices.QUESTIONS`."""

    question: str = Field(max_length=40)
    option: str = Field(max_length=40)
    share: float | None = None


class Setting(BaseModel):
    """A setting by its path, with its value as text of config.yaml."""

    path: str = Field(max_length=200)
    text: str = Field(max_length=1000)


class Start(BaseModel):
    """What to run."""

    bundle: bool = False
    cores: int | Literal["all"] = "all"


class Stop(BaseModel):
    """How to stop the run that is under way: whether the one that waits first starts then; its name, "" for any."""

    go_on: bool = False
    run: str = Field("", max_length=60)


class Planner:
    """Dry runs, one at a time."""

    def __init__(self, project: Project) -> None:
        self._project, self._one = project, threading.Lock()

    def plan(self, bundle: bool) -> dict[str, Any]:
        """What a run would do.

        Returns:
            {jobs, stages: [{room, words, total}], stays: [words], seconds: or None, errors: [lines]}
        """
        targets = ["all", "bundle"] if bundle else []
        command = [sys.executable, "-m", *self._project.snakemake("--cores", "1", "--dry-run", *targets)]
        with self._one:
            try:
                done = subprocess.run(
                    command, cwd=self._project.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, timeout=PLANNING, env=run_process.environment(),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise UserError(f"the plan took more than {PLANNING} seconds (is the machine busy?)") from None
        lines = done.stdout.decode("utf-8", "replace").split("\n")
        if done.returncode:
            return {"jobs": 0, "stages": [], "stays": [], "seconds": None, "errors": problems(self._project, lines)}
        known = stages.durations(self._project.results)
        found = stages.progress(lines, known)
        return {
            "jobs": found.total,
            "stages": [{"room": stage.room, "words": stage.words, "total": stage.total} for stage in found.stages],
            "stays": [stages.WORDS[room] for room in stages.untouched(stages.counts(lines), self._project.results)],
            "seconds": found.seconds if found.total else 0,
            "errors": [],
        }


def problems(project: Project, lines: list[str]) -> list[str]:
    """The errors of a run, one line each, as the desk shows them."""
    told = [line for line in errors_of(lines, project.folder) if not line.startswith("on_problem: leave_out is")]
    told = [line.replace("--verbose shows all it says", "see the full output") for line in told]
    return [line.removeprefix("error: ").replace(f"{project.folder}/", "") for line in told]


def state_of(project: Project, runs: run_process.Runs) -> dict[str, Any]:
    """The latest run: its status, the progress of its stages, its errors, and its results."""
    state = runs.state()
    found: dict[str, Any] = {key: state.get(key) for key in ("status", "run", "started", "ended", "targets")}
    found["now"] = time.time()
    found["queue"] = [
        {"number": run["number"], "bundle": "bundle" in run["targets"], "cores": run["cores"], "asked": run["asked"]}
        for run in runs.queue.waiting()
    ]
    if state["status"] == "none":
        return found
    lines = runs.lines()
    progress = stages.progress(lines, stages.durations(project.results))
    found |= {
        "stages": [stage._asdict() for stage in progress.stages],
        "total": progress.total,
        "done": progress.done,
        "inside": progress.inside,
        "seconds": progress.seconds if state["status"] == "running" else None,
        "errors": problems(project, lines) if state["status"] == "failed" else [],
        "warnings": [line.removeprefix("WARNING: ") for line in lines if line.startswith("WARNING: ")],
    }
    return found


def reports(project: Project) -> list[dict[str, Any]]:
    """The reports of all runs of the data set, the newest first: {name, path, time}."""
    found = []
    for path in (project.results / project.dataset).glob("*/*/*/report.html"):
        name = path.parent.relative_to(project.results / project.dataset).as_posix()
        found.append({"name": name, "path": f"{project.dataset}/{name}", "time": path.stat().st_mtime})
    return sorted(found, key=lambda one: -one["time"])


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()
    runs = run_process.Runs(project)
    planner = Planner(project)

    def not_while_busy() -> None:
        if runs.is_busy():
            raise UserError("settings cannot be changed during a run (wait for it, or stop it)")

    @routes.get("/runs")
    def page(request: Request) -> HTMLResponse:
        known = {"questions": choices.QUESTIONS, "cores": os.cpu_count() or 1}
        return render(request, project, "runs", photographs=holds_photographs(project.photographs, True), **known)

    @routes.get("/api/runs/settings")
    def settings() -> dict[str, Any]:
        return {"answers": choices.answers(project), "groups": setting_forms.groups(project)}

    @routes.post("/api/runs/answer")
    def answer(given: Answer) -> dict[str, Any]:
        not_while_busy()
        choices.answer(project, given.question, given.option, given.share)
        return settings()

    @routes.post("/api/runs/setting")
    def setting(given: Setting) -> dict[str, Any]:
        not_while_busy()
        setting_forms.set_text(project, given.path, given.text)
        return settings()

    @routes.get("/api/runs/plan")
    def plan(bundle: bool = False) -> dict[str, Any]:
        return planner.plan(bundle)

    @routes.post("/api/runs/start")
    def start(given: Start) -> dict[str, Any]:
        if given.cores != "all" and given.cores < 1:
            raise UserError("at least one core is needed")
        runs.start(["all", "bundle"] if given.bundle else [], str(given.cores))
        return state_of(project, runs)

    @routes.post("/api/runs/stop")
    def stop(given: Stop) -> dict[str, Any]:
        if given.run and given.run != runs.state().get("run"):
            raise UserError("that run has ended meanwhile, and another one is running")
        runs.stop(given.go_on)
        return state_of(project, runs)

    @routes.post("/api/runs/next")
    def following() -> dict[str, Any]:
        """Start the run that waits first; after one that was stopped or has failed, it waits for that."""
        runs.next()
        return state_of(project, runs)

    @routes.post("/api/runs/unqueue")
    def unqueue(number: int | None = Body(None, embed=True)) -> dict[str, Any]:
        """Take a run that waits out, or all of them."""
        runs.queue.remove(number)
        return state_of(project, runs)

    @routes.get("/api/runs/state")
    def state() -> dict[str, Any]:
        return state_of(project, runs)

    @routes.get("/api/runs/log")
    def log(run: str = "") -> Response:
        return PlainTextResponse("\n".join(run_process.lines_of(runs.log(run)))[-TAIL:])

    @routes.get("/api/runs/reports")
    def listed() -> list[dict[str, Any]]:
        return reports(project)

    @routes.get("/api/runs/report/{name:path}")
    def report(name: str) -> Response:
        path = project.path_inside(f"{name}/report.html", project.results)
        if not path.is_file():
            raise UserError(f"{name[:100]}: no report (run it first)")
        # Scripts of the report run isolated from the desk: without its cookie and without access to it.
        return FileResponse(Path(path), media_type="text/html", headers={"Content-Security-Policy": SANDBOX})

    return routes
