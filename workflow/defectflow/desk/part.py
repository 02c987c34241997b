"""The page The part: the part found in each photograph, and outlines drawn by hand."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import APIRouter, BackgroundTasks, Body, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from defectflow.core.files import UserError, atomic
from defectflow.core.tables import MANIFEST, MASKS, read_table
from defectflow.desk.pages import render
from defectflow.desk.pictures.clickable_photographs import ClickablePhotographs
from defectflow.desk.pictures.thumbnails import to_look_at
from defectflow.desk.project import Project
from defectflow.desk.records.outlines import (
    annotations_file,
    outline_of,
    outlined,
    photograph_path,
    reduced,
    remove_outline,
    save_outline,
)
from defectflow.images.read_write import read_mask
from defectflow.listing.image_names import is_image
from defectflow.segmentation.part_sheet import drawn

SHEET = 280  # pixels, width of a photograph on the sheet
MOST = 5000  # photographs that the page lists

Name = Annotated[str, Query(min_length=1, max_length=1000)]


class Clicked(BaseModel):
    """Clicks on a photograph, in pixels of the picture that `picture` returns."""

    name: str = Field(max_length=1000)
    inside: list[tuple[float, float]] = Field(default=[], max_length=200)
    outside: list[tuple[float, float]] = Field(default=[], max_length=200)


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes, opening = APIRouter(), ClickablePhotographs(project)

    @routes.get("/part")
    def page(request: Request) -> HTMLResponse:
        threading.Thread(target=_quietly, args=[opening.warm], daemon=True).start()
        return render(request, project, "part")

    @routes.get("/api/part")
    def all_of_it() -> dict[str, Any]:
        return overview(project)

    @routes.get("/api/part/picture")
    def picture(name: Name) -> Response:
        image = reduced(to_look_at(photograph_path(project, name)))
        return Response(_jpeg(image), media_type="image/jpeg")

    @routes.get("/api/part/sheet")
    def sheet(name: Name) -> Response:
        return Response(cell(project, name), media_type="image/jpeg")

    @routes.post("/api/part/open")
    def opened(later: BackgroundTasks, name: str = Body(), following: str | None = Body(None)) -> dict[str, Any]:
        began = time.perf_counter()
        choice = opening.warm()
        height, width = opening.open(name).shape
        if following:  # the next photograph is encoded while the user draws on this one
            later.add_task(_quietly, opening.open, following)
        found = {"width": width, "height": height, "outlined": name in outlined(project)}
        return found | {"network": choice.name, "told": choice.told, "seconds": time.perf_counter() - began}

    @routes.get("/api/part/mask")
    def mask_now(name: Name) -> Response:
        """The drawn outline, or else the mask of the run, as a PNG of the size of `picture`."""
        path = photograph_path(project, name)
        size = reduced(to_look_at(path)).shape[:2]
        found = outline_of(project, name)
        if found is None:
            row = _masks(project).get(name)
            file = project.folder / row["mask"] if row and row["mask"] else None
            found = read_mask(file) if file and file.is_file() else np.zeros(size, bool)
        return _png(cv2.resize(found.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0)

    @routes.post("/api/part/clicks")
    def clicks(told: Clicked) -> Response:
        ready = opening.open(told.name)
        height, width = ready.shape
        for x, y in (*told.inside, *told.outside):
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"point {x:g},{y:g} is outside the photograph")
        return _png(ready.mask(told.inside, told.outside))

    @routes.post("/api/part/outline")
    async def save(request: Request, name: Name) -> dict[str, Any]:
        body = await request.body()
        return save_outline(project, name, body)

    @routes.post("/api/part/remove")
    def remove(name: str = Body(embed=True)) -> dict[str, Any]:
        return remove_outline(project, name)

    @routes.post("/api/part/accept")
    def accept(who: str = Body("", max_length=100), stamp: str = Body("")) -> dict[str, Any]:
        """Accept the masks; ``stamp``: of those that the person has seen, see `overview`."""
        now = _stamp(project)
        if stamp and stamp != _text(now):
            raise UserError("there are other masks now (load the page again, and look at them)")
        kept = {"stamp": now, "who": who.strip(), "time": time.time()}
        with project.lock, atomic(project.state / "part.json") as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")
        return overview(project)

    return routes


def _quietly(act: Callable[..., Any], *words: str) -> None:
    with suppress(UserError, OSError):  # reported when the photograph is opened
        act(*words)


def overview(project: Project) -> dict[str, Any]:
    """The part found in each photograph, doubtful ones first, or only the photographs before the first run.

    Returns:
        rows: name, flagged (bool: absent or doubtful), reason, source, outlined (bool); segmenter, or ""; sources:
        {source: count}; flagged, outlined: counts; total; stamp: changes with the masks.
        accepted: {who, time} if these masks were accepted, or None.
    """
    masks, own = _masks(project), outlined(project)
    names = list(masks) or _photographs(project)
    rows = []
    for name in names:
        row = masks.get(name)
        flagged = row is not None and bool(row["present"] == 0 or row["doubtful"] == 1)
        rows.append(
            {
                "name": name,
                "flagged": flagged,
                "reason": row["reason"] if row else "",
                "source": row["source"] if row else "",
                "outlined": name in own,
            }
        )
    rows.sort(key=lambda row: (not row["flagged"], not row["outlined"], row["name"]))
    sources: dict[str, int] = {}
    for row in rows:
        sources[row["source"]] = sources.get(row["source"], 0) + 1
    return {
        "rows": rows[:MOST],
        "total": len(rows),
        "stamp": _text(_stamp(project)),
        "sources": {source: count for source, count in sorted(sources.items()) if source},
        "flagged": sum(row["flagged"] for row in rows),
        "outlined": len(own),
        "accepted": _accepted(project),
    }


def _photographs(project: Project) -> list[str]:
    found = []
    for folder, folders, files in os.walk(project.photographs, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(folder).relative_to(project.photographs)
        found += [(base / name).as_posix() for name in sorted(files) if is_image(name)]
        if len(found) > MOST:
            break
    return sorted(found)


def _mask_tables(project: Project) -> list[Path]:
    """Tables of the latest masks."""
    folders = sorted(
        (project.results / project.dataset).glob("*/masks"),
        key=lambda folder: max((path.stat().st_mtime_ns for path in folder.glob("*.csv")), default=0),
    )
    return sorted(folders[-1].glob("*.csv")) if folders else []


def _stamp(project: Project) -> list[int]:
    return [path.stat().st_mtime_ns for path in _mask_tables(project)]


def _text(stamp: list[int]) -> str:
    return "-".join(map(str, stamp))  # as numbers, browsers would round them


def _masks(project: Project) -> dict[str, dict[str, Any]]:
    """Rows of the MASKS tables by the name of the photograph below photographs/; shared, do not change them."""
    tables = _mask_tables(project)
    return _mask_rows(project, tuple(tables), tuple(_stamp(project))) if tables else {}


@functools.lru_cache(maxsize=2)
def _mask_rows(project: Project, tables: tuple[Path, ...], stamp: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    found = {}
    manifest = project.results / project.dataset / "manifest.csv"
    paths = [manifest] if manifest.is_file() else sorted(manifest.parent.glob("shards/*.csv"))
    place = {row.image_id: row.path for path in paths for row in read_table(path, MANIFEST[:2]).itertuples()}
    start = f"{project.photographs.name}/"
    for path in tables:
        for row in read_table(path, MASKS).to_dict("records"):
            name = place.get(row["image_id"], "")
            if name.startswith(start):
                found[name.removeprefix(start)] = row
    return found


def _accepted(project: Project) -> dict[str, Any] | None:
    try:
        kept = json.loads((project.state / "part.json").read_text(encoding="utf-8"))
        same = kept["stamp"] and kept["stamp"] == _stamp(project)
        return {"who": kept["who"], "time": kept["time"]} if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cell(project: Project, name: str) -> bytes:
    """A photograph of the sheet as a JPEG, its background darkened."""
    path, row = photograph_path(project, name), _masks(project).get(name)
    own = outlined(project)
    file = project.folder / row["mask"] if row and row["mask"] else None
    used = (path, file, annotations_file(project) if name in own else None)
    stamps = [one.stat().st_mtime_ns for one in used if one and one.is_file()]
    key = hashlib.sha256(f"sheet:{path}:{file}:{stamps}".encode("utf-8", "replace")).hexdigest()[:32]
    kept = project.state / "thumbnails" / f"{key}.jpg"
    if not kept.is_file():
        image = to_look_at(path)
        mask = outline_of(project, name) if name in own else read_mask(file) if file and file.is_file() else None
        shown = drawn(image, mask, SHEET) if mask is not None and mask.shape == image.shape[:2] else _small(image)
        with atomic(kept) as temporary:
            temporary.write_bytes(_jpeg(shown))
    return kept.read_bytes()


def _small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(
        image, (SHEET, max(1, round(image.shape[0] * SHEET / image.shape[1]))), interpolation=cv2.INTER_AREA
    )


def _png(mask: np.ndarray) -> Response:
    return Response(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes(), media_type="image/png")


def _jpeg(image: np.ndarray) -> bytes:
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
