"""The Open Inference Protocol (V2, REST), in addition to the service's own endpoints.

A photograph is an element of a BYTES tensor, the file in base64, or a UINT8 tensor of an upright RGB picture. Source:
https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ValidationError

from defectflow.service.answers import Result
from defectflow.service.endpoints import REFUSALS, VERSION, may, service_of
from defectflow.service.options import MEGA, Options
from defectflow.service.service import Service
from defectflow.service.uploads import LONGEST_ID, Deadline, Late, limited, read_body

INPUT = "image"
# Name and type of the outputs, each [n]. For a photograph that was not judged, `cause` says why and the scores are -1.
OUTPUTS = {
    "verdict": "BYTES", "score": "FP64", "raw_score": "FP64", "threshold": "FP64", "reason": "BYTES", "cause": "BYTES",
    "id": "BYTES",
}  # fmt: skip

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


class Tensor(BaseModel):
    """A tensor, row by row or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Wanted(BaseModel):
    """A requested output."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A request for inference."""

    id: str | None = None
    inputs: list[Tensor]
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] = {}


class InferResponse(BaseModel):
    """The response to a request for inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class TensorMetadata(BaseModel):
    """Name, type and shape of an input or output; -1: any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
SCHEMA = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        "outputs": {"type": "array", "items": NAMED},
        "parameters": {"type": "object", "properties": {"part_id": {"type": "string"}}},
    },
}
BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}}


@router.get("")
async def server() -> dict[str, Any]:
    """Name and version of the service."""
    return {"name": "defectflow", "version": VERSION, "extensions": []}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the process responds."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request, response: Response) -> dict[str, bool]:
    """Whether the service can judge: status 200 or 503."""
    state = service_of(request).state()
    response.status_code = 200 if state.ready else 503
    return {"ready": state.ready}


@router.get("/models/{name}", dependencies=[Depends(may("inspect"))], responses=REFUSALS)
@router.get("/models/{name}/versions/{version}", dependencies=[Depends(may("inspect"))], include_in_schema=False)
async def model(request: Request, name: str) -> ModelMetadata:
    """Inputs and outputs of a model."""
    service = service_of(request)
    found = _version(service, request)
    entry = next(model for model in service.state().models if model.name == name)
    outputs = [TensorMetadata(name=key, datatype=kind, shape=[-1]) for key, kind in OUTPUTS.items()]
    image = TensorMetadata(name=INPUT, datatype="BYTES", shape=[-1])
    platform = f"defectflow_{entry.runtime}"
    return ModelMetadata(name=name, versions=[found], platform=platform, inputs=[image], outputs=outputs)


@router.get("/models/{name}/ready", responses={404: REFUSALS[404]})
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, response: Response, name: str) -> dict[str, Any]:
    """Whether a model can judge: status 200 or 503."""
    service = service_of(request)
    state = service.state()
    if state.ready:
        _version(service, request)
    response.status_code = 200 if state.ready else 503
    return {"name": name, "ready": state.ready}


@router.post("/models/{name}/infer", dependencies=[Depends(may("inspect"))], responses=REFUSALS, openapi_extra=BODY)
@router.post("/models/{name}/versions/{version}/infer", dependencies=[Depends(may("inspect"))], include_in_schema=False)
async def infer(request: Request, name: str) -> InferResponse:
    """Judge photographs; parameters may contain a `part_id` for all of them."""
    service = service_of(request)
    deadline = Deadline(request, service.options.timeout)
    service.admit()
    _version(service, request)
    async with limited(request, service.options, service.held) as own:
        try:
            body = await read_body(own, deadline)
        except Late:
            return _response(None, (await service.too_late(name, deadline)).results, OUTPUTS)
        asked, pictures = await asyncio.to_thread(parsed, body, service.options)
        part_id = asked.parameters.get("part_id")
        if part_id is not None and not (
            isinstance(part_id, str) and part_id.isprintable() and len(part_id) <= LONGEST_ID
        ):
            raise HTTPException(422, f"parameter part_id: at most {LONGEST_ID} printable characters")
        answer = await service.judge(name, pictures, [part_id] * len(pictures), deadline)
    wanted = list(OUTPUTS) if asked.outputs is None else [output.name for output in asked.outputs]
    return _response(asked.id, answer.results, wanted)


