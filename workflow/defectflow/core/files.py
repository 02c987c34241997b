"""File handling for all stages: one-line errors, content hashes, outputs that are complete or absent.

Standard library only: the Snakefile imports this module.
"""

import argparse
import difflib
import errno
import gc
import hashlib
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The disk is full, a quota is used up, the file system is read-only, the folder belongs to someone else.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class UserError(Exception):
    """Bad input, reported in one line that names the file and the remedy."""


def stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse ``sys.argv`` with ``parser``, run ``main``.

    A UserError, or a disk that cannot be written to, becomes one line on stderr and exit status 1.
    """
    args = parser.parse_args()
    gc.freeze()  # imported modules are never garbage: scanning them takes 0.2 s, several times in a job
    try:
        main(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # the reader of the output has stopped, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        sys.exit(f"error: {error.filename or 'results'}: {error.strerror} (make room, or the folder writable)")


def nearest_path(path: str | Path) -> str:
    """ "; did you mean PATH?" for a path that does not exist; "" if no existing name is similar."""
    missing: list[str] = []
    found = Path(path)
    while not found.exists() and found != found.parent:
        missing.insert(0, found.name)
        found = found.parent
    near = found
    for name in missing:
        known = {one.name.casefold(): one.name for one in near.iterdir()} if near.is_dir() else {}
        close = [name] if (near / name).exists() else difflib.get_close_matches(name.casefold(), known, 1)
        if not close:
            break
        near /= known.get(close[0], close[0])
    return "" if near == found else f"; did you mean {near}?"


def sha256_of(path: str | Path) -> str:
    """Hex sha256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); move it over ``path`` only if the block succeeds.

    The temporary name is always the same, so that leftovers of a killed process are replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        temporary.write_bytes(b"")
        mode = temporary.stat().st_mode
        temporary.unlink()  # ext4 sends a file that was truncated to the disk when it is closed
        yield temporary
        temporary.chmod(mode)  # safetensors writes files that nobody else may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_dir(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder and remove it afterwards. Like ``atomic``, it replaces leftovers of a killed process."""
    path = Path(path)
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder; put it in the place of ``path`` only if the block succeeds. See ``atomic``."""
    path = Path(path)
    with scratch_dir(path.with_name(f".{path.name}.part")) as temporary:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused (use None), so the file is valid JSON."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def json_list_writer(path: str | Path) -> Iterator[Callable[[object], None]]:
    """Write a list as `write_json` does, one entry at a time: yields a function that appends one."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        before = "[\n"

        def add(entry: object) -> None:
            nonlocal before
            stream.write(before + textwrap.indent(json.dumps(entry, indent=2, allow_nan=False), "  "))
            before = ",\n"

        yield add
        stream.write("[]\n" if before == "[\n" else "\n]\n")


def read_json_list(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list that `json_list_writer` wrote, one at a time and in constant memory.

    Raises:
        UserError: the file is absent or not of that form.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            entry: list[str] = []
            for line in stream:
                if line.startswith("  "):
                    entry.append(line)
                if line.startswith(("  }", "  {}")):  # an object ends at the depth where it began
                    yield json.loads("".join(entry).rstrip("\n,"))
                    entry.clear()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list as the workflow writes it ({error})") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is absent or is not valid JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())  # given bytes, it detects the encoding, also by a byte order mark
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def tensor_header(metadata: Mapping[str, str], tensors: Iterable[tuple[str, str, Sequence[int], int]]) -> bytes:
    """Header of a safetensors file, to write one tensor after the other without holding them.

    Args:
        metadata: of the file.
        tensors: name, type as safetensors calls it, shape and bytes of a number of each, in the order of the data.

    Returns:
        JSON; in the file its length goes before it, and spaces that fill it up to a multiple of 8 after it.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, dtype, shape, itemsize in tensors:
        size = math.prod(shape) * itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    return json.dumps(header).encode()


def tensor_offsets(path: str | Path) -> dict[str, int]:
    """Byte offset of each tensor of a safetensors file, to read rows of it without mapping the file.

    A file consists of the length of its header (8 bytes), the header, and the data. Pages of a mapped file count as
    memory of the process, and a cluster may kill a job for that.
    """
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {name: 8 + length + tensor["data_offsets"][0] for name, tensor in header.items() if name != "__metadata__"}
