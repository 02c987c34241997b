"""Content hashes of files, remembered between calls of Snakemake by size and time. Standard library only."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

from defectflow.core.files import atomic, sha256_of
from defectflow.listing.image_names import scan
from defectflow.sources.dataset_entry import resolve as resolve

BATCH = 100  # files per task of a thread: handing over single files takes as long as hashing small ones


class Known(TypedDict):
    """What a cache holds.

    Attributes:
        files: by folder ("" for single files) and name: size, mtime, ctime, inode, sha256.
        outlines: by annotation file and category: hash of the outlines of each image that it lists.
    """

    files: dict[str, dict[str, list[Any]]]
    outlines: dict[str, dict[str, str]]


def file_digests(files: str | Path | Iterable[str | Path], cache: str | Path | None) -> dict[str, str]:
    """Content hashes of all files of a folder, or of the listed files.

    Args:
        files: a folder (searched through, hidden files left out), or paths.
        cache: JSON file that remembers the hash for (size, mtime, ctime, inode), so that only new or changed files
            are read. It is rewritten atomically; if it cannot be written, it is skipped.

    Returns:
        {name relative to the folder, or path as given: sha256}, sorted; the hash of an unreadable file is "".
    """
    if isinstance(files, str | Path):
        return digests_of(os.path.abspath(files), {name: entry.path for name, entry in scan(files)}, cache)
    return digests_of("", {str(path): os.path.abspath(path) for path in files}, cache)


def digests_of(section: str, paths: Mapping[str, str], cache: str | Path | None) -> dict[str, str]:
    """Hashes of files by name; the cache keeps them per section: a folder, or "" for single files."""
    stats = {name: stat for name, path in paths.items() if (stat := _stat(path))}
    known = read_cache(cache)
    old = known["files"].get(section, {})
    key = {name: name if section else path for name, path in paths.items()}
    fresh, new = dict.fromkeys(paths, ""), []
    for name, stat in stats.items():
        entry = old.get(key[name])
        if entry and entry[:-1] == _state(stat):
            fresh[name] = entry[-1]
        else:
            new.append(name)
    if new:
        batches = ([paths[name] for name in new[start : start + BATCH]] for start in range(0, len(new), BATCH))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            fresh.update(zip(new, chain.from_iterable(pool.map(_hashes, batches)), strict=True))
    if new or (section and len(old) > len(stats)):
        # A file written a moment ago may change again within the resolution of its time stamp.
        settled = time.time_ns() - 2 * 10**9
        entries = {
            key[name]: [*_state(stat), fresh[name]]
            for name, stat in stats.items()
            if max(stat.st_mtime_ns, stat.st_ctime_ns) < settled and fresh[name]
        }
        known["files"][section] = entries if section else old | entries
        write_cache(cache, known)
    return {name: fresh[name] for name in sorted(fresh)}


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _state(stat: os.stat_result) -> list[int]:
    """Values that change with a file: copying and unpacking may keep size and mtime, but not ctime and inode."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hashes(paths: Iterable[str]) -> list[str]:
    """sha256 of each file, "" where it cannot be read."""
    found = []
    for path in paths:
        try:
            found.append(sha256_of(path))
        except OSError:
            found.append("")
    return found


def read_cache(cache: str | Path | None) -> Known:
    try:
        known = json.loads(Path(cache).read_text(encoding="utf-8")) if cache else {}
        return {"files": dict(known.get("files", {})), "outlines": dict(known.get("outlines", {}))}
    except (OSError, ValueError, AttributeError, TypeError):
        return {"files": {}, "outlines": {}}


def write_cache(cache: str | Path | None, known: Known) -> None:
    if cache:
        with suppress(OSError), atomic(cache) as temporary:
            temporary.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")
