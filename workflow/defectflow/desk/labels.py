"""The page Labels: good, bad or not sure, with the keyboard, for many photographs at a time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from defectflow.desk.pages import render
from defectflow.desk.pictures.label_store import LONGEST_KIND, Label, LabelStore
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.project import Project

# Tables of the workflow that name photographs to look at: {name of the list: file}
LISTS = {"next": "next_to_label.csv", "check": "labels_to_check.csv", "candidates": "candidates.csv"}


class Change(BaseModel):
    """A change of labels; None leaves a value as it is."""

    names: list[str] = Field(max_length=100_000)
    label: str | None = Field(None, max_length=10)
    kind: str | None = Field(None, max_length=LONGEST_KIND)


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()
    photographs = PhotographIndex(project)
    labels = LabelStore(project, photographs)

    @routes.get("/labels")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "labels")

    @routes.get("/api/labels/list")
    def listed() -> dict[str, Any]:
        """All photographs as [name, stamp, label, kind], and the lists of the latest run to look at."""
        return {"photographs": labels.table(), "lists": lists_of(project)}

    @routes.post("/api/labels/put")
    def put(change: Change) -> dict[str, Any]:
        changed = labels.put(change.names, change.label, change.kind)
        said = labels.all()
        none = Label("", "")
        return {"changed": changed, "labels": {name: said.get(name, none) for name in change.names}}

    @routes.post("/api/labels/undo")
    def undo() -> dict[str, Any]:
        names = labels.undo()
        said = labels.all()
        return {"labels": {name: said.get(name, Label("", "")) for name in names}}

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
