"""Run the desk: listen, print the address, open a browser; end with Ctrl-C."""

from __future__ import annotations

import logging
import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from defectflow.core.addresses import listen
from defectflow.core.files import UserError
from defectflow.desk.access import Access
from defectflow.desk.app import create_app
from defectflow.desk.project import Project, folder_for


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `defectflow desk`.

    Attributes:
        folder: to work in.
        host, port: to listen on; port 0: any free one.
        password: file whose first line is the password; required if other machines can reach the address.
        certificate, key: PEM files for TLS.
        browser: whether to open a browser, if there is a screen.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8500
    password: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    browser: bool = True


def serve(options: Options) -> int:
    """Run the desk until it is stopped; returns 0.

    Raises:
        UserError: an option is wrong, or the address is in use.
    """
    if bool(options.certificate) != bool(options.key):
        raise UserError("--certificate and --key: TLS needs both")
    folder = folder_for(options.folder)
    project = Project(folder)
    access = Access(project.state, options.host, _password(options.password), options.certificate is not None)
    listening = listen(options.host, options.port)
    address = access.address(listening.getsockname()[1])
    if folder != options.folder.expanduser().resolve():
        print(f"{options.folder} contains photographs and is not changed: the desk works in {folder}", file=sys.stderr)
        from defectflow.desk.pictures.taken_folders import take

        take(project, options.folder)
    print(f"desk of {folder}\nopen {address}\nstop it with Ctrl-C; an active run continues", flush=True)
    if not access.local and not access.tls:
        print(
            "warning: without TLS, others on the network can read the password (--certificate, --key)", file=sys.stderr
        )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    if options.browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform != "linux"):
        webbrowser.open(address)
    config = uvicorn.Config(
        create_app(project, access),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--password {path}: {error} (a text file with the password in its first line)") from None
