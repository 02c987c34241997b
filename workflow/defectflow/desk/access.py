"""Access to the desk: by the address with its token, or by the password; requests of other sites are refused.

Every response also gets headers that block scripts and frames of other sites.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import socket
from pathlib import Path
from urllib.parse import parse_qs, quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from defectflow.core.addresses import is_loopback
from defectflow.core.files import UserError
from defectflow.service.access import RateLimit

MOST = 16_000_000  # bytes of a request; uploads of photographs have separate limits
UPLOAD = "/api/photographs/upload"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-src 'self'; frame-ancestors 'self'"
)
SHORTEST = 8  # characters of a password
SAFE = ("GET", "HEAD", "OPTIONS")


class Access:
    """Tokens, cookies and the password of one desk.

    Args:
        state: folder for the secret that signs cookies, so that an open browser survives a restart of the desk.
        host: address that the desk listens on.
        password: required if other machines can reach the address.
        tls: whether the desk speaks TLS itself.

    Raises:
        UserError: other machines can reach the address, and there is no password or a short one.
    """

    def __init__(self, state: Path, host: str = "127.0.0.1", password: str | None = None, tls: bool = False) -> None:
        self.host, self.tls, self.local = host.strip("[]"), tls, is_loopback(host)
        if not self.local and not password:
            raise UserError(f"--host {host}: others can reach this address, so a password is needed (--password FILE)")
        if password is not None and len(password) < SHORTEST:
            raise UserError(f"the password has fewer than {SHORTEST} characters (choose a longer one)")
        self.token = secrets.token_urlsafe(32)
        self.tries = RateLimit(0.2)
        salt = _kept(state / "secret")
        words = hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1) if password else b""
        self._password = words
        self._salt = salt
        self._key = hashlib.sha256(salt + words + b"desk").digest()

    def address(self, port: int) -> str:
        """The address to open, with the token if there is no password."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        start = f"{'https' if self.tls else 'http'}://{host}:{port}/"
        return start if self._password else f"{start}?token={self.token}"

    @property
    def asks(self) -> bool:
        """Whether users sign in with a password."""
        return bool(self._password)

    def opens(self, text: str) -> bool:
        """Whether a text is the token of the address."""
        return not self.asks and hmac.compare_digest(text.encode(), self.token.encode())

    def knows(self, password: str) -> bool:
        """Whether a text is the password."""
        if not self.asks or len(password) > 1000:
            return False
        return hmac.compare_digest(
            hashlib.scrypt(password.encode(), salt=self._salt, n=1 << 14, r=8, p=1), self._password
        )

    def new_session(self) -> str:
        """The value of a new cookie."""
        name = secrets.token_urlsafe(18)
        return f"{name}.{self._signed('session', name)}"

    def is_session(self, cookie: str) -> bool:
        """Whether a cookie was issued by this desk."""
        name, _, signature = cookie.partition(".")
        return bool(name) and hmac.compare_digest(signature.encode(), self._signed("session", name).encode())

    def csrf(self, cookie: str) -> str:
        """The value that requests with side effects must send as X-Desk-CSRF."""
        return self._signed("csrf", cookie)

    def is_own_host(self, header: str) -> bool:
        """Whether a Host header names this desk: an address, localhost, or the name of this machine.

        Any other name may be one that another site has made point here (DNS rebinding).
        """
        name = re.sub(r":\d+$", "", header).strip("[]").lower()
        try:
            return ipaddress.ip_address(name).is_loopback or not self.local
        except ValueError:
            own = {"localhost"} if self.local else {"localhost", self.host, socket.gethostname(), socket.getfqdn()}
            return name in {one.lower() for one in own}

    def _signed(self, *words: str) -> str:
        return hmac.new(self._key, "\0".join(words).encode("utf-8", "surrogateescape"), "sha256").hexdigest()


