"""Work in parallel, one thread for each core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, ``torch.get_num_threads()`` of them computed at a time.

    Each item is computed by a single thread: its data stay in the cache of one core, and no operation waits for another
    thread. On a machine that others use as well this is several times faster than torch's own parallel loops, and
    the results do not depend on the number of threads. At most ``ahead`` results per thread wait to be taken.
    """
    workers = torch.get_num_threads()
    items = iter(items)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(function, item) for item in islice(items, ahead * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)
