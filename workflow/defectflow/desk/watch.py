"""The page Watch: live verdicts of the bundle in use, feedback, and drift."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from defectflow.core.files import UserError, sha256_of
from defectflow.desk.pages import render
from defectflow.desk.project import Project
from defectflow.desk.records import feedback_table
from defectflow.desk.records.releases import bundle_in_use, current
from defectflow.desk.records.results import need_run, reduced_file
from defectflow.desk.records.watching import Seen, Watcher, hidden, kept
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.outputs import picture_name, picture_path
from defectflow.inspection.photo_sources import stamp_of
from defectflow.listing.image_names import is_image
from defectflow.monitoring import drift
from defectflow.monitoring.control_chart import BLOCK
from defectflow.monitoring.inspection_log import read_log

POINTS = 400  # of a chart that are sent


class Source(BaseModel):
    """What to watch."""

    kind: Literal["folder", "camera"]
    source: str = Field(max_length=1000)
    every: float = 1.0


class Said(BaseModel):
    """Feedback on a verdict; "" removes it. ``session``: in which its number was given."""

    number: int
    session: str = Field("", max_length=40)
    said: Literal["good", "bad", ""]
    who: str = Field("", max_length=200)
    box: tuple[float, float, float, float] | None = None


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes, watcher, teaching = APIRouter(), Watcher(project), threading.Lock()

    @routes.get("/watch")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "watch", version=current(project))

    @routes.get("/api/watch/state")
    def state(since: int = 0) -> dict[str, Any]:
        return state_of(project, watcher, since)

    @routes.post("/api/watch/start")
    def start(given: Source) -> dict[str, Any]:
        watcher.start(given.kind, given.source, given.every)
        return state_of(project, watcher, 0)

    @routes.post("/api/watch/stop")
    def stop() -> dict[str, Any]:
        watcher.stop()
        return state_of(project, watcher, 0)

    @routes.post("/api/watch/judge")
    async def judge(request: Request, name: Annotated[str, Query(min_length=1, max_length=200)]) -> dict[str, Any]:
        from starlette.concurrency import run_in_threadpool

        body = await request.body()
        return await run_in_threadpool(judge_upload, watcher, name, body)

    @routes.get("/api/watch/picture/{layer}")
    def picture(layer: Literal["photograph", "overlay"], number: int, side: int = 480) -> Response:
        one = watcher.find(number)
        path = one.unchanged()
        if layer == "overlay":
            path = picture_path(watcher.pictures, "overlays", one.path)
        if not path.is_file():
            raise UserError(f"{one.path.name}: its picture has been removed")
        return Response(reduced_file(path, side), media_type="image/jpeg")

    @routes.post("/api/watch/feedback")
    def feedback(given: Said) -> dict[str, Any]:
        if given.session not in ("", watcher.session):
            raise UserError("the desk was started again since this verdict (judge the photograph again)")
        path = watcher.find(given.number).unchanged()
        count = feedback_table.say(project, path, given.said, given.who, given.box)
        return {"feedback": count, "said": given.said}

    @routes.get("/api/watch/feedback")
    def told() -> list[dict[str, str]]:
        return feedback_table.rows_of(project)

    @routes.post("/api/watch/teach")
    def teach(force: bool = False) -> dict[str, Any]:
        if not teaching.acquire(blocking=False):
            raise UserError("the bundle is already being taught (wait for it)")
        try:
            return teach_bundle(project, force)
        finally:
            teaching.release()

    @routes.get("/api/watch/drift")
    def charts() -> dict[str, Any]:
        return drift_of(project, watcher.log)

    return routes


def state_of(project: Project, watcher: Watcher, since: int) -> dict[str, Any]:
    """The current source, the verdicts after number ``since``, newest first, their counts, and the session."""
    said = feedback_table.said_of(project)
    own = watcher.state
    rows = [one for one in list(watcher.seen) if one.number > since]
    return {
        "watching": {"kind": own.kind, "source": hidden(own.source), "since": own.since}
        if watcher.is_watching()
        else None,
        "problem": own.problem,
        "counts": own.counts,
        "passed_over": own.passed_over,
        "version": current(project),
        "feedback": len(said),
        "verdicts": [one.row() | {"feedback": _said(one, said)} for one in reversed(rows)],
        "session": watcher.session,
    }


def _said(one: Seen, said: dict[str, str]) -> str:
    if not said or one.stamp != stamp_of(one.path):
        return ""
    return said.get(sha256_of(one.path)[:16], "")


def judge_upload(watcher: Watcher, name: str, body: bytes) -> dict[str, Any]:
    """Judge a picture dropped onto the page.

    Raises:
        UserError: it does not have the name of a picture, is empty, or no bundle is in use.
    """
    suffix, plain = Path(name).suffix.lower(), picture_name(Path(Path(name).name))
    if not is_image(f"picture{suffix}") or not body:
        raise UserError(f"{name[:100]!r}: not a picture")
    if bundle_in_use(watcher.project) is None:
        raise UserError("no bundle is in use (release one on the page Release)")
    return watcher.judge(kept(watcher.folder("single"), body, plain[:60], suffix)).row()


def teach_bundle(project: Project, force: bool) -> dict[str, Any]:
    """Teach the bundle of the last run with all feedback, as `defectflow learn` does; then it can be released.

    Returns:
        lines: its output. The released bundle is not changed.

    Raises:
        UserError: there is no feedback, the bundle cannot be taught, or it would become worse.
    """
    from defectflow.learning.learn import learn

    run = need_run(project)
    if not feedback_table.table_of(project).is_file():
        raise UserError("there is no feedback yet (mark a wrong verdict first)")
    lines: list[str] = []
    try:
        learn(run.folder / "bundle", feedback_table.table_of(project), force, say=lines.append)
    except UserError as error:
        raise UserError("; ".join([*lines, str(error)]).replace("--force", "force")) from None
    return {"lines": [line.replace(f"{project.folder}/", "") for line in lines]}


def drift_of(project: Project, log: Path) -> dict[str, Any]:
    """Control charts of the log against the good photographs of the run behind the bundle in use.

    Returns:
        told: sentences about changes; line: what was compared; few: whether there are too few photographs for small
        changes; charts: {key, name, limit, path (at most POINTS values), alarms: [[first, last]] as shares of the
        path}. Without a log, charts is empty and line says so.

    Raises:
        UserError: no bundle is in use, or its run has too few good photographs.
    """
    bundle = bundle_in_use(project)
    if bundle is None:
        raise UserError("no bundle is in use (release one on the page Release)")
    if not log.is_file():
        return {"told": [], "line": "", "few": True, "charts": []}
    logged = read_log(log)
    charts = drift.compare(read_bundle(bundle), logged)
    found = []
    for chart in charts:
        count = len(chart.path)
        chosen = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))
        found.append(
            {
                "key": chart.key,
                "name": drift.WATCHED[chart.key].name,
                "limit": chart.limit,
                "path": [round(float(value), 4) for value in chart.path[chosen]],
                "alarms": [[alarm.first / max(1, count - 1), alarm.last / max(1, count - 1)] for alarm in chart.alarms],
            }
        )
    return {
        "told": drift.sentences(charts, logged),
        "line": drift.summary(charts, logged) if charts else "",
        "few": len(logged.time) < BLOCK,
        "charts": found,
    }
