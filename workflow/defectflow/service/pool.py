"""A fixed number of workers, each a separate process, with a bounded queue.

If a worker dies or takes too long, the photograph it was judging gets an answer that says so, and the worker is
replaced. Each worker has a thread, which is idle while the worker computes.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError
from defectflow.service.options import Options
from defectflow.service.served_bundles import Served
from defectflow.service.worker import BEGUN, DRAWN, hear, tell, work

LOG = logging.getLogger("defectflow.service")
LOADING = 300.0  # seconds allowed for loading the bundles
LONGEST_PAUSE = 30.0  # seconds between attempts to start a worker
LONGEST_NAME = 100  # bytes of a file name


class QueueFull(Exception):
    """There is no room for these photographs now."""


class Closed(Exception):
    """This pool accepts no more photographs; another one has replaced it."""


@dataclass(eq=False)
class Job:
    """One photograph to judge.

    Attributes:
        model: name of the bundle.
        name: of the file, as given by the sender.
        data: content of the file.
        draw: whether an overlay is wanted.
        answer: the result of `worker.judge`, with "overlay" as bytes of a JPEG or None; "cause" if it was not judged.
    """

    model: str
    name: str
    data: bytes
    draw: bool = False
    answer: Future[dict[str, Any]] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)


class Pool:
    """Workers that use the same copies of the bundles.

    Attributes:
        models: the bundles by name.
        runtimes: runtime of each bundle, once the workers are ready.
        replaced: how many workers have been replaced.
    """

    def __init__(self, models: Mapping[str, Served], options: Options, folder: Path) -> None:
        """Start the workers; ``folder`` is for their files."""
        self.models, self.runtimes, self.replaced = dict(models), dict[str, str](), 0
        self._options, self._failure = options, ""
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._ready: set[int] = set()
        self._mean = 0.1  # seconds for one photograph, running mean
        self._threads = [
            threading.Thread(target=self._attend, args=(number, folder / str(number)), daemon=True)
            for number in range(options.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Photographs in the queue."""
        return len(self._jobs)

    @property
    def alive(self) -> int:
        """Workers that can judge now."""
        return len(self._ready)

    @property
    def room(self) -> bool:
        """Whether the queue has room for another photograph."""
        return len(self._jobs) < self._options.queue

    @property
    def usable(self) -> bool:
        """Whether photographs can be judged: a worker is ready, or is expected to be."""
        return self.alive > 0 or not self._failure

    def seconds_left(self) -> int:
        """Estimated seconds until there is room, for Retry-After."""
        return max(1, round(self.waiting * self._mean / max(1, self.alive)))

    def wait_until_ready(self) -> None:
        """Wait for all workers.

        Raises:
            UserError: a worker cannot load a bundle; with its message.
        """
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._failure or self._closing or self.alive == self._options.workers, LOADING
            )
            if self._failure or not done:
                raise UserError(self._failure or f"the workers are not ready after {LOADING:.0f} s")

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put photographs into the queue, all or none.

        Raises:
            QueueFull: there is no room for all of them.
            Closed: `close` was called.
        """
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._jobs) + len(jobs) > self._options.queue:
                raise QueueFull
            self._jobs.extend(jobs)
            self._changed.notify_all()

    def withdraw(self, job: Job) -> None:
        """Remove a photograph from the queue whose request has ended; does nothing if it is being judged."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self) -> None:
        """Accept no more photographs, judge those in the queue, end the workers, and wait for this."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for job in self._jobs:  # of a pool whose workers did not start
            _settle(job, {"cause": "worker", "reason": "the service ended before this photograph was judged"})

    def _attend(self, number: int, folder: Path) -> None:
        worker: _Worker | None = None
        try:
            while True:
                if worker is None or not worker.process.is_alive():
                    if worker is not None:
                        self._lost(number, worker, "ended while idle")
                    worker = self._begin(number)
                    if worker is None:
                        return
                with self._changed:
                    # The time limit is needed to notice a dead worker.
                    self._changed.wait_for(lambda: self._jobs or self._closing, 0.5)
                    if not self._jobs and self._closing:
                        return
                    job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    continue
                if not self._judge(worker, job, folder):
                    self._lost(number, worker, "was killed, or took too long")
                    worker = None
        finally:
            self._ready.discard(number)
            if worker:
                worker.end()

    def _judge(self, worker: _Worker, job: Job, folder: Path) -> bool:
        """Have one photograph judged; False if the worker is lost."""
        start, alive, begun = time.monotonic(), True, False
        try:
            shutil.rmtree(folder, ignore_errors=True)  # left by a lost worker
            folder.mkdir(parents=True)
            path = folder / plain_name(job.name)
            path.write_bytes(job.data)
            tell(worker.pipe, [job.model, str(path), job.draw])
            begun = worker.pipe.poll(self._options.timeout) and hear(worker.pipe) == BEGUN
            if begun and worker.pipe.poll(max(0.0, start + self._options.timeout - time.monotonic())):
                answer = hear(worker.pipe)
                drawn = next((folder / DRAWN / "overlays").glob("*.jpg"), None) if job.draw else None
                answer["overlay"] = drawn.read_bytes() if drawn else None
                self._mean += 0.1 * (time.monotonic() - start - self._mean)
            else:
                limit = f"{self._options.timeout:g} s"
                answer, alive = {"cause": "timeout", "reason": f"judging it took longer than {limit}"}, False
            path.unlink(missing_ok=True)
            if job.draw:
                shutil.rmtree(folder / DRAWN, ignore_errors=True)
        except (EOFError, ConnectionError):
            if not begun:  # the worker was already dead: its successor gets the photograph
                with self._changed:
                    self._jobs.appendleft(job)
                return False
            answer, alive = (
                {"cause": "worker", "reason": "the process that judged it ended (killed, or no memory)"},
                False,
            )
        except OSError as error:
            answer = {"cause": "disk", "reason": f"{error.filename or folder}: {error.strerror}"}
            alive = worker.idle()
        answer["waited"] = 1000 * (start - job.queued)
        _settle(job, answer)
        return alive

    def _begin(self, number: int) -> _Worker | None:
        """Start a worker, with as many attempts as needed; None if the pool is being closed."""
        pause = 1.0
        while True:
            worker: _Worker | None = None
            failure: str | None
            try:
                worker = _Worker(self.models, self._options)
                failure = worker.load(lambda: self._closing and not self._jobs)
            except OSError as error:  # no memory or no process number left, which may pass
                failure = f"a worker process cannot be started ({error.strerror})"
            with self._changed:
                if worker and failure is None:
                    worker.end()
                    return None
                if worker and not failure:
                    self.runtimes = worker.runtimes
                    self._ready.add(number)
                    self._failure = ""
                    self._changed.notify_all()
                    return worker
                if worker:
                    worker.end()
                self._failure = failure or ""
                self._changed.notify_all()
                LOG.error("worker %d does not start: %s", number, failure)
                if self._changed.wait_for(lambda: self._closing, pause):
                    return None
            pause = min(2 * pause, LONGEST_PAUSE)

    def _lost(self, number: int, worker: _Worker, how: str) -> None:
        self._ready.discard(number)
        self.replaced += 1
        LOG.warning("worker %d (process %s) %s; it is replaced", number, worker.process.pid, how)
        worker.end()


class _Worker:
    """A process, and this end of the pipe to it."""

    def __init__(self, models: Mapping[str, Served], options: Options) -> None:
        context = get_context("spawn")  # a fork would inherit locks held by threads of this process
        self.pipe, theirs = context.Pipe()
        self.runtimes: dict[str, str] = {}
        folders = {name: model.folder for name, model in models.items()}
        settings = (options.runtime, options.precision, options.threads, options.pixels)
        self.process = context.Process(target=work, args=(theirs, folders, *settings), daemon=True)
        self.process.start()
        theirs.close()

    def load(self, stop: Any) -> str | None:
        """Wait until it is ready: "" if it is, an error message if not, None if ``stop()`` came first."""
        end = time.monotonic() + LOADING
        try:
            while not self.pipe.poll(0.2):
                if stop():
                    return None
                if time.monotonic() > end:
                    return f"a worker is not ready after {LOADING:.0f} s"
            word, content = hear(self.pipe)
        except (EOFError, OSError):
            return "a worker ended while it loaded the bundles (killed, or no memory)"
        if word == "failed":
            return str(content)
        self.runtimes = content
        return ""

    def idle(self) -> bool:
        """Whether it is alive and has sent nothing, that is, did not receive the last photograph."""
        return self.process.is_alive() and not self.pipe.poll(0)

    def end(self) -> None:
        """End it by closing the pipe if it is idle, otherwise by force."""
        self.pipe.close()
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


def plain_name(name: str) -> str:
    """A safe file name for the sender's ``name``: its last part, with _ for unusual characters.

    The suffix is kept: it identifies raw files of cameras, of which a decoder would return only the thumbnail.

    >>> plain_name("../../C:\\\\day 1\\\\IMG 7.CR2")
    'IMG_7.CR2'
    """
    last = re.split(r"[\\/]", name)[-1]
    plain = re.sub(r"[^\w.+-]", "_", last.encode("utf-8", "ignore").decode()).lstrip(".")
    stem, dot, suffix = plain.rpartition(".")
    if not dot:
        stem, suffix = plain, ""
    stem = stem.encode()[:LONGEST_NAME].decode("utf-8", "ignore") or "photograph"
    return f"{stem}.{suffix[:10]}" if suffix else stem


def _settle(job: Job, answer: dict[str, Any]) -> None:
    if job.answer.set_running_or_notify_cancel():  # False: the request has ended
        job.answer.set_result(answer)
