"""The page Labels: good, bad or not sure, with the keyboard, for many photographs at a time; and where defects are."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from defectflow.desk.pages import render
from defectflow.desk.pictures.label_store import LONGEST_KIND, LONGEST_NAME, LabelStore
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.pictures.sessions import Sessions
from defectflow.desk.project import Project
from defectflow.desk.records import defect_masks

# Tables of the workflow that name photographs to look at: {name of the list: file}
LISTS = {"next": "next_to_label.csv", "check": "labels_to_check.csv", "candidates": "candidates.csv"}

Name = Annotated[str, Query(max_length=1000)]
Who = Annotated[str, Query(max_length=LONGEST_NAME)]


class Change(BaseModel):
    """A change of labels by a person; None leaves a value as it is. ``settles``: it counts, whatever others say."""

    names: list[str] = Field(max_length=100_000)
    label: str | None = Field(None, max_length=10)
    kind: str | None = Field(None, max_length=LONGEST_KIND)
    who: str = Field("", max_length=LONGEST_NAME)
    settles: bool = False


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()
    photographs = PhotographIndex(project)
    labels = LabelStore(project, photographs)
    sessions = Sessions(project, photographs)

    @routes.get("/labels")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "labels")

    @routes.get("/api/labels/list")
    def listed() -> dict[str, Any]:
        """All photographs, see `LabelStore.table`, and the lists of the latest run to look at."""
        return {"photographs": labels.table(), "lists": lists_of(project)}

    @routes.get("/api/labels/sessions")
    def by_time() -> dict[str, Any]:
        """Which photographs were taken together; see `Sessions.all`."""
        return sessions.all()

    @routes.post("/api/labels/put")
    def put(change: Change) -> dict[str, Any]:
        changed = len(change.names)
        if change.settles:
            labels.settle(change.names, change.label or "", change.kind or "", change.who)
        else:
            changed = labels.put(change.names, change.label, change.kind, change.who)
        return {"changed": changed, "rows": labels.table(change.names)}

    @routes.post("/api/labels/undo")
    def undo(who: Who = "") -> dict[str, Any]:
        """Take back the latest step of a person."""
        return {"rows": labels.table(labels.undo(who))}

    @routes.get("/api/labels/defect")
    def defect(name: Name, look: bool = False) -> Response:
        """Where a photograph has its defect, as a PNG of the size of its reduced picture; see `defect_masks.as_png`."""
        mask = defect_masks.mask_of(project, name, labels.mask(name))
        return Response(defect_masks.as_png(mask, look), media_type="image/png")

    @routes.post("/api/labels/defect")
    async def mark(request: Request, name: Name, who: Who = "") -> dict[str, Any]:
        """What a person has marked on a photograph; that makes it bad, and nothing marked takes its mask away."""
        return await run_in_threadpool(marked, name, await request.body(), who)

    def marked(name: str, body: bytes, who: str) -> dict[str, Any]:
        with project.lock:
            labels.mask(name)  # it is a photograph
            labels.mark(name, defect_masks.save(project, name, body), who)
        return {"row": labels.table([name])[0]}

    return routes


def lists_of(project: Project) -> dict[str, list[dict[str, str]]]:
    """{list: rows of name and why} of the latest run that has such a list, in its order."""
    found: dict[str, list[dict[str, str]]] = {}
    for key, name in LISTS.items():
        paths = sorted((project.results / project.dataset).glob(f"*/*/*/{name}"), key=lambda path: path.stat().st_mtime)
        found[key] = _rows(paths[-1]) if paths else []
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [{"name": row["filename"], "why": row.get("why") or ""} for row in csv.DictReader(stream)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):  # it is being written
        return []
