"""The log of inspections: a row for each photograph in an SQLite file, written as they are judged."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from defectflow.core.files import UserError, nearest_path
from defectflow.inspection.inspector import Verdict
from defectflow.inspection.measures import Measures

SCHEMA = 1
COLUMNS = ("time", "file", "bundle", "verdict", "score", "raw_score", *Measures._fields)
TABLE = """
CREATE TABLE IF NOT EXISTS photographs (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, file TEXT NOT NULL, bundle TEXT NOT NULL, verdict TEXT NOT NULL,
  score REAL NOT NULL, raw_score REAL NOT NULL, exposure REAL, sharpness REAL, area REAL, x REAL, y REAL, grain REAL
)
"""
ADDED = ("grain",)  # columns that logs of earlier versions lack


class Logged(NamedTuple):
    """Photographs of a log, in the order they were judged.

    Attributes:
        time: float64 (n,), seconds since 1970 (UTC).
        bundle: str (n,), see `identity`.
        bad: bool (n,).
        raw_score: float64 (n,).
        measures: float64 (n, 6), see `Measures`; NaN where they are not known.
    """

    time: np.ndarray
    bundle: np.ndarray
    bad: np.ndarray
    raw_score: np.ndarray
    measures: np.ndarray


def identity(settings: Mapping[str, Any]) -> str:
    """A short name of a bundle, from the content of its bundle.json: another one, or version, has another name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


class Log:
    """An open log; made by `open_log`."""

    def __init__(self, connection: sqlite3.Connection, bundle: str) -> None:
        self._connection, self._bundle = connection, bundle

    def add(self, path: Path, verdict: Verdict) -> None:
        """Append a photograph and commit, so that readers see it; its `Verdict.measures` may be None."""
        measures = verdict.measures or (np.nan,) * len(Measures._fields)
        told = [None if np.isnan(value) else float(value) for value in measures]
        name = str(path).encode("utf-8", "backslashreplace").decode()
        word = "bad" if verdict.bad else "good"
        row = (time.time(), name, self._bundle, word, verdict.score, verdict.raw_score, *told)
        with self._connection:
            self._connection.execute(
                f"INSERT INTO photographs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", row
            )


@contextmanager
def open_log(path: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Open a log to append to, and make it if there is none. Others may read it meanwhile (write-ahead logging).

    Args:
        path: the file.
        settings: of the bundle that judges.

    Raises:
        UserError: the file is not a log, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30)
    try:
        with told(path):
            check(connection, path)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(TABLE)
            for name in lacking(connection):
                connection.execute(f"ALTER TABLE photographs ADD COLUMN {name} REAL")
            connection.execute(f"PRAGMA user_version={SCHEMA}")
            connection.commit()
            yield Log(connection, identity(settings))
    finally:
        connection.close()


def read_log(path: Path, since: float = -np.inf) -> Logged:
    """Read a log, or what was judged from ``since`` (seconds since 1970) on.

    Raises:
        UserError: there is no such file, it is not a log, or nothing is in it.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file{nearest_path(path)} (`defectflow inspect BUNDLE ... --log {path}` writes it)"
        )
    connection = sqlite3.connect(path, timeout=30)
    try:
        with told(path):
            check(connection, path, empty=False)
            absent = lacking(connection)
            columns = ["NULL" if name in absent else name for name in COLUMNS]
            rows = connection.execute(
                f"SELECT {', '.join(columns)} FROM photographs WHERE time >= ? ORDER BY time, id",
                (max(since, 0.0),),
            ).fetchall()
    finally:
        connection.close()
    if not rows:
        raise UserError(f"{path}: no photograph in it{' since then' if since > 0 else ''}")
    told_of = list(zip(*rows, strict=True))
    return Logged(
        np.array(told_of[0], float),
        np.array(told_of[2]),
        np.array(told_of[3]) == "bad",
        np.array(told_of[5], float),
        np.array(told_of[6:], float).T,
    )


def lacking(connection: sqlite3.Connection) -> list[str]:
    """Which of ADDED a log has not."""
    known = {row[1] for row in connection.execute("PRAGMA table_info(photographs)")}
    return [name for name in ADDED if name not in known]


@contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors as a UserError of one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be used as a log ({error}; name another file)") from None


def check(connection: sqlite3.Connection, path: Path, empty: bool = True) -> None:
    """Raise a UserError unless the file is a log of this version, or ``empty`` and has no tables."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if (version == SCHEMA and "photographs" in tables) or (empty and not tables and version == 0):
        return
    raise UserError(f"{path}: not a log of inspections of this version (name another file)")