class Guard:
    """Checks access to the app, and sets the headers of every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._refusal(request) or await self._entry(request)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive if scope["path"] == UPLOAD else _limited(receive), _with_headers(send))

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies are shared between ports, so each folder's desk has its own name."""
        return f"defectflow-desk-{self.access._signed('cookie')[:8]}"

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if not self.access.is_own_host(headers.get("host", "")):
            return JSONResponse({"error": "this desk has another address (use the one that it printed)"}, 421)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return JSONResponse({"error": "a page of another site sent this request"}, 403)
        length = headers.get("content-length", "0")
        if request.url.path != UPLOAD and not (length.isdecimal() and int(length[:15]) <= MOST):
            return JSONResponse({"error": f"the request is larger than {MOST // 1_000_000} MB"}, 413)
        return None

    async def _entry(self, request: Request) -> Response | None:
        """None if the request may continue."""
        path, cookie = request.url.path, request.cookies.get(self.cookie, "")
        if path.startswith("/static/") or path == "/favicon.ico":
            return None
        if self.access.is_session(cookie):
            request.scope.setdefault("state", {})["csrf"] = self.access.csrf(cookie)
            if request.method in SAFE:
                return None
            sent = request.headers.get("x-desk-csrf", "")
            if hmac.compare_digest(sent.encode(), self.access.csrf(cookie).encode()):
                return None
            return JSONResponse({"error": "the page is out of date (load it again)"}, 403)
        token = request.query_params.get("token", "")
        if request.method == "GET" and token:
            if self.access.opens(token):
                return self._let_in(path)
            return _closed("token", 401)
        if path == "/login" and request.method == "POST" and self.access.asks:
            return await self._sign_in(request)
        if path.startswith("/api/"):
            return JSONResponse({"error": "not signed in (open the address that the desk printed)"}, 401)
        return _closed("password" if self.access.asks else "address", 401)

    async def _sign_in(self, request: Request) -> Response:
        sender = request.client.host if request.client else ""
        if wait := self.access.tries.wait(sender):
            return _closed("wait", 429, {"Retry-After": str(wait)})
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 4000:
                return _closed("wrong", 401)
        given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
        return self._let_in("/") if self.access.knows(given) else _closed("wrong", 401)

    def _let_in(self, path: str) -> Response:
        # A page, not a redirect: a strict cookie is not sent with a redirect that started on another site.
        target = path if re.fullmatch(r"/[\w/-]*", path) and not path.startswith("//") else "/"
        response = HTMLResponse(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={quote(target)}">'
            f'<title>defectflow</title><a href="{quote(target)}">defectflow</a>'
        )
        response.set_cookie(
            self.cookie, self.access.new_session(), httponly=True, samesite="strict", secure=self.access.tls, path="/"
        )
        return response


TOLD = {
    "token": "The token in this address is outdated. Open the address that the desk printed in its terminal.",
    "address": "Open the address that the desk printed in its terminal: it contains a token.",
    "password": "",
    "wrong": "Wrong password.",
    "wait": "Too many attempts. Wait a few seconds.",
}
FORM = """<form method="post" action="/login"><label for="password">Password</label>
<input id="password" name="password" type="password" autofocus required autocomplete="current-password">
<button class="main">Open</button></form>"""


def _closed(why: str, status: int, headers: dict[str, str] | None = None) -> Response:
    form = FORM if why in ("password", "wrong", "wait") else ""
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>defectflow</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/desk.css">
<body class="closed"><main><h1>defectflow desk</h1><p>{TOLD[why]}</p>{form}</main></body></html>"""
    return HTMLResponse(page, status, headers)


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Content-Security-Policy", POLICY)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"  # "no-referrer" would remove the origin from the password form
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
        await send(message)

    return sender


def _limited(receive: Receive) -> Receive:
    """Disconnect if a body exceeds MOST bytes."""
    size = 0

    async def receiver() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return message if size <= MOST else {"type": "http.disconnect"}

    return receiver


def _kept(path: Path) -> bytes:
    """Random bytes from a file that only its owner can read; the file is created if it does not exist."""
    if path.is_file():
        try:
            return bytes.fromhex(json.loads(path.read_text())["secret"])
        except (ValueError, KeyError, TypeError):
            pass  # damaged: a new one only signs everybody out
    made = secrets.token_bytes(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"secret": made.hex()}, stream)
    return made
