"""The photographs in the folder of the desk: the same as the workflow reads, with a stamp of each file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from defectflow.core.files import UserError
from defectflow.core.records import DataSet
from defectflow.desk.project import Project
from defectflow.images.formats import unread
from defectflow.listing.archives import archives_in
from defectflow.listing.folders import BAD, GOOD, NOT_KNOWN, SIDES, Folders, plain
from defectflow.sources import passed_over
from defectflow.sources.dataset_entry import resolve

FRESH = 2.0  # seconds for which a listing is valid
NAMED = 500  # largest number of files named


class Photograph(NamedTuple):
    """A file: its name below photographs/, and a stamp that changes with its content."""

    name: str
    stamp: str


def _deeper(name: str) -> dict[str, str]:
    """Label and kind of defect by folders in a name: SET/good/, SET/bad/KIND/, SET/test/KIND/; {} if none is known."""
    folders = name.split("/")[:-1]
    for place, folder in enumerate(folders):
        below = folders[place + 1] if place + 1 < len(folders) else ""
        if plain(folder) in SIDES and below and plain(below) not in {*GOOD, *BAD, *NOT_KNOWN}:
            return {"label": "1", "defect_type": below}
        if plain(folder) in GOOD:
            return {"label": "0"}
        if plain(folder) in BAD:
            return {"label": "1", "defect_type": below}
    return {}


class PhotographIndex:
    """The photographs of a folder, listed again if the last listing is older than `FRESH`.

    Args:
        project: the folder.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._lock = threading.Lock()
        self._when = 0.0
        self._found: dict[str, Photograph] = {}

    def all(self, anew: bool = False) -> dict[str, Photograph]:
        """{name: photograph}, sorted by name."""
        with self._lock:
            if anew or time.monotonic() - self._when > FRESH:
                self._found = self._list()
                self._when = time.monotonic()
            return self._found

    def forget(self) -> None:
        """Make the next call list the disk again."""
        self._when = 0.0

    def path(self, name: str) -> Path:
        """The file of a photograph.

        Raises:
            UserError: there is no photograph with this name.
        """
        path = self.project.path_inside(name, self.project.photographs)
        if not path.is_file():
            raise UserError(f"{name[:100]}: no such photograph")
        return path

    def resolved(self, labels: bool = True) -> DataSet:
        """The data set as the workflow resolves it; without ``labels``, as if there were no labels.csv."""
        entry = dict(self.project.settings()["datasets"][self.project.dataset])
        entry |= {"images": str(self.project.photographs), "links": self.project.links()}
        entry |= {"labels": str(self.project.labels)} if labels else {"labels": None}
        if "annotations" not in entry:
            entry["annotations"] = []  # the workflow finds them; names and labels do not depend on them
        return resolve(entry)

    def by_folder(self, names: list[str]) -> dict[str, dict[str, str]]:
        """{name: {label, defect_type, mask}} of photographs whose folders give a label."""
        folders = Folders(self.resolved(labels=False))
        rows = {name: folders.row(name) if folders.by_folder else {} for name in names}
        rows = {name: row if row.get("label") else _deeper(name) for name, row in rows.items()}
        masks = {name: row["mask"] for name, row in rows.items() if row.get("mask")}
        for name, mask in masks.items():  # in labels.csv paths are relative to its folder
            rows[name]["mask"] = os.path.relpath(mask, self.project.folder) if os.path.isfile(mask) else ""
        return {
            name: {key: value for key, value in row.items() if key != "split"}
            for name, row in rows.items()
            if row.get("label")
        }

    def others(self) -> list[dict[str, str]]:
        """Files that are not read as photographs, and links that are not followed, with the reason."""
        found = []
        root = self.project.photographs
        for name in passed_over.others(self.resolved()):
            found.append({"name": name, "reason": unread(root / name).reason})
            if len(found) >= NAMED:
                break
        for archive in archives_in(str(root)):
            found.append({"name": os.path.relpath(archive, root), "reason": "an archive (drag it onto this page)"})
        for name, reason in Folders(self.resolved()).links.items():
            found.append({"name": name, "reason": f"a link that is not followed ({reason})"})
        unique = {one["name"]: one for one in found}
        return list(unique.values())

    def _list(self) -> dict[str, Photograph]:
        folders = Folders(self.resolved())
        known = set(folders.photographs())
        found: dict[str, Photograph] = {}
        for name, entry in folders.walk():
            if name in known:
                try:
                    status = entry.stat()
                except OSError:
                    continue
                found[name] = Photograph(name, f"{status.st_size:x}-{status.st_mtime_ns:x}")
        return {name: found[name] for name in sorted(found)}
