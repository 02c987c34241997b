"""Rows by name, kept on disk, so that rare lookups need no memory for every image of a large set.

Standard library only.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

from defectflow.core.files import UserError

Row = tuple[Any, ...]


class DiskIndex(Mapping[str, Row]):
    """Rows by their first value, in a temporary database that is deleted when the process ends; memory is constant.

    Threads may share it. Iteration is in the order of the names.

    Args:
        rows: tuples (name, value, ...) of str, int and float, all as long as ``width`` + 1, no name empty. NaN comes
            back as None.
        width: number of values behind a name.
        files: where the rows come from, for messages.

    Raises:
        UserError: two rows have one name, or the folder for temporary files is full.
    """

    def __init__(self, rows: Iterable[Row], width: int, files: Sequence[object]) -> None:
        # "": SQLite writes to a file of its own in the folder for temporary files once 2 MB are not enough.
        self._database, self._lock = sqlite3.connect("", check_same_thread=False), Lock()
        columns = ["name TEXT PRIMARY KEY", *(f"value{number}" for number in range(width))]
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(f"CREATE TABLE entries ({', '.join(columns)}) WITHOUT ROWID")
        places = ", ".join("?" * len(columns))
        name = ""

        def followed() -> Iterator[Row]:
            nonlocal name
            for row in rows:
                name = row[0]
                yield row

        try:
            self._database.executemany(f"INSERT INTO entries VALUES ({places})", followed())
        except sqlite3.IntegrityError:
            where = f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else files[0]
            raise UserError(f"{where}: image {name} occurs twice (pass each shard once)") from None
        except sqlite3.OperationalError as error:
            raise UserError(
                f"temporary files: {error} (make room in /var/tmp, or set TMPDIR to a folder with free space)"
            ) from None

    def __getitem__(self, name: str) -> Row:
        with self._lock:
            query = "SELECT * FROM entries WHERE name = ?"
            row: Row | None = self._database.execute(query, (name,)).fetchone()
        if row is None:
            raise KeyError(name)
        return row[1:]

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return self._database.execute("SELECT 1 FROM entries WHERE name = ?", (name,)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        names = [""]
        while names:  # a thousand at a time, so that no query stays open between lookups
            with self._lock:
                query = "SELECT name FROM entries WHERE name > ? ORDER BY name LIMIT 1000"
                names = [name for (name,) in self._database.execute(query, names[-1:])]
            yield from names

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT COUNT(*) FROM entries").fetchone()[0])
