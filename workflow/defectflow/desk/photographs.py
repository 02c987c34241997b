"""The page Photographs: adding photographs, and a grid of all of them."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from defectflow.core.files import UserError
from defectflow.desk.pages import render
from defectflow.desk.pictures import taken_folders, thumbnails
from defectflow.desk.pictures.intake import SPARE, Intake
from defectflow.desk.pictures.label_store import LabelStore
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.project import Project
from defectflow.service.options import Options
from defectflow.service.uploads import Deadline, Held, Late, limited, read_form

FILES = 200  # in one request
# Of one request: an archive may contain a whole set. It is written to the disk while it is received.
LIMITS = Options(bundles=(), body=8_000_000_000, held=16_000_000_000, pictures=FILES, timeout=3600)
FOREVER = "private, max-age=31536000, immutable"


class Folder(BaseModel):
    """A folder on the machine of the desk."""

    path: str = Field(min_length=1, max_length=4000)


class Names(BaseModel):
    """Photographs."""

    names: list[str] = Field(max_length=100_000)


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()
    photographs = PhotographIndex(project)
    labels = LabelStore(project, photographs)
    intake = Intake(project, photographs, labels)
    held = Held()

    @routes.get("/photographs")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "photographs")

    @routes.get("/api/photographs/list")
    def listed() -> dict[str, Any]:
        """All photographs as [name, stamp, label, kind]."""
        return {"photographs": labels.table(), "folder": str(project.photographs)}

    @routes.get("/api/photographs/others")
    def others() -> list[dict[str, str]]:
        return photographs.others()

    @routes.get("/api/photographs/picture")
    def picture(name: str, size: str = "small") -> Response:
        """A small or large copy of a photograph; its address has a stamp, so browsers may cache it."""
        if size not in thumbnails.SIZES:
            raise UserError(f"{size[:20]!r}: no size (one of {', '.join(thumbnails.SIZES)})")
        path = photographs.path(name)
        status = path.stat()
        stamp = f"{status.st_size:x}-{status.st_mtime_ns:x}"
        found = thumbnails.thumbnail(path, name, stamp, size, project.state / "thumbnails")
        return FileResponse(found, media_type="image/jpeg", headers={"Cache-Control": FOREVER})

    @routes.post("/api/photographs/upload")
    async def upload(request: Request) -> dict[str, Any]:
        """Files of a form, each a field `image` with its name in the browser, including folders."""
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and shutil.disk_usage(project.state).free < SPARE + 2 * int(length[:15]):
            raise HTTPException(507, "not enough disk space for these files (free some)")
        deadline = Deadline(request, LIMITS.timeout)
        async with limited(request, LIMITS, held) as own:
            try:
                form = await read_form(own, LIMITS, deadline)
            except Late:
                raise HTTPException(408, "the files did not arrive in time") from None
            try:
                found = [one for one in form.getlist("image") if isinstance(one, UploadFile)]
                # Browsers write a quotation mark so in the name of a file.
                files = [((one.filename or "").replace("%22", '"'), one) for one in found]
                if not files:
                    raise UserError("give files in the field `image`")
                return await run_in_threadpool(take, files)
            finally:
                await form.close()

    def take(files: list[tuple[str, UploadFile]]) -> dict[str, Any]:
        archives = []
        plain = []
        for name, file in files:
            if name.lower().endswith(".zip"):
                path = intake.incoming / uuid.uuid4().hex
                with open(path, "wb") as target:
                    shutil.copyfileobj(file.file, target, 1 << 20)
                archives.append({"name": name, "number": intake.take_archive(name, path)})
            else:
                plain.append((name, file.file))
        report = intake.take_files(plain)
        return report.as_dict() | {"archives": archives}

    @routes.get("/api/photographs/archive/{number}")
    def archive(number: str) -> dict[str, Any]:
        return intake.archive(number).as_dict()

    @routes.post("/api/photographs/folder")
    def folder(given: Folder) -> dict[str, Any]:
        """Use a folder of this machine in place."""
        name = taken_folders.take(project, Path(given.path))
        found = [one for one in photographs.all(anew=True) if one.startswith(f"{name}/")]
        labels.all()
        return {"name": name, "count": len(found)}

    @routes.post("/api/photographs/remove")
    def remove(given: Names) -> dict[str, Any]:
        """Move photographs to .desk/removed; those of folders used in place are refused."""
        aside = project.state / "removed" / time.strftime("%Y%m%d-%H%M%S")
        removed = []
        paths = {name: photographs.path(name) for name in given.names}
        for name, path in paths.items():  # all of them, before one is moved
            if path.resolve() != project.photographs.resolve() / name:
                raise UserError(f"{name}: is in a folder that is used in place (remove it there)")
        for name, path in paths.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            removed.append(name)
        photographs.forget()
        labels.remove(removed)
        return {"removed": len(removed), "folder": str(aside)}

    @routes.get("/api/photographs/taken")
    def taken() -> list[dict[str, str]]:
        return taken_folders.listed(project)

    @routes.post("/api/photographs/give-back")
    def give_back(given: Folder) -> dict[str, Any]:
        """Remove a link to a folder; its photographs are not touched."""
        taken_folders.give_back(project, given.path)
        photographs.forget()
        return {"folders": taken_folders.listed(project)}

    return routes
