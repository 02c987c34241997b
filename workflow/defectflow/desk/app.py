"""The web application of the desk: its pages, their APIs, and error responses."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
from importlib import import_module

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from defectflow.core.files import UserError
from defectflow.desk.access import Access, Guard
from defectflow.desk.pages import HERE, PAGES
from defectflow.desk.project import Project
from defectflow.desk.translation import COOKIE, languages

LEAST = 1_000_000  # bytes; with less, an error of the database is blamed on the full disk


def create_app(project: Project, access: Access) -> FastAPI:
    """The application for one folder.

    Errors are JSON, {"error": text}: 422 for wrong input (a UserError), 404 for what does not exist, 507 for a full
    disk, 503 for a folder that is gone or cannot be read or written.
    """
    app = FastAPI(title="defectflow desk", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    for page in PAGES:
        app.include_router(import_module(f"defectflow.desk.{page.module}").router(project))
    app.add_middleware(Guard, access=access)

    @app.get("/")
    def first() -> Response:
        return RedirectResponse(f"/{PAGES[0].module}", 303)

    @app.get("/favicon.ico")
    def icon() -> Response:
        return RedirectResponse("/static/icon.svg", 301)

    @app.post("/api/language/{code}")
    def choose(code: str) -> Response:
        if code not in languages():
            raise UserError(f"{code[:20]!r}: no such language (one of {', '.join(languages())})")
        response = JSONResponse({"language": code})
        response.set_cookie(COOKIE, code, max_age=10**8, samesite="strict", httponly=True)
        return response

    def gone() -> Response | None:
        """The answer where the folder of the desk was moved away, whatever followed from it."""
        if project.state.is_dir():
            return None
        told = f"{project.folder}: the folder of the desk is gone (move it back, or start the desk on its new place)"
        return JSONResponse({"error": told}, 503)

    @app.exception_handler(UserError)
    def wrong(request: Request, error: UserError) -> Response:
        return gone() or JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(OSError)
    @app.exception_handler(sqlite3.Error)
    def not_stored(request: Request, error: Exception) -> Response:
        logging.getLogger(__name__).warning("%s: %s", request.url.path, error)
        if answer := gone():
            return answer
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or shutil.disk_usage(project.state).free < LEAST:  # SQLite only says "disk I/O error"
            told = f"{project.folder}: the disk is full; nothing was saved (free some space, then try again)"
            return JSONResponse({"error": told}, 507)
        return JSONResponse({"error": f"{project.folder}: {error} (can the folder be read and written?)"}, 503)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    return app
