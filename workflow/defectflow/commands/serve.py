"""Judge photographs that other programs send over HTTP."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path

from defectflow.core.files import UserError
from defectflow.service.options import MEGA, Options

EXTRA = "pip install 'defectflow[serve]'"


def serve(args: argparse.Namespace) -> int:
    """Judge photographs that other programs send over HTTP, until stopped."""
    try:
        from defectflow.service.server import serve as run
    except ModuleNotFoundError as error:
        raise UserError(f"defectflow serve: {error.name} is not installed ({EXTRA})") from None
    values = {field.name: getattr(args, field.name) for field in fields(Options) if field.name in args}
    if not all(0 < size < MEGA for size in (args.body, args.pixels)):
        raise UserError("--max-body, --max-pixels: must be more than 0 and less than a million")
    values |= {"bundles": tuple(args.bundles), "body": int(args.body * MEGA), "pixels": int(args.pixels * MEGA)}
    values["held"] = max(Options.held, 2 * values["body"])
    return run(Options(**values))


def token(args: argparse.Namespace) -> int:
    """Make a token for `defectflow serve`, or remove one; only its hash is stored."""
    from defectflow.service.access import add_token, remove_token

    if args.remove:
        remove_token(args.file, args.name)
    else:
        print(add_token(args.file, args.name, args.role))
    return 0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `defectflow serve` and `defectflow token` to the command line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    one = commands.add_parser("serve", help="judge photographs sent over HTTP", description=serve.__doc__)
    one.add_argument("bundles", nargs="+", metavar="BUNDLE", help="folder or .zip; NAME=BUNDLE to give it a name")
    one.add_argument(
        "--host", default=Options.host, help="address; any other than loopback needs --tokens (%(default)s)"
    )
    one.add_argument("--port", type=int, default=Options.port, help="(%(default)s); 0: any free port")
    one.add_argument("--workers", type=int, default=cores, help="worker processes (%(default)s)")
    one.add_argument("--threads", type=int, default=1, help="computing threads of each (%(default)s)")
    one.add_argument("--runtime", choices=("auto", "openvino", "onnx", "torch"), default="auto", help="(%(default)s)")
    one.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="(%(default)s)")
    one.add_argument(
        "--queue", type=int, default=Options.queue, help="largest number of waiting photographs (%(default)s)"
    )
    one.add_argument(
        "--timeout", type=float, default=Options.timeout, metavar="SECONDS",
        help="within which every request is answered (%(default)g)",
    )  # fmt: skip
    megabytes, megapixels = Options.body / MEGA, Options.pixels / MEGA
    one.add_argument(
        "--max-body", dest="body", type=float, default=megabytes, metavar="MB", help="largest request (%(default)g)"
    )
    one.add_argument(
        "--max-pixels", dest="pixels", type=float, default=megapixels, metavar="MEGAPIXELS",
        help="largest photograph (%(default)g)",
    )  # fmt: skip
    one.add_argument(
        "--max-pictures",
        dest="pictures",
        type=int,
        default=Options.pictures,
        help="largest number of photographs in a request (%(default)s)",
    )
    one.add_argument(
        "--tokens", type=Path, metavar="FILE", help="file of allowed tokens, written by `defectflow token`"
    )
    one.add_argument("--rate", type=float, metavar="N", help="requests per second from one sender (default: unlimited)")
    one.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, for TLS")
    one.add_argument("--key", type=Path, metavar="FILE", help="PEM, of the certificate")
    one.add_argument("--csv", type=Path, metavar="FILE", help="append a row for each verdict")
    one.add_argument("--webhook", metavar="URL", help="POST each verdict to this address as JSON")
    one.add_argument("--webhook-token", type=Path, metavar="FILE", help="file with a token to send")
    one.add_argument(
        "--mqtt", metavar="ADDRESS", help="mqtt://HOST[:PORT]/TOPIC, or mqtts:// for TLS: publish each verdict"
    )
    one.add_argument("--mqtt-login", type=Path, metavar="FILE", help="file with USER:PASSWORD")
    one.add_argument("--mqtt-ca", type=Path, metavar="FILE", help="PEM file of the CA of the broker's certificate")
    one.add_argument("--opcua", metavar="ADDRESS", help="opc.tcp://HOST[:PORT]: serve the latest verdict")
    one.add_argument("--opcua-login", type=Path, metavar="FILE", help="file with USER:PASSWORD of the client")
    one.add_argument(
        "--spool", type=Path, metavar="FOLDER", help="folder where verdicts wait for delivery to these outputs"
    )
    one.set_defaults(run=serve)

    two = commands.add_parser("token", help="make a token for serve", description=token.__doc__)
    two.add_argument("file", type=Path, metavar="FILE", help="file of tokens; it is created if it does not exist")
    two.add_argument("name", metavar="NAME", help="of its user, e.g. camera-3")
    two.add_argument("--role", choices=("inspect", "label", "approve"), default="inspect", help="(%(default)s)")
    two.add_argument("--remove", action="store_true", help="remove it from the file")
    two.set_defaults(run=token)
