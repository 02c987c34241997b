"""Work in parallel, one thread or one fork of the process for each core."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from defectflow.core.files import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[[Any], Any]  # of a fork, see _begin


class Map(Protocol):
    """`map`, or that of a pool."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterable[Result]: ...


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int = 2,
    initializer: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, ``workers`` of them computed at a time.

    At most ``ahead`` results per worker wait to be taken, so memory does not grow with the number of items.
    """
    threads: list[int] = []

    def begin() -> None:
        threads.append(threading.get_native_id())
        if initializer:
            initializer()

    try:
        yield from _yield_from(ThreadPoolExecutor(workers, initializer=begin), function, items, ahead * workers)
    finally:
        # A joined thread has not ended yet: MKL still frees its memory, under a lock. A fork made at that moment would
        # get a copy of the lock that is never released.
        while sys.platform == "linux" and any(os.path.exists(f"/proc/self/task/{thread}") for thread in threads):
            time.sleep(1e-4)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2) -> Iterator[Result]:
    """Like :func:`in_order`, with ``torch.get_num_threads()`` workers.

    Each item is computed by a single thread: its data stay in the cache of one core, and no operation waits for another
    thread. On a busy machine this is several times faster than torch's own parallel loops, and the results do not
    depend on the number of threads.
    """
    import torch

    workers = torch.get_num_threads()
    if workers == 1:
        yield from map(function, items)
        return
    try:
        yield from in_order(function, items, workers, ahead, lambda: torch.set_num_threads(1))
    finally:
        torch.set_num_threads(workers)


def can_fork() -> bool:
    """Whether :func:`in_forks` works here: only on Linux do the libraries survive a fork."""
    return sys.platform == "linux"


def in_forks(function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """Like :func:`in_threads`, with forks of this process: ``workers``, by default ``torch.get_num_threads()``.

    For work in many small steps, between which threads would wait for Python's lock. A fork sees the memory of this
    process at the time of the call; its results are pickled. There are no more forks than items.

    Raises:
        UserError: a fork was killed.
    """
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
    from multiprocessing import get_context

    if workers is None:
        import torch

        workers = torch.get_num_threads()
    context, first = get_context("fork"), list[Item]()
    items = iter(items)
    try:
        first.extend(islice(items, workers))
    except Exception as error:  # the results of the items before it come first
        items = _raising(error)
    workers, items = max(1, len(first)), chain(first, items)
    try:
        yield from _yield_from(ProcessPoolExecutor(workers, context, _begin, (function,)), _run, items, 2 * workers)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} processes was killed, probably because memory ran out (use fewer threads)"
        ) from None


def _yield_from(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    items, problem = iter(items), None
    waiting: deque[Future[Result]] = deque()
    try:
        while waiting or problem is None:
            try:
                waiting.extend(pool.submit(function, item) for item in islice(items, ahead - len(waiting)))
            except Exception as error:  # `items` failed, but the results of earlier items are still yielded
                problem = error
            if not waiting:
                break
            yield waiting.popleft().result()
        if problem is not None:
            raise problem
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[Item], Result]) -> None:
    """Prepare a fork: called once in each."""
    global _function
    _function = function
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the threads that computed before the fork are not in it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the parent reports it
    die_with_parent = 1  # prctl.h
    ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield


def _run(item: Any) -> Any:
    return _function(item)
