"""Which linked folders of a data set are followed.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import os
from collections.abc import Callable, Iterable

from defectflow.core.records import DataSet


def roots(resolved: DataSet) -> list[str]:
    """Folders that may contain the photographs of a data set: its own and those that the config names (`links`)."""
    folders = (resolved["images"], resolved.get("path"), *(resolved.get("links") or ()))
    return [str(folder) for folder in folders if folder]


def within(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is inside one of the folders; all must be resolved (`os.path.realpath`)."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def entered(resolved: DataSet) -> Callable[[str], bool]:
    """A function that says of a link to a folder whether it leads to files of the set that are in no folder of it."""
    reason = follower(resolved, lambda _: True)
    return lambda path: not reason(path)


def follower(resolved: DataSet, reads: Callable[[str], bool]) -> Callable[[str], str]:
    """A function that says of a link to a folder why it is not followed: "" (it is), outside, read or circle.

    Args:
        resolved: the data set.
        reads: whether the photographs of a folder (relative to the image folder) are read there anyway.
    """
    images = os.path.realpath(str(resolved["images"]))
    allowed = [os.path.realpath(folder) for folder in roots(resolved)]

    def reason(path: str) -> str:
        real = os.path.realpath(path)
        if not within(real, allowed):
            return "outside"
        above = [path := os.path.dirname(path)]
        while len(path) > len(str(resolved["images"])):
            above.append(path := os.path.dirname(path))
        if any(within(os.path.realpath(folder), [real]) for folder in above):
            return "circle"
        inside = os.path.relpath(real, images)
        if within(real, [images]) and not any(part.startswith(".") for part in inside.split("/")) and reads(inside):
            return "read"
        return ""

    return reason
