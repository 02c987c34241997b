"""The state of a running service: the current pool, access control, and the destinations of verdicts."""

from __future__ import annotations

import asyncio
import base64
import logging
import shutil
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from defectflow.core.files import UserError
from defectflow.delivery.destinations import CsvFile, Delivery, Mqtt, Webhook
from defectflow.delivery.opcua import OpcUa
from defectflow.delivery.outbox import Outbox
from defectflow.service.access import RateLimit, read_tokens
from defectflow.service.answers import Answer, Model, Result, State
from defectflow.service.monitoring import Monitoring
from defectflow.service.options import Options
from defectflow.service.own_folder import own_folder
from defectflow.service.pool import Closed, Job, Pool, QueueFull
from defectflow.service.served_bundles import copied, named
from defectflow.service.uploads import Deadline, Held

DELIVERING = 5.0  # seconds for delivering the last verdicts when the service ends
LOG = logging.getLogger("defectflow.service")


class Service:
    """State shared by the endpoints.

    Attributes:
        options: of `defectflow serve`.
        tokens: allowed tokens; None: no access control.
        rate, held, monitoring: see their classes.
        outbox: for other destinations of verdicts; None: there are none.
        closing: whether it is ending and accepts no more requests.
        answering: number of requests without a response.
    """

    def __init__(self, options: Options) -> None:
        """Check the options before loading anything.

        Raises:
            UserError: an option is wrong, or a path is not a bundle.
        """
        options.check()
        self.options, self.closing, self.answering = options, False, 0
        self._named = named(options.bundles)
        self.tokens = read_tokens(options.tokens) if options.tokens else None
        self.rate, self.held, self.monitoring = RateLimit(options.rate), Held(), Monitoring()
        outputs = deliveries(options, list(self._named))
        self.outbox = Outbox(options.spool, outputs) if options.spool and outputs else None
        self._folder = own_folder()
        self._pool: Pool | None = None
        self._place: Path | None = None  # of the pool's copies
        self._loading = threading.Lock()

    def load(self) -> None:
        """Load the bundles and tokens from the disk, and use them from then on.

        New workers start while the old ones finish their photographs and end. If a bundle or the file of tokens is
        wrong, nothing changes.

        Raises:
            UserError: a bundle or the file of tokens is damaged, or a reload is already running.
        """
        if not self._loading.acquire(blocking=False):
            raise UserError("the bundles are already being loaded (try again later)")
        place = Path(tempfile.mkdtemp(dir=self._folder.path))
        pool: Pool | None = None
        try:
            tokens = read_tokens(self.options.tokens) if self.options.tokens else None
            pool = Pool(copied(self._named, place / "bundles"), self.options, place / "jobs")
            pool.wait_until_ready()
        except BaseException as error:
            if pool:
                pool.close()
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"{error.filename or place}: {error.strerror} (free disk space for a copy)") from None
            raise
        else:
            self.tokens = tokens
            (old, old_place), (self._pool, self._place) = (self._pool, self._place), (pool, place)
            LOG.info("using %s", ", ".join(f"{m.name} {m.version}" for m in pool.models.values()))
            if old and old_place:
                old.close()
                shutil.rmtree(old_place, ignore_errors=True)
        finally:
            self._loading.release()

    def close(self) -> None:
        """Judge the photographs in the queue, and end."""
        self.closing = True
        if self._pool:
            self._pool.close()
        if self.outbox:
            self.outbox.close(DELIVERING)
        self._folder.remove()

    def state(self) -> State:
        """Whether it can judge, and with which bundles."""
        pool = self._pool
        if pool is None:
            return State(ready=False, why="the bundles are being loaded")
        why = "" if pool.usable else "no worker starts; see the log"
        why = "the service is ending" if self.closing else why
        return State(ready=not why, why=why, workers=pool.alive, waiting=pool.waiting, models=self._models(pool))

    def pool(self) -> Pool:
        """The current pool.

        Raises:
            HTTPException: 503: there is none.
        """
        pool, state = self._pool, self.state()
        if pool is None or not state.ready:
            raise HTTPException(503, f"not ready: {state.why}", {"Retry-After": "2"})
        return pool

    def admit(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            HTTPException: 503 if the service is not ready, 429 if its queue is full.
        """
        pool = self.pool()
        if not pool.room:
            raise _full(pool)

    def model(self, name: str | None) -> str:
        """The name of a bundle; None: that of the only one.

        Raises:
            HTTPException: 404: there is no such bundle; 422: there are several and none is named.
        """
        known = list(self.pool().models)
        if name is None:
            if len(known) > 1:
                raise HTTPException(422, f"name a model: model={known[0]} (known: {', '.join(known)})")
            return known[0]
        if name not in known:
            raise HTTPException(404, f"no model {name[:64]!r} (known: {', '.join(known)})")
        return name

    async def judge(
        self,
        model: str,
        pictures: Sequence[tuple[str, bytes]],
        part_ids: Sequence[str | None],
        deadline: Deadline,
        draw: bool = False,
        regions: bool = False,
    ) -> Answer:
        """Have photographs judged and wait until the deadline; photographs not judged by then get review.

        Args:
            model: name of a bundle.
            pictures: (name of the file, content).
            part_ids: one for each.
            deadline: of the request.
            draw, regions: whether the response includes overlays and regions.

        Raises:
            HTTPException: 429 if the queue has no room for all of them, 503 if the service is not ready.
        """
        jobs = [Job(model, name, data, draw) for name, data in pictures]
        pool = self._submit(jobs)
        waiting = [asyncio.wrap_future(job.answer) for job in jobs]
        await asyncio.wait(waiting, timeout=deadline.left)
        results = []
        for job, future, part_id in zip(jobs, waiting, part_ids, strict=True):
            if future.done():
                fields = future.result()
            else:
                pool.withdraw(job)
                fields = {"cause": "deadline", "reason": f"not judged within {deadline.text}"}
            served = pool.models[model]
            results.append(_result(job.name, part_id, served.name, served.version, fields))
        return await self._answer(results, deadline, regions)

    async def too_late(self, model: str | None, deadline: Deadline) -> Answer:
        """The response to a request that did not arrive before its deadline."""
        models = self.pool().models
        served = models.get(model or (next(iter(models)) if len(models) == 1 else ""))
        fields = {"cause": "deadline", "reason": f"the request did not arrive within {deadline.text}"}
        result = _result("", None, served.name if served else "", served.version if served else "", fields)
        return await self._answer([result], deadline)

    def metrics(self) -> bytes:
        """Metrics for Prometheus."""
        state = self.state()
        self.monitoring.gauges.update(
            ready=("Whether the service can judge", float(state.ready)),
            workers=("Workers that can judge now", state.workers),
            queue_length=("Photographs in the queue", state.waiting),
            queue_limit=("Size of the queue", self.options.queue),
            held_bytes=("Bytes of requests being read or judged", self.held.bytes),
            workers_replaced=("Workers replaced since the bundles were loaded", self._replaced()),
        )
        if self.outbox:
            self.monitoring.gauges.update(
                delivery_waiting=("Verdicts waiting for delivery", self.outbox.waiting()),
                delivery_refused=("Verdicts refused permanently by an output", self.outbox.refused()),
                delivery_failures=("Failed delivery attempts", self.outbox.failures),
            )
        return self.monitoring.text()

    async def _answer(self, results: list[Result], deadline: Deadline, regions: bool = False) -> Answer:
        """Count the verdicts of a request, and store them for the other outputs before responding.

        Raises:
            HTTPException: 503: they cannot be stored.
        """
        self.monitoring.answered(results, deadline.passed)
        if self.outbox:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            records = [{"time": now} | result.model_dump(exclude={"overlay_jpeg"}) for result in results]
            try:
                await asyncio.to_thread(self.outbox.add, records)
            except sqlite3.Error as error:
                LOG.error("%s: verdicts cannot be stored: %s", self.options.spool, error)
                raise HTTPException(503, f"the verdict cannot be stored for the other outputs ({error})") from None
        if not regions:
            results = [result.model_copy(update={"regions": None}) for result in results]
        return Answer(results=results, ms=deadline.passed)

    def _replaced(self) -> int:
        return self._pool.replaced if self._pool else 0

    def _submit(self, jobs: Sequence[Job]) -> Pool:
        while True:
            pool = self.pool()
            try:
                pool.submit(jobs)
                return pool
            except QueueFull:
                raise _full(pool) from None
            except Closed:
                if self._pool is pool:  # not replaced: the service is ending
                    raise HTTPException(503, "not ready: the service is ending", {"Retry-After": "2"}) from None

    def _models(self, pool: Pool) -> list[Model]:
        return [
            Model(
                name=served.name,
                version=served.version,
                run=str(served.settings.get("name") or ""),
                runtime=pool.runtimes.get(served.name, ""),
                threshold=served.settings["threshold"]["value"],
                review=served.settings.get("review"),
            )
            for served in pool.models.values()
        ]


def deliveries(options: Options, models: Sequence[str]) -> list[Delivery]:
    """The configured outputs for bundles of these names.

    Raises:
        UserError: one is configured wrongly.
    """
    found: list[Delivery] = []
    if options.csv:
        found.append(CsvFile(options.csv))
    if options.webhook:
        found.append(Webhook(options.webhook, options.webhook_token))
    if options.mqtt:
        found.append(Mqtt(options.mqtt, options.mqtt_login, options.mqtt_ca))
    if options.opcua:  # last: it starts a server
        found.append(OpcUa(options.opcua, models, options.opcua_login, options.certificate, options.key))
    return found


def _full(pool: Pool) -> HTTPException:
    text = f"the queue is full ({pool.waiting} photographs wait); try again"
    return HTTPException(429, text, {"Retry-After": str(pool.seconds_left())})


def _result(file: str, part_id: str | None, model: str, version: str, fields: dict[str, Any]) -> Result:
    fields = {"verdict": "review", **fields}
    overlay, waited, found = fields.pop("overlay", None), fields.pop("waited", None), fields.get("regions")
    return Result(
        id=uuid.uuid4().hex,
        part_id=part_id,
        file=file,
        model=model,
        model_version=version,
        region_count=None if found is None else len(found),
        overlay_jpeg=None if overlay is None else base64.b64encode(overlay).decode(),
        waited_ms=waited,
        **fields,
    )
