"""A desk in the browser: from photographs to verdicts without the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from defectflow.core.files import UserError

EXTRA = "pip install 'defectflow[desk]'"


def desk(args: argparse.Namespace) -> int:
    """Photographs, labels, runs and verdicts in a browser, on this machine.

    The desk works in one folder; photographs/, labels.csv, config.yaml and results/ in it are those that the commands
    use. A folder of photographs is not changed; its desk is FOLDER-desk next to it.
    """
    try:
        from defectflow.desk.server import Options, serve
    except ModuleNotFoundError as error:
        raise UserError(f"defectflow desk: {error.name} is not installed ({EXTRA})") from None
    names = ("folder", "host", "port", "password", "certificate", "key", "browser")
    return serve(Options(**{name: getattr(args, name) for name in names}))


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `defectflow desk` to the command line."""
    one = commands.add_parser("desk", help="do everything in a browser", description=desk.__doc__)
    one.add_argument(
        "folder", type=Path, nargs="?", default=Path("desk"), metavar="FOLDER",
        help="folder of photographs, or for the desk; it is created if it does not exist (%(default)s)",
    )  # fmt: skip
    one.add_argument(
        "--host", default="127.0.0.1", help="address; any other than loopback needs --password (%(default)s)"
    )
    one.add_argument("--port", type=int, default=8500, help="(%(default)s); 0: any free one")
    one.add_argument("--password", type=Path, metavar="FILE", help="its first line is the password")
    one.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, for TLS")
    one.add_argument("--key", type=Path, metavar="FILE", help="PEM, of the certificate")
    one.add_argument("--no-browser", dest="browser", action="store_false", help="only print the address")
    one.set_defaults(run=desk)
