"""Verdicts that wait for delivery to other systems, on the disk until these have taken them.

Each output has a thread of its own, takes records in their order, and tries again for as long as it takes. A record is
removed after it was taken, so that a crash between the two delivers it twice: receivers know it by its id.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError
from defectflow.delivery.destinations import Delivery, Refused

LOG = logging.getLogger("defectflow.service")
FILE = "outbox.sqlite"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds between attempts
TABLES = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT, output TEXT NOT NULL, record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS waiting_output ON waiting (output, number);
CREATE TABLE IF NOT EXISTS refused (number INTEGER PRIMARY KEY, output TEXT NOT NULL, record TEXT NOT NULL, why TEXT);
"""


class Outbox:
    """The file of records, and the threads that deliver them.

    Attributes:
        failures: attempts that failed, by output.
    """

    def __init__(self, folder: Path, deliveries: Sequence[Delivery]) -> None:
        """Open the file, or make it, and go on with what it holds.

        Raises:
            UserError: it cannot be written, is something else, or is used by another service.
        """
        self._deliveries, self._end = list(deliveries), float("inf")
        self._changed = threading.Condition()
        self.failures = {delivery.name: 0 for delivery in deliveries}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(folder / FILE, timeout=0, check_same_thread=False)
            # A second service would deliver everything twice.
            self._file.executescript("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            self._file.executescript(TABLES)
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{folder}: verdicts cannot be kept there ({error}; is another service running with it?)"
            ) from None
        known = {name for (name,) in self._file.execute("SELECT DISTINCT output FROM waiting")}
        if left := known - self.failures.keys():
            LOG.warning("%s holds verdicts for %s, which is not an output now", folder, ", ".join(sorted(left)))
        self._threads = [threading.Thread(target=self._deliver, args=(one,), daemon=True) for one in deliveries]
        for thread in self._threads:
            thread.start()

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep records for every output; they are on the disk when this returns.

        Raises:
            sqlite3.Error: they cannot be written.
        """
        texts = [json.dumps(record, allow_nan=False) for record in records]
        rows = [(delivery.name, text) for text in texts for delivery in self._deliveries]
        with self._changed:
            with self._file:
                self._file.executemany("INSERT INTO waiting (output, record) VALUES (?, ?)", rows)
            self._changed.notify_all()

    def waiting(self) -> dict[str, int]:
        """How many records wait, by output."""
        return dict.fromkeys(self.failures, 0) | self._counts("waiting")

    def refused(self) -> dict[str, int]:
        """How many records an output has refused for good, by output; they are kept in the table `refused`."""
        return dict.fromkeys(self.failures, 0) | self._counts("refused")

    def close(self, seconds: float) -> None:
        """Deliver what waits, for this long at most; the rest is delivered after the next start."""
        with self._changed:
            self._end = time.monotonic() + seconds
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.1, self._end - time.monotonic() + 1))
        with self._changed:
            self._file.close()

    def _closing(self) -> bool:
        return self._end != float("inf")

    def _counts(self, table: str) -> dict[str, int]:
        with self._changed:
            return dict(self._file.execute(f"SELECT output, COUNT(*) FROM {table} GROUP BY output"))

    def _deliver(self, delivery: Delivery) -> None:
        pause = FIRST_PAUSE
        try:
            while (rows := self._next(delivery)) is not None:
                try:
                    delivery.send([json.loads(record) for _, record in rows])
                except Refused as error:
                    LOG.error("%s refuses verdict %s for good: %s", delivery.name, rows[0][1][:60], error)
                    self._remove(delivery, rows, str(error))
                except Exception as error:
                    if pause == FIRST_PAUSE:
                        LOG.warning("%s: %s; its verdicts wait", delivery.name, error or type(error).__name__)
                    self.failures[delivery.name] += 1
                    with self._changed:
                        if self._closing():  # what is left waits for the next start
                            return
                        self._changed.wait_for(self._closing, min(pause, LONGEST_PAUSE))
                    pause *= 2
                else:
                    self._remove(delivery, rows)
                    if pause > FIRST_PAUSE:
                        LOG.info("%s takes verdicts again", delivery.name)
                    pause = FIRST_PAUSE
        except sqlite3.Error:  # the file was closed while the other side kept this thread waiting, or cannot be written
            if not self._closing():
                raise
        finally:
            delivery.close()

    def _next(self, delivery: Delivery) -> list[tuple[int, str]] | None:
        """The oldest records of an output, as soon as there are some; None to end."""
        query = "SELECT number, record FROM waiting WHERE output = ? ORDER BY number LIMIT ?"
        with self._changed:
            while True:
                if time.monotonic() >= self._end:
                    return None
                rows: list[tuple[int, str]] = self._file.execute(query, (delivery.name, delivery.batch)).fetchall()
                if rows or self._closing():
                    return rows or None
                self._changed.wait()

    def _remove(self, delivery: Delivery, rows: Sequence[tuple[int, str]], why: str | None = None) -> None:
        """Take out what was delivered or refused; while the disk is full, wait: sent again, it would arrive twice."""
        told = False
        while True:
            try:
                return self._remove_now(delivery, rows, why)
            except sqlite3.OperationalError as error:
                if not told:
                    LOG.error("%s: %s; its verdicts wait until the file can be written", delivery.name, error)
                told = True
                with self._changed:
                    if self._closing():
                        raise
                    self._changed.wait_for(self._closing, FIRST_PAUSE)

    def _remove_now(self, delivery: Delivery, rows: Sequence[tuple[int, str]], why: str | None) -> None:
        with self._changed, self._file:
            if why is not None:
                self._file.executemany(
                    "INSERT INTO refused (number, output, record, why) VALUES (?, ?, ?, ?)",
                    [(number, delivery.name, record, why) for number, record in rows],
                )
            self._file.executemany("DELETE FROM waiting WHERE number = ?", [(number,) for number, _ in rows])
