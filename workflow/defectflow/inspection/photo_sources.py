"""Which photographs to inspect (files, folders, globs, a watched folder), and which files are passed over."""

import glob
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path

from defectflow.core.files import UserError, nearest_path
from defectflow.images.formats import SUFFIXES, PassedOver, common, unread

LOOKED_AT = 10000  # most files counted in a folder that is not searched: a link may lead to a whole disk
SETTLED = (
    5.0  # seconds after which a watched file without an image suffix is no longer treated as an upload, but reported
)

OnPassedOver = Callable[[PassedOver], None]


def photographs(
    paths: Sequence[str | Path], on_passed_over: OnPassedOver = lambda _: None
) -> Generator[Path, None, None]:
    """Yield files in the order of ``paths``: a file itself, the images of a folder and its subfolders, or of a glob.

    An existing name is never treated as a pattern. Only the names of one folder are in memory at a time.

    Args:
        paths: files, folders and globs.
        on_passed_over: is given every file below a folder, of ``paths`` or found by a glob, that is not yielded.

    Raises:
        UserError: a path does not exist or contains no image.
    """
    roots = [os.path.realpath(path) for path in paths if os.path.isdir(path)]
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = _images(path, roots, on_passed_over)
        elif path.exists() or not glob.has_magic(str(given)):
            yield path  # an absent file is named by the reader, like any other that cannot be read
            continue
        else:
            found = _matching(str(given), roots, on_passed_over)
        first = next(found, None)
        if first is None:
            top = Path(given).parent
            absent = "" if glob.has_magic(str(top)) or top.exists() else f"; {top} does not exist{nearest_path(top)}"
            raise UserError(f"{given}: no image there ({common()}){absent}")
        yield first
        yield from found


def count(paths: Sequence[str | Path]) -> int:
    """Number of photographs in ``paths``; 0 if any of them has none."""
    try:
        return sum(1 for _ in photographs(paths))
    except UserError:
        return 0


def watch(
    folder: str | Path,
    interval: float = 0.5,
    idle: float | None = None,
    on_passed_over: OnPassedOver = lambda _: None,
    ended: Callable[[], bool] = lambda: False,
) -> Generator[Path, None, None]:
    """Yield the images of a folder as they arrive, existing ones first.
    when it has changed: what was still being written, or another photograph by the same name.

    Args:
        folder: its subfolders are watched as well.
        interval: seconds between two scans.
        idle: stop after this many seconds without a new image; None: never.
        on_passed_over: is given every other file once, after SETTLED seconds or when the watch ends.
        ended: asked before each scan whether to stop.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder to watch")
    roots = [os.path.realpath(folder)]
    done: dict[Path, tuple[int, ...]] = {}
    growing: dict[Path, tuple[int, ...]] = {}
    others: dict[Path, tuple[float, PassedOver | None]] = {}  # when first seen; None once named
    last = time.monotonic()
    try:
        while not ended() and (idle is None or time.monotonic() - last < idle):
            present = set()
            for path in _below(Path(folder), roots):
                if isinstance(path, PassedOver):
                    present.add(path.path)
                    since, unnamed = others.setdefault(path.path, (time.monotonic(), path))
                    if unnamed and time.monotonic() - since >= SETTLED:
                        others[path.path] = (since, None)
                        on_passed_over(unnamed)
                    continue
                present.add(path)
                state = stamp_of(path)
                if not state or done.get(path) == state:  # removed since the scan, or known
                    continue
                if growing.get(path) == state:
                    done[path] = growing.pop(path)
                    yield path
                else:
                    growing[path] = state
                last = time.monotonic()  # after the yield: while the caller is at work it is not idle
            # A name may return later, and these collections must not grow without limit.
            done, growing = ({p: s for p, s in known.items() if p in present} for known in (done, growing))
            others = {p: seen for p, seen in others.items() if p in present}
            time.sleep(interval)
    finally:
        for _, unnamed in others.values():
            if unnamed and os.path.lexists(unnamed.path):
                on_passed_over(unnamed)


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or rewritten; () if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _images(folder: Path, roots: Sequence[str], on_passed_over: OnPassedOver) -> Iterator[Path]:
    for path in _below(folder, roots):
        if isinstance(path, PassedOver):
            on_passed_over(path)
        else:
            yield path


def _matching(pattern: str, roots: Sequence[str], on_passed_over: OnPassedOver) -> Iterator[Path]:
    """Files that match a pattern, and the images of folders that match it, unless the pattern covers their content."""
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(name):
            yield Path(name)
        elif "**" not in pattern:
            yield from _images(Path(name), [*roots, os.path.realpath(name)], on_passed_over)


def _below(folder: Path, roots: Sequence[str], top: bool = True) -> Iterator[Path | PassedOver]:
    """Images of a folder and its subfolders, sorted by name in each folder, together with the files passed over.

    Hidden folders, and links to folders outside of all ``roots`` (resolved paths), are not searched. The target of a
    link into a root is found there anyway.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        if top:
            raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
        yield PassedOver(folder, f"a folder that cannot be read ({error.strerror})", True)
        return
    for name in names:
        path = folder / name
        if path.is_dir():
            if path.is_symlink():
                if not _inside(path, roots):
                    where = "a link to a folder elsewhere (name that folder as well)"
                    yield from _unentered(path, where)
            elif name.startswith("."):
                yield from _unentered(path, "a hidden folder (rename it, or name it as well)")
            else:
                yield from _below(path, roots, top=False)
        elif not path.is_file():
            what = "a link that leads nowhere" if path.is_symlink() else "neither a file nor a folder"
            yield PassedOver(path, what, _is_image(name))
        elif not _is_image(name):
            yield unread(path)
        elif name.startswith("."):
            mine = name.startswith("._")  # what a Mac writes beside each file on foreign disks
            text = "a Mac's notes on a file" if mine else "a hidden file (rename it, or name it as well)"
            yield PassedOver(path, text, not mine)
        else:
            yield path


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _inside(link: Path, roots: Sequence[str]) -> bool:
    """Whether a link leads to a folder that is searched anyway: in a root, and not below a hidden folder."""
    real = Path(os.path.realpath(link))
    below = (real.relative_to(root).parts for root in roots if real.is_relative_to(root))
    return any(not any(part.startswith(".") for part in parts) for parts in below)


def _unentered(folder: Path, reason: str) -> Iterator[PassedOver]:
    """One entry for a folder that is not searched, with the number of files in it; none if it is empty."""
    names = list(islice((name for _, _, files in os.walk(folder) for name in files), LOOKED_AT))
    if names:
        images, more = sum(map(_is_image, names)), " or more" if len(names) == LOOKED_AT else ""
        why = f"{reason}; files in it: {len(names)}{more}, of them images: {images}{more}"
        yield PassedOver(folder, why, images > 0, len(names))
