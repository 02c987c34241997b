"""The pages of the desk in the order of the work, and the rendering of their templates."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from defectflow.desk.project import Project
from defectflow.desk.translation import languages, of_request

HERE = Path(__file__).parent


class Page(NamedTuple):
    """A page: its module `defectflow.desk.MODULE` has `router(project)`, its address is /MODULE."""

    module: str
    title: str


# Only pages in this list are shown.
PAGES = (
    Page("photographs", "Photographs"),
    Page("labels", "Labels"),
    Page("part", "The part"),
    Page("runs", "Run"),
    Page("verdicts", "Verdicts"),
    Page("release", "Release"),
    Page("watch", "Watch"),
)


@functools.cache
def environment() -> Environment:
    """Templates of the desk; a missing variable is an error."""
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(request: Request, project: Project, module: str, **values: Any) -> HTMLResponse:
    """The page of a module: templates/MODULE.html, in the language of the request.

    Args:
        request: of the page.
        project: the folder that the desk works in.
        module: of an entry of PAGES.
        values: of the template, in addition to those of base.html.
    """
    words = of_request(request)
    values |= {
        "_": words.text,
        "words": json.dumps(words.catalog, ensure_ascii=False).replace("<", "\\u003c"),
        "language": words.language,
        "languages": languages(),
        "pages": PAGES,
        "here": module,
        "title": next((page.title for page in PAGES if page.module == module), ""),
        "project": project,
        "csrf": request.state.csrf,
    }
    return HTMLResponse(environment().get_template(f"{module}.html").render(values))
