"""Memory that a process keeps: for its next step (glibc only), or to its end. Standard library only."""

import atexit
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LARGEST = 2**25  # the largest block for which an older glibc allows it
INSPECTION = 2**28  # bytes, for photographs of 4096 pixels: their arrays have up to 70 MB


def keep_memory(most: int | None = None) -> None:
    """Make malloc keep freed memory in this process instead of returning it to the kernel (glibc only).

    For code that frees memory and allocates it again in its next step: clearing the returned pages takes a quarter of
    the time of a fine-tuning on two cores, a tenth of the time of a coreset, and as much of that of judging large
    photographs.

    Args:
        most: bytes kept, in blocks of any size; None: all of it, in blocks of up to LARGEST.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
        mallopt(trim_threshold, most or 2**31 - 1)
        mallopt(top_pad, 2**28)  # larger than a thread's heap, which would otherwise be returned
        if not mallopt(mmap_threshold, most or LARGEST):
            mallopt(mmap_threshold, LARGEST)


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for garbage in the block, nor later in what is there at its end: modules and what a process keeps.

    Otherwise every start looks through all of it several times, and each fork of the process copies it.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # some libraries report at the end what was not freed
    finally:
        gc.enable()