def parsed(body: bytes, options: Options) -> tuple[InferRequest, list[tuple[str, bytes]]]:
    """A request and its photographs, as (name, content of a file).

    Raises:
        HTTPException: it is not a request of this protocol, or requests something else.
    """
    try:
        asked = InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HTTPException(400, f"not a request for inference: {where}: {first['msg']}") from None
    if len(asked.inputs) != 1 or asked.inputs[0].name != INPUT:
        raise HTTPException(400, f"give one input, {INPUT!r}")
    strange = [output.name for output in asked.outputs or [] if output.name not in OUTPUTS]
    if strange:
        raise HTTPException(400, f"no output {strange[0][:64]!r} (known: {', '.join(OUTPUTS)})")
    tensor = asked.inputs[0]
    if tensor.datatype == "BYTES":
        files = list(_files(tensor))
    elif tensor.datatype == "UINT8":
        files = list(_pictures(tensor, options))
    else:
        raise HTTPException(400, f"datatype {tensor.datatype[:20]!r}: give BYTES (files in base64) or UINT8 (RGB)")
    if not files:
        raise HTTPException(400, "no photograph in the request")
    if len(files) > options.pictures:
        raise HTTPException(413, f"{len(files)} photographs in one request, and the limit is {options.pictures}")
    return asked, [("", content) for content in files]


def _files(tensor: Tensor) -> Iterator[bytes]:
    data = list(_flat(tensor.data))
    if math.prod(tensor.shape) != len(data) or min(tensor.shape, default=1) < 0:
        raise HTTPException(400, f"shape {tensor.shape[:8]} does not hold {len(data)} elements")
    for element in data:
        try:
            yield base64.b64decode(element, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise HTTPException(400, "an element of a BYTES tensor must be a file in base64") from None


def _pictures(tensor: Tensor, options: Options) -> Iterator[bytes]:
    """Pictures [height, width, 3] or [n, height, width, 3] as PPM files with the same values."""
    shape = tensor.shape
    if len(shape) not in (3, 4) or shape[-1] != 3 or min(shape) < 1:
        raise HTTPException(400, f"shape {shape[:8]}: give [height, width, 3] or [n, height, width, 3]")
    height, width = shape[-3:-1]
    if height * width > options.pixels:
        raise HTTPException(413, f"more than {options.pixels / MEGA:g} megapixels (see --max-pixels)")
    try:
        values = bytes(_flat(tensor.data))
    except (TypeError, ValueError):
        raise HTTPException(400, "an element of a UINT8 tensor must be a number from 0 to 255") from None
    if len(values) != math.prod(shape):
        raise HTTPException(400, f"shape {shape[:8]} does not hold {len(values)} elements")
    size = height * width * 3
    for start in range(0, len(values), size):
        yield b"P6 %d %d 255\n" % (width, height) + values[start : start + size]


def _flat(data: list[Any]) -> Iterator[Any]:
    waiting = [iter(data)]
    while waiting:
        for element in waiting[-1]:
            if isinstance(element, list):
                waiting.append(iter(element))
                break
            yield element
        else:
            waiting.pop()


def _version(service: Service, request: Request) -> str:
    """The version of the model named in the path.

    Raises:
        HTTPException: 404: there is no such model, or it has another version.
    """
    name = service.model(request.path_params["name"])
    found = service.pool().models[name].version
    if request.path_params.get("version") not in (None, found):
        raise HTTPException(404, f"model {name} has version {found}")
    return found


def _response(request_id: str | None, results: list[Result], wanted: Iterable[str]) -> InferResponse:
    outputs = []
    for name in wanted:
        values = [getattr(result, name) for result in results]
        # JSON has no NaN, and scores are 0 or more.
        data = [(-1.0 if OUTPUTS[name] == "FP64" else "") if value is None else value for value in values]
        outputs.append(Tensor(name=name, shape=[len(results)], datatype=OUTPUTS[name], data=data))
    first = results[0]
    return InferResponse(model_name=first.model, model_version=first.model_version, id=request_id, outputs=outputs)
