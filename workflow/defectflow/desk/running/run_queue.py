"""Runs that wait for the one under way: .desk/runs/queue.json, in the order in which they were asked for.

The next one starts by itself after a run that has finished. After one that was stopped or has failed, it waits until
somebody says so: the reason may concern it too.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError, read_json, write_json

MOST = 20  # runs that can wait


class Queue:
    """The runs that wait. Processes change it one after the other.

    Args:
        folder: .desk/runs of a folder of the desk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def waiting(self) -> list[dict[str, Any]]:
        """The runs that wait, the next one first: number, targets, cores, command, asked (time)."""
        return list(self._content()["waiting"])

    def add(self, targets: Sequence[str], cores: str, command: Sequence[str]) -> None:
        """Let a run wait.

        Raises:
            UserError: too many do.
        """
        with self.held():
            content = self._content()
            if len(content["waiting"]) >= MOST:
                raise UserError(f"{MOST} runs wait already (take some out)")
            content["last"] += 1
            run = {"number": content["last"], "targets": list(targets), "cores": cores, "command": list(command)}
            content["waiting"].append(run | {"asked": time.time()})
            self._write(content)

    def remove(self, number: int | None = None) -> None:
        """Take one out, or all of them."""
        with self.held():
            content = self._content()
            kept = [run for run in content["waiting"] if number is not None and run["number"] != number]
            self._write(content | {"waiting": kept, "go_on": False})

    def go_on(self) -> None:
        """Let the next one start when the one under way has been stopped."""
        with self.held():
            self._write(self._content() | {"go_on": True})

    def take(self, finished: bool) -> dict[str, Any] | None:
        """Take out the next one, if it may start: after a run that has finished, or because somebody has said so."""
        with self.held():
            return self.take_held(finished)

    def take_held(self, finished: bool) -> dict[str, Any] | None:
        """`take`, for who holds the queue."""
        content = self._content()
        runs = content["waiting"] if finished or content["go_on"] else []
        if runs or content["go_on"]:
            self._write(content | {"waiting": content["waiting"][len(runs[:1]) :], "go_on": False})
        return runs[0] if runs else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from changing the queue."""
        with open(self.folder / "queue.lock", "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _content(self) -> dict[str, Any]:
        path = self.folder / "queue.json"
        empty = {"waiting": [], "last": 0, "go_on": False}
        return empty | (read_json(path) if path.is_file() else {})

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self.folder / "queue.json", content)
