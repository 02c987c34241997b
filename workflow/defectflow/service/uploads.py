"""Reading bodies of requests with limits: bytes of one request, bytes of all together, and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

from defectflow.service.options import MEGA, Options

MOST_FIELDS = 100  # of a form, without its files
LONGEST_ID = 200  # characters of a part id


class Late(Exception):
    """The deadline of a request has passed."""


class Deadline:
    """Deadline of a request: X-Deadline-Ms after its headers were read, at most the service's time limit."""

    def __init__(self, request: Request, timeout: float) -> None:
        self.start = time.monotonic()
        self.seconds, self.text = timeout, f"{1000 * timeout:.0f} ms, the service's limit"
        given = request.headers.get("x-deadline-ms")
        if given is not None:
            if not given.isascii() or not given.isdecimal() or int(given[:9]) < 1:
                raise HTTPException(400, f"X-Deadline-Ms: {given[:40]!r} is not a number of milliseconds")
            if int(given[:9]) / 1000 < timeout:
                self.seconds, self.text = int(given[:9]) / 1000, f"{given[:9]} ms, as given by X-Deadline-Ms"

    @property
    def left(self) -> float:
        """Seconds, 0 or more."""
        return max(0.0, self.start + self.seconds - time.monotonic())

    @property
    def passed(self) -> float:
        """Milliseconds since the start."""
        return 1000 * (time.monotonic() - self.start)


@dataclass
class Held:
    """Bytes of all requests being read or judged."""

    bytes: int = 0


@asynccontextmanager
async def limited(request: Request, options: Options, held: Held) -> AsyncIterator[Request]:
    """The request with limits; its bytes count as held until the block ends.

    Raises:
        HTTPException: 413 for more than ``options.body`` bytes, 429 if all requests hold more than ``options.held``.
    """
    size = 0
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:15]) > options.body:
        raise HTTPException(413, _too_large(options))

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        more = len(message.get("body", b""))
        size += more
        held.bytes += more
        if size > options.body:
            raise HTTPException(413, _too_large(options))
        if held.bytes > options.held:
            raise HTTPException(429, "too many bytes are being sent at once; try again", {"Retry-After": "1"})
        return message

    try:
        yield Request(request.scope, receive)
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the request was complete") from None
    finally:
        held.bytes -= size


async def read_form(request: Request, options: Options, deadline: Deadline) -> FormData:
    """The fields of a multipart form.

    Raises:
        HTTPException: it is not a form, is broken, or has too many parts.
        Late: it did not arrive in time.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send multipart/form-data with a field `image` (curl -F image=@photograph.jpg)")
    form = request.form(max_files=options.pictures + 1, max_fields=MOST_FIELDS, max_part_size=MEGA)
    try:
        return await asyncio.wait_for(form, deadline.left)
    except TimeoutError:
        raise Late from None
    except (KeyError, UnicodeError, ValueError) as error:  # malformed headers of a part
        raise HTTPException(400, f"a broken form ({type(error).__name__})") from None


async def read_body(request: Request, deadline: Deadline) -> bytes:
    """The body.

    Raises:
        Late: it did not arrive in time.
    """
    try:
        return await asyncio.wait_for(request.body(), deadline.left)
    except TimeoutError:
        raise Late from None


async def pictures_of(form: FormData, options: Options) -> list[tuple[str, bytes]]:
    """(Name of the file, content) of each field `image`.

    Raises:
        HTTPException: 422 for none or for text, 413 for more than ``options.pictures``.
    """
    files = form.getlist("image")
    if not files or not all(isinstance(file, UploadFile) for file in files):
        raise HTTPException(422, "give photographs in the field `image`, as files (curl -F image=@photograph.jpg)")
    if len(files) > options.pictures:
        raise HTTPException(413, f"{len(files)} photographs in one request, and the limit is {options.pictures}")
    return [(file.filename or "", await file.read()) for file in files if isinstance(file, UploadFile)]


def part_ids_of(form: FormData, count: int) -> Sequence[str | None]:
    """The part of each photograph: the fields `part_id`, one for all, or as many as photographs.

    Raises:
        HTTPException: 422 for another number of them, or if one is too long or not printable.
    """
    given = form.getlist("part_id")
    if not given:
        return [None] * count
    ids = [text for text in given if isinstance(text, str)]
    if len(ids) != len(given) or len(ids) not in (1, count):
        raise HTTPException(422, f"{len(given)} fields `part_id` for {count} photographs (give one, or one for each)")
    if not all(len(text) <= LONGEST_ID and text.isprintable() for text in ids):
        raise HTTPException(422, f"`part_id`: at most {LONGEST_ID} printable characters")
    return ids * (count // len(ids))


def switch(request: Request, form: FormData, name: str) -> bool:
    """Whether a field of the form or of the query is 1; 0 or missing means no.

    Raises:
        HTTPException: 422: it has another value.
    """
    text = text_of(request, form, name) or "0"
    if text not in ("0", "1"):
        raise HTTPException(422, f"`{name}` is 0 or 1")
    return text == "1"


def text_of(request: Request, form: FormData, name: str) -> str | None:
    """A field of the form, or of the query."""
    text = form.get(name, request.query_params.get(name))
    return text if isinstance(text, str) else None


def _too_large(options: Options) -> str:
    return f"the request is larger than {options.body / MEGA:g} MB (see --max-body)"
