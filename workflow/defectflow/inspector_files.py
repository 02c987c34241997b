"""Which photographs to inspect: files, folders and globs, and a folder that is watched."""

import glob
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from defectflow.files import UserError
from defectflow.images import SUFFIXES


def photographs(paths: Sequence[str | Path]) -> Iterator[Path]:
    """Files in the order of ``paths``: a file as it is, a folder's images by name, folders in it too, or a glob's.

    A name that exists is never taken for a pattern. Nothing is kept in memory but the names of one folder.

    Raises:
        UserError: a path does not exist, or has no image in it.
    """
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = _below(path)
        elif path.exists() or not glob.has_magic(str(given)):
            yield path  # an absent file is told by the reader, like any other that cannot be read
            continue
        else:
            found = (Path(name) for name in sorted(glob.iglob(str(given), recursive=True)) if not os.path.isdir(name))
        first = next(found, None)
        if first is None:
            raise UserError(f"{given}: no image there ({', '.join(SUFFIXES)})")
        yield first
        yield from found


def count(paths: Sequence[str | Path]) -> int:
    """How many photographs ``paths`` name; 0 where some name none."""
    try:
        return sum(1 for _ in photographs(paths))
    except UserError:
        return 0


def watch(folder: str | Path, interval: float = 0.5, idle: float | None = None) -> Iterator[Path]:
    """Images of a folder as they arrive, those that are there first; each when it has stopped growing, and again
    when it has changed: what was still being written, or another photograph by the same name.

    Args:
        folder: the folders in it are looked into as well.
        interval: seconds between two looks.
        idle: stop after so many seconds without a new one; None: never.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder to watch")
    done: dict[Path, tuple[int, ...]] = {}
    growing: dict[Path, tuple[int, ...]] = {}
    last = time.monotonic()
    while idle is None or time.monotonic() - last < idle:
        present = set()
        for path in _below(Path(folder)):
            present.add(path)
            try:
                status = path.stat()
            except OSError:  # moved away in between
                continue
            state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if done.get(path) == state:
                continue
            if growing.get(path) == state:
                done[path] = growing.pop(path)
                yield path
            else:
                growing[path] = state
            last = time.monotonic()  # after the yield: while the caller is at work it is not idle
        # A name may come again, and these do not grow for ever.
        done, growing = ({p: state for p, state in known.items() if p in present} for known in (done, growing))
        time.sleep(interval)


def _below(folder: Path) -> Iterator[Path]:
    """Images of a folder and of those in it, each folder's in order of name, hidden ones left out."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    for name in names:
        path = folder / name
        if path.is_dir():
            if not path.is_symlink():  # it may lead back here
                yield from _below(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
