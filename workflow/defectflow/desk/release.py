"""The page Release: give a bundle a version, compare it with the previous one, roll back; log and report."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from defectflow.core.files import UserError
from defectflow.desk.pages import render
from defectflow.desk.project import Project
from defectflow.desk.records import releases
from defectflow.desk.records.results import last_run, need_run
from defectflow.inspection.bundle_files import pack

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PRINTING = 120  # seconds
SANDBOX = "sandbox allow-scripts allow-popups; default-src 'self' 'unsafe-inline' data: blob:"
LATEST = 200  # lines of the log on the page

Version = Annotated[str, Query(max_length=60)]


class Approval(BaseModel):
    """A version, what is new in it, and who approves it; ``sha256``: of the bundle that this person has seen."""

    version: str = Field(max_length=60)
    note: str = Field("", max_length=4000)
    who: str = Field(max_length=200)
    sha256: str = Field("", max_length=64)


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()

    @routes.get("/release")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "release")

    @routes.get("/api/release")
    def all_of_it() -> dict[str, Any]:
        return overview(project)

    @routes.post("/api/release")
    def approve(given: Approval) -> dict[str, Any]:
        releases.release(project, given.version, given.note, given.who, given.sha256)
        return overview(project)

    @routes.post("/api/release/use")
    def use(given: Approval) -> dict[str, Any]:
        releases.use(project, given.version, given.note, given.who)
        return overview(project)

    @routes.get("/api/release/compare")
    def compare(old: Version, new: Version = "") -> dict[str, Any]:
        before = releases.stored_verdicts(project, old)
        after = releases.stored_verdicts(project, new) if new else releases.verdicts_of(need_run(project))
        return releases.compare(before, after)

    @routes.get("/api/release/audit.csv")
    def audit() -> Response:
        return _download(releases.audit_table(project).encode("utf-8-sig"), "text/csv", f"{project.dataset}-audit.csv")

    @routes.get("/api/release/report.html")
    def report(version: str = "") -> Response:
        # Scripts of the report run isolated from the desk: without its cookie and without access to it.
        return FileResponse(
            report_of(project, version), media_type="text/html", headers={"Content-Security-Policy": SANDBOX}
        )

    @routes.get("/api/release/report.pdf")
    def printed(version: str = "") -> Response:
        name = f"{project.dataset}-{version or 'run'}.pdf"
        return _download(pdf_of(report_of(project, version)), "application/pdf", name)

    @routes.get("/api/release/bundle.zip")
    def bundle(version: Version) -> Response:
        releases.about_release(project, version)
        folder = tempfile.mkdtemp(dir=project.state)
        target = Path(folder) / "bundle.zip"
        pack(releases.folder_of(project) / version / "bundle", target)
        return FileResponse(
            target, filename=f"{project.dataset}-{version}.zip", background=BackgroundTask(_remove, folder)
        )

    return routes


def overview(project: Project) -> dict[str, Any]:
    """The bundle that can be released, the releases, the version in use, and the log."""
    entries, wrong = releases.audit(project)
    return {
        "run": last_run(project) is not None,
        "candidate": releases.candidate(project),
        "suggested": releases.suggested(project),
        "releases": releases.releases(project),
        "current": releases.current(project),
        "audit": entries[: -LATEST - 1 : -1],
        "audit_wrong": wrong,
        "pdf": browser() is not None,
    }


def report_of(project: Project, version: str) -> Path:
    """The report of a release, or of the last run for "".

    Raises:
        UserError: there is none.
    """
    if version:
        releases.about_release(project, version)
        path = releases.folder_of(project) / version / "report.html"
    else:
        path = need_run(project).folder / "report.html"
    if not path.is_file():
        raise UserError("there is no report of this version (run again)")
    return path


@functools.cache
def browser() -> str | None:
    """The program that converts pages to PDF; None if there is none on this machine."""
    return next((found for name in CHROMIUM if (found := shutil.which(name))), None)


def pdf_of(page: Path) -> bytes:
    """A page of HTML as PDF.

    Raises:
        UserError: Chromium is not installed, or does not print the page.
    """
    program = browser()
    if program is None:
        raise UserError("PDF needs Chromium on the machine of the desk (or print the report from your browser)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "report.pdf"
        command = [
            program, "--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}", page.resolve().as_uri(),
        ]  # fmt: skip
        if (
            hasattr(os, "geteuid") and os.geteuid() == 0
        ):  # its sandbox does not work as root, for example in a container
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=PRINTING,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"Chromium did not print the report in {PRINTING} seconds (try again)") from None
        except OSError as error:
            raise UserError(f"{program}: {error.strerror}") from None
        if done.returncode or not target.is_file():
            raise UserError("Chromium did not print the report (open it, and print it from your browser)")
        return target.read_bytes()


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _download(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
