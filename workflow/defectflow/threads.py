"""Work in parallel, one thread for each core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    items = iter(items)
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(items, ahead * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2) -> Iterator[Result]:
    """As :func:`in_order` with ``torch.get_num_threads()`` workers.

    Each item is computed by a single thread: its data stay in the cache of one core, and no operation waits for another
    thread. On a machine that others use as well this is several times faster than torch's own parallel loops, and
    the results do not depend on the number of threads.
    """
    import torch

    workers = torch.get_num_threads()
    try:
        yield from in_order(function, items, workers, ahead, lambda: torch.set_num_threads(1))
    finally:
        torch.set_num_threads(workers)
