"""The page Labels."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from defectflow.desk.pages import render
from defectflow.desk.project import Project


def router(project: Project) -> APIRouter:
    """The page and its API."""
    routes = APIRouter()

    @routes.get("/labels")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "labels")

    return routes
