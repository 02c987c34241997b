"""The endpoints of the service: /v1, /metrics, an overview page, and the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from defectflow.core.files import UserError
from defectflow.service import open_inference
from defectflow.service.answers import Answer, Failure, Model, State
from defectflow.service.endpoints import REFUSALS, VERSION, may, service_of
from defectflow.service.service import Service
from defectflow.service.uploads import Deadline, Late, limited, part_ids_of, pictures_of, read_form, switch, text_of

FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array", "items": {"type": "string", "format": "binary"},
                            "description": "photographs, one or several fields of this name",
                        },
                        "part_id": {
                            "type": "array", "items": {"type": "string"},
                            "description": "returned in the response; one for all photographs, or one for each",
                        },
                        "model": {"type": "string", "description": "name of a bundle, if several are served"},
                        "overlay": {"type": "string", "enum": ["0", "1"]},
                        "regions": {"type": "string", "enum": ["0", "1"]},
                    },
                },
                "encoding": {"image": {"contentType": "image/*"}},
            }
        },
    },
    "parameters": [
        {
            "name": "X-Deadline-Ms", "in": "header", "schema": {"type": "integer", "minimum": 1},
            "description": "milliseconds after which photographs not yet judged get review",
        }
    ],
}  # fmt: skip
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>defectflow</title>
<h1>defectflow {version}</h1>
<p>Send photographs to <code>POST /v1/inspect</code>:</p>
<pre>curl -F image=@photograph.jpg -F part_id=4711 {address}v1/inspect</pre>
<table>{rows}</table>
<p>Description for programs: <a href="openapi.json">openapi.json</a></p>
</html>
"""

router = APIRouter()


@router.post("/v1/inspect", dependencies=[Depends(may("inspect"))], responses=REFUSALS, openapi_extra=FORM)
async def inspect(request: Request) -> Answer:
    """Judge photographs. Each gets a verdict; if it cannot be judged, it gets `review`, a cause and a reason."""
    service = service_of(request)
    deadline = Deadline(request, service.options.timeout)
    service.admit()
    async with limited(request, service.options, service.held) as own:
        try:
            form = await read_form(own, service.options, deadline)
        except Late:
            return await service.too_late(request.query_params.get("model"), deadline)
        try:
            model = service.model(text_of(request, form, "model"))
            draw, regions = (switch(request, form, name) for name in ("overlay", "regions"))
            pictures = await pictures_of(form, service.options)
            part_ids = part_ids_of(form, len(pictures))
        finally:
            await form.close()
        return await service.judge(model, pictures, part_ids, deadline, draw, regions)


@router.get("/v1/health")
async def health() -> dict[str, str]:
    """Whether the process responds."""
    return {"status": "ok", "version": VERSION}


@router.get("/v1/ready", responses={503: {"model": State}})
async def ready(request: Request, response: Response) -> State:
    """Whether photographs can be judged: status 200 or 503."""
    state = service_of(request).state()
    response.status_code = 200 if state.ready else 503
    return state


@router.get("/v1/models", dependencies=[Depends(may("inspect"))], responses=REFUSALS)
async def models(request: Request) -> list[Model]:
    """The served bundles."""
    return service_of(request).state().models


@router.post("/v1/reload", dependencies=[Depends(may("approve"))], responses={409: {"model": Failure}, **REFUSALS})
async def reload(request: Request) -> State:
    """Reload the bundles and tokens from the disk; until then requests are judged by the old ones."""
    service = service_of(request)
    try:
        await asyncio.to_thread(service.load)
    except UserError as error:
        raise HTTPException(409, str(error)) from None
    return service.state()


@router.get("/metrics", dependencies=[Depends(may("inspect"))], response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(service_of(request).metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """Overview of the endpoints, for people."""
    rows = []
    for path, methods in request.app.openapi()["paths"].items():
        for method, entry in methods.items():
            text = str(entry.get("description", "")).partition("\n")[0]
            rows.append(f"<tr><td><code>{method.upper()} {path}</code><td>{text}")
    address = f"{service_of(request).options.address}/"
    return HTMLResponse(
        PAGE.format(version=VERSION, address=address, rows="\n".join(rows)),
        headers={"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"},
    )


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """A refusal as JSON."""
    assert isinstance(error, AnyHTTPException)
    service_of(request).monitoring.refused(error.status_code)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def refuse_fields(request: Request, error: Exception) -> JSONResponse:
    """A refusal of a malformed request as JSON, in one line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return await refuse(request, HTTPException(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))


def build_app(service: Service) -> FastAPI:
    """The application. Swagger and ReDoc load from other hosts and are off; there are openapi.json and a page."""
    app = FastAPI(title="defectflow", version=VERSION, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    app.include_router(open_inference.router)
    app.add_exception_handler(AnyHTTPException, refuse)
    app.add_exception_handler(RequestValidationError, refuse_fields)

    @app.middleware("http")
    async def headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        service.answering += 1
        try:
            response = await call(request)
        finally:
            service.answering -= 1
        response.headers.update({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})
        return response

    return app
