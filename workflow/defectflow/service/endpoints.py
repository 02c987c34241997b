"""Shared by all endpoints: the service, access control, and error responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBearer

from defectflow.core.versions import versions
from defectflow.service.access import find_token, foreign
from defectflow.service.answers import Failure
from defectflow.service.service import Service

VERSION = versions(["defectflow"]).get("defectflow", "")
BEARER = HTTPBearer(
    auto_error=False, description="a token of `defectflow token`; not needed if the service runs without tokens"
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": text}
    for status, text in {
        400: "A broken request", 401: "No valid token", 403: "Role insufficient, or a page of another site",
        404: "No such model", 413: "Too large", 415: "Not a form", 422: "A field is missing or wrong",
        429: "The queue is full, or too many requests; see Retry-After", 503: "Not ready",
    }.items()
}  # fmt: skip


def service_of(request: Request) -> Service:
    """The service of a request."""
    service: Service = request.app.state.service
    return service


def may(role: str) -> Callable[..., Awaitable[None]]:
    """Dependency of an endpoint: checks the role and the rate of the sender.

    Raises:
        HTTPException: 401, 403 or 429 if refused.
    """

    async def check(request: Request, _: Annotated[Any, Depends(BEARER)]) -> None:
        service = service_of(request)
        sender = request.client.host if request.client else ""
        if service.tokens is None:
            if foreign(request.headers, service.options.host):
                raise HTTPException(403, "a page of another site may not use this service (tokens would allow it)")
        else:
            token = find_token(service.tokens, request.headers.get("authorization", ""))
            if token is None:
                raise HTTPException(401, "no valid token (Authorization: Bearer TOKEN)", {"WWW-Authenticate": "Bearer"})
            if not token.may(role):
                raise HTTPException(403, f"the role {role} is required, and the token {token.name} has {token.role}")
            sender = f"token {token.name}"
        if wait := service.rate.wait(sender):
            raise HTTPException(
                429, f"more than {service.options.rate:g} requests a second", {"Retry-After": str(wait)}
            )

    return check
