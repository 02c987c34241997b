"""Addresses of machines. Standard library only."""

import ipaddress
import socket

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
