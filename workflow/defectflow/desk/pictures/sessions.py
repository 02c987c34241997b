"""Sessions: photographs that were taken one after the other, with a pause before and after them.

The time is the one that the camera has written (EXIF), or else that of the file, which is kept apart: a copied or
uploaded file has the time of the copy.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.project import Project
from defectflow.images.decoders import UNREADABLE

PAUSE = 30 * 60  # seconds without a photograph after which another session begins
BATCH = 200  # photographs whose times are written at once
TABLE = """CREATE TABLE IF NOT EXISTS photograph_times (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, time REAL NOT NULL, exif INTEGER NOT NULL
)"""


class Taken(NamedTuple):
    """When a photograph was taken, in seconds of the clock on the wall, and whether its camera says so."""

    time: float
    exif: bool


class Session(NamedTuple):
    """Photographs without a pause between them; ``first`` and ``last`` as ISO 8601 without a zone."""

    first: str
    last: str
    exif: bool
    names: list[str]


class Sessions:
    """The sessions of a folder; times are read in the background and kept.

    Args:
        project: the folder.
        photographs: its photographs.
    """

    def __init__(self, project: Project, photographs: PhotographIndex) -> None:
        self.project, self.photographs = project, photographs
        self._reader: threading.Thread | None = None
        with project.lock, project.database() as database:
            database.execute(TABLE)

    def all(self) -> dict[str, Any]:
        """What is known by now.

        Returns:
            {sessions: [{first, last, exif, count}], of: {name: [number of its session, its place in it]},
            missing: how many photographs have no time yet; asked again, it is less}
        """
        known, missing = self._known()
        if missing and (self._reader is None or not self._reader.is_alive()):
            self._reader = threading.Thread(target=self._read, args=(missing,), daemon=True)
            self._reader.start()
        found = sessions(known)
        of = {name: [number, place] for number, one in enumerate(found) for place, name in enumerate(one.names)}
        told = [{"first": one.first, "last": one.last, "exif": one.exif, "count": len(one.names)} for one in found]
        return {"sessions": told, "of": of, "missing": len(missing)}

    def _known(self) -> tuple[dict[str, Taken], list[str]]:
        stamps = {one.name: one.stamp for one in self.photographs.all().values()}
        with self.project.database() as database:
            rows = database.execute("SELECT name, stamp, time, exif FROM photograph_times").fetchall()
        known = {
            row["name"]: Taken(row["time"], bool(row["exif"]))
            for row in rows
            if stamps.get(row["name"]) == row["stamp"]
        }
        return known, [name for name in stamps if name not in known]

    def _read(self, names: list[str]) -> None:
        for start in range(0, len(names), BATCH):
            stamps, found = self.photographs.all(), []
            for name in names[start : start + BATCH]:
                with suppress(OSError, KeyError):  # it is gone
                    found.append((name, stamps[name].stamp, *taken(self.project.photographs / name)))
            with self.project.database() as database:
                database.executemany("INSERT OR REPLACE INTO photograph_times VALUES (?, ?, ?, ?)", found)


def taken(path: Path) -> Taken:
    """When a photograph was taken: as its EXIF data say, or else the time of the file.

    Raises:
        OSError: there is no such file.
    """
    modified = os.stat(path).st_mtime
    with suppress(*UNREADABLE), Image.open(path) as image:
        # Asked for EXIF data that stand after the pixels, Pillow would decode all of a PNG.
        if image.format != "PNG" or "exif" in image.info:
            exif = image.getexif()
            own = exif.get_ifd(ExifTags.IFD.Exif)
            tags = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime
            for tag in tags:
                with suppress(ValueError, TypeError, OverflowError):
                    text = str(own.get(tag) or exif.get(tag) or "").strip("\0 ")
                    return Taken(_on_the_wall(datetime.strptime(text, "%Y:%m:%d %H:%M:%S")), True)
    return Taken(_on_the_wall(datetime.fromtimestamp(modified)), False)


def sessions(times: dict[str, Taken]) -> list[Session]:
    """Sessions from the times of photographs: those with EXIF times first, each kind in the order of time.

    >>> [one.names for one in sessions({"a": Taken(0, True), "b": Taken(60, True), "c": Taken(7200, True)})]
    [['a', 'b'], ['c']]
    """
    found = []
    for exif in (True, False):
        own = sorted((taken.time, name) for name, taken in times.items() if taken.exif == exif)
        begins = [k for k, (time, _) in enumerate(own) if k == 0 or time - own[k - 1][0] > PAUSE]
        for begin, end in zip(begins, [*begins[1:], len(own)], strict=False):
            part = own[begin:end]
            found.append(Session(_iso(part[0][0]), _iso(part[-1][0]), exif, [name for _, name in part]))
    return found


_EPOCH = datetime(1970, 1, 1)


def _on_the_wall(time: datetime) -> float:
    return (time - _EPOCH).total_seconds()


def _iso(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")
