"""Run the service: listen, load the bundles, answer, and end without losing accepted requests."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import uvicorn

from defectflow.core.addresses import is_loopback, listen
from defectflow.core.files import UserError
from defectflow.service.app import build_app
from defectflow.service.options import Options
from defectflow.service.service import Service

LOG = logging.getLogger("defectflow.service")
FLUSHED = 0.3  # seconds for sending the last responses
CONNECTIONS = 1000  # open at a time; more get 503


class Server(uvicorn.Server):
    """uvicorn's server, with signals handled by `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise the signal again at the end, so the exit status would not be 0."""
        yield


def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; returns 0. SIGHUP reloads the bundles and tokens.

    Raises:
        UserError: an option is wrong, a bundle cannot be loaded, or the address is in use.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    LOG.setLevel(logging.INFO)
    options.check()
    listening = listen(options.host, options.port)
    options = replace(options, port=listening.getsockname()[1])
    service = Service(options)
    try:
        asyncio.run(_serve(service, options, listening))
    finally:
        service.close()
    LOG.info("ended")
    return 0


async def _serve(service: Service, options: Options, listening: socket.socket) -> None:
    config = uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=int(options.timeout) + 1,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise UserError(
            f"{options.certificate}, {options.key}: not a certificate and its key in PEM ({error})"
        ) from None
    server = Server(config)
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def run(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def end() -> None:
        service.closing = server.should_exit = True
        run(_leave(service, server))

    def load_again() -> None:
        run(_load_again(service))

    with suppress(NotImplementedError):  # on Windows
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, load_again)
    answering = asyncio.create_task(server.serve(sockets=[listening]))
    LOG.info("listening on %s", options.address)
    if not is_loopback(options.host) and not options.certificate:
        LOG.warning("without TLS, others on the network can read tokens and photographs (--certificate, --key)")
    try:
        await asyncio.to_thread(service.load)
    except UserError:
        server.should_exit = True
        raise
    finally:
        if server.should_exit:
            await answering
    LOG.info("ready")
    await answering


async def _leave(service: Service, server: Server) -> None:
    """Close the connections when all requests are answered: open connections of clients would delay the end."""
    while service.answering:
        await asyncio.sleep(0.05)
    await asyncio.sleep(FLUSHED)
    server.force_exit = True


async def _load_again(service: Service) -> None:
    try:
        await asyncio.to_thread(service.load)
    except UserError as error:
        LOG.error("the bundles are not changed: %s", error)
