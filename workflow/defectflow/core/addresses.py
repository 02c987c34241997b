"""Addresses of machines. Standard library only."""

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

from defectflow.core.files import UserError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "line.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def parts_of(address: str) -> SplitResult | None:
    """The parts of an address; None if it has no host, or its port is no number up to 65535.

    >>> parts_of("mqtt://line.example:1883/verdicts").port
    1883
    >>> parts_of("mqtt://line.example:x/verdicts"), parts_of("http://[::1/"), parts_of("/verdicts")
    (None, None, None)
    """
    try:
        parts = urlsplit(address)
        _ = parts.port  # read when asked for
    except ValueError:
        return None
    return parts if parts.hostname else None


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0: any free one.

    Raises:
        UserError: it is taken, or not one of this machine.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # who connects from now on waits
    except (OSError, OverflowError) as error:
        text = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: {text} (choose another port or address)") from None
    return listening
