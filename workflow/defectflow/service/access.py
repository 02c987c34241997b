"""Access control: tokens with roles, a rate limit, and no requests from pages of other sites."""

import hashlib
import hmac
import json
import math
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from defectflow.core.addresses import is_loopback
from defectflow.core.files import UserError, atomic, read_json

ROLES = ("inspect", "label", "approve")  # each includes the rights of those before it
REMEMBERED = 10_000  # senders whose rate is stored


@dataclass(frozen=True)
class Token:
    """A token as stored: its hash, not the token itself."""

    name: str
    role: str
    sha256: str
    made: str

    def may(self, role: str) -> bool:
        """Whether it has a role, or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def add_token(path: Path, name: str, role: str) -> str:
    """Make a token and write its hash into a file that only its owner may read.

    Returns:
        The token: 256 random bits, so it cannot be guessed from its sha256.

    Raises:
        UserError: there is already a token with this name, or the file is not a token file.
    """
    if not re.fullmatch(r"[\w.@+-]{1,64}", name):
        raise UserError(f"{name!r}: not a valid name (up to 64 letters, digits and - _ . @ +)")
    tokens = read_tokens(path) if path.exists() else []
    if any(token.name == name for token in tokens):
        raise UserError(f"{path}: already has a token {name!r} (choose another name, or --remove it)")
    text = f"df_{secrets.token_urlsafe(32)}"
    tokens.append(Token(name, role, digest(text), datetime.now(UTC).isoformat(timespec="seconds")))
    _write(path, tokens)
    return text


def remove_token(path: Path, name: str) -> None:
    """Remove a token from its file.

    Raises:
        UserError: the file does not contain it.
    """
    tokens = read_tokens(path)
    if all(token.name != name for token in tokens):
        raise UserError(f"{path}: has no token {name!r} (it has: {', '.join(t.name for t in tokens) or 'none'})")
    _write(path, (token for token in tokens if token.name != name))


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file.

    Raises:
        UserError: it is missing, or was not written by `add_token`.
    """
    content = read_json(path)
    try:
        tokens = [Token(**entry) for entry in content["tokens"]]
    except (TypeError, KeyError):
        raise UserError(f"{path}: not a file of tokens (make one with `defectflow token`)") from None
    for token in tokens:
        if token.role not in ROLES or not re.fullmatch(r"[0-9a-f]{64}", str(token.sha256)):
            raise UserError(f"{path}: token {token.name!r} is damaged (make it again with `defectflow token`)")
    return tokens


def find_token(tokens: Iterable[Token], header: str) -> Token | None:
    """The token of a header "Authorization: Bearer TOKEN", or None."""
    kind, _, text = header.partition(" ")
    sent = digest(text.strip()) if kind.lower() == "bearer" else ""
    return next((token for token in tokens if hmac.compare_digest(token.sha256, sent)), None)


def digest(text: str) -> str:
    """Hex sha256 of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def foreign(headers: Any, host: str) -> bool:
    """Whether a browser sent a request for a page of another site.

    Such a page reaches a service on loopback, where no token protects it: by its address, or by a name of its own that
    it lets point there.

    Args:
        headers: of the request, a mapping with lower-case names.
        host: that the service listens on.
    """
    given = headers.get("host", "")
    name = given.rsplit(":", 1)[0] if re.search(r":\d+$", given) else given
    origin = headers.get("origin")
    return (name != host and not is_loopback(name)) or (origin is not None and origin.partition("://")[2] != given)


class RateLimit:
    """Requests a second from each sender, with bursts of as many (at least one)."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when

    def wait(self, sender: str) -> int:
        """Count a request; whole seconds until it may be made, 0 if now."""
        if self._rate is None:
            return 0
        most, now = max(1.0, self._rate), time.monotonic()
        left, then = self._known.pop(sender, (most, now))
        left = min(most, left + (now - then) * self._rate)
        granted = left >= 1
        self._known[sender] = (left - granted, now)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return 0 if granted else math.ceil((1 - left) / self._rate)


def _write(path: Path, tokens: Iterable[Token]) -> None:
    with atomic(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"tokens": [asdict(token) for token in tokens]}, stream, indent=2)
            stream.write("\n")
    path.chmod(0o600)
