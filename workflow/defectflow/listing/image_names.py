"""Names of images: which files of a folder are images, their ids and their shards.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import hashlib
import os
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from defectflow.images.formats import SUFFIXES

FLAT = 5000  # images up to which their pictures share one folder
LONGEST_ID = 160  # file systems allow 255 bytes; stages append to the id


def shard_of(image_id: str, shards: int) -> int:
    """Shard an image belongs to, in [0, shards): stable under adding and removing other images."""
    return int(hashlib.sha256(image_id.encode()).hexdigest()[:8], 16) % shards


def place_of(image_id: str, images: int, suffix: str = ".png") -> str:
    """Path of an image's picture below a common folder; large sets get subfolders of about FLAT / 2 pictures each."""
    folder = f"{shard_of(image_id, 2 * images // FLAT)}/" if images > FLAT else ""
    return f"{folder}{image_id}{suffix}"


def image_ids(names: Iterable[str]) -> dict[str, str]:
    """Map relative image names ("a/b 1.jpg") to ids that are safe as file names ("a__b_1").

    If several names would get the same id (letter case does not count), each gets a short hash of its name as suffix,
    so that ids do not depend on the order.
    """
    names = list(names)
    image_id = id_maker(lambda: names)
    return {name: image_id(name) for name in names}


def id_maker(names: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """A function from a name to its id as in `image_ids`, which keeps only a few bytes per name.

    Args:
        names: returns all names; called once or twice.
    """

    def mark(name: str) -> int:
        return int.from_bytes(hashlib.blake2b(_plain_id(name).lower().encode(), digest_size=8).digest())

    marks = sorted(array("Q", map(mark, names())))
    suspects = {one for one, other in pairwise(marks) if one == other}
    users = Counter(_plain_id(name).lower() for name in names() if mark(name) in suspects) if suspects else Counter()

    def image_id(name: str) -> str:
        plain = _plain_id(name)
        return plain if users[plain.lower()] <= 1 else f"{plain}-{_short_hash(name)}"

    return image_id


def scan(
    folder: str | Path, enter: Callable[[str], bool] = lambda path: False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (relative name with "/", directory entry) of the files and links below ``folder``, hidden ones left out.

    Links to folders could lead anywhere, even in a circle: they are yielded, or entered if ``enter(path)`` is true.
    """
    pending = [("", os.fspath(folder))]
    while pending:
        prefix, path = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                linked = entry.is_symlink()
                if entry.is_dir(follow_symlinks=linked) and (not linked or enter(entry.path)):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield prefix + entry.name, entry


def is_image(name: str) -> bool:
    """Whether the suffix is one of an image file."""
    return name.lower().endswith(SUFFIXES)


def leaves(name: str) -> bool:
    """Whether a name in a table or COCO file is absolute or leaves its folder with ``..``."""
    name = name.replace("\\", "/")
    return name.startswith("/") or bool(re.match(r"[A-Za-z]:/", name)) or posixpath.normpath(name).split("/")[0] == ".."


def _plain_id(name: str) -> str:
    image_id = re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.splitext(name)[0].replace("/", "__"))
    return image_id if len(image_id) <= LONGEST_ID else f"{image_id[:LONGEST_ID]}-{_short_hash(name)}"


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
