"""A run of the workflow as a separate process, which continues when the desk or the browser is closed.

The process `python -m defectflow.desk.running.run_process FOLDER RUN` starts Snakemake, waits for it, and records how
it ended. Meanwhile it holds a lock on .desk/runs/lock, by which any desk, also one started later, knows that a run is
active. SIGTERM ends the run.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from defectflow.core.files import UserError, read_json, write_json
from defectflow.desk.project import ROOT, Project
from defectflow.desk.running.run_queue import Queue

PATIENCE = 3.0  # seconds that Snakemake has to end its jobs and clean up before it is killed
KEPT = 20  # runs whose logs are kept
STARTING = 10.0  # seconds for the process to take the lock


class Runs:
    """The runs of a folder.

    Args:
        project: the folder.
    """

    def __init__(self, project: Project) -> None:
        self.project, self.folder = project, project.state / "runs"
        self.folder.mkdir(exist_ok=True)
        self.queue = Queue(self.folder)
        self._started: subprocess.Popen[bytes] | None = None

    def start(self, targets: Sequence[str] = (), cores: str = "all") -> dict[str, Any]:
        """Start a run, or let it wait for the one under way; returns the state.

        Raises:
            UserError: there is no workflow, or too many runs wait.
        """
        if not (ROOT / "Snakefile").is_file():
            raise UserError(
                f"{ROOT}: no Snakefile (the desk runs the workflow of a checkout, installed by `make setup`)"
            )
        with self.project.lock:
            # Where others wait, this one waits behind them; else it starts at once.
            self.queue.add(targets, cores, self.project.snakemake("--cores", cores, "--rerun-incomplete", *targets))
            self.next()
        return self.state()

    def next(self) -> None:
        """Start the run that waits first, unless one is under way."""
        self._start(finished=True)

    def _start(self, finished: bool) -> None:
        with self.project.lock, self.queue.held():
            if self.is_busy() or (run := self.queue.take_held(finished)) is None:
                return
            name = prepare(self.folder, run)
            words = [sys.executable, "-m", "defectflow.desk.running.run_process", str(self.project.folder), name]
            with open(self.folder / name / "log.txt", "ab") as log:  # also shows why it did not start
                self._started = subprocess.Popen(
                    words, cwd=self.project.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, env=environment(),
                )  # fmt: skip
            until = time.monotonic() + STARTING
            while time.monotonic() < until and not self.is_busy() and self._started.poll() is None:
                time.sleep(0.02)
            self._remove_old()

    def stop(self, go_on: bool = False) -> None:
        """Ask the active run to end; it does within `PATIENCE` and the time to kill the rest.

        Args:
            go_on: whether the first waiting run then starts; otherwise it keeps waiting.
        """
        state = self.state()
        if state["status"] == "running" and go_on:
            self.queue.go_on()
        until = time.monotonic() + STARTING
        while state["status"] == "running" and not state.get("pid") and time.monotonic() < until:
            time.sleep(0.02)  # it has only just started
            state = self._state()
        if state["status"] == "running" and (pid := state.get("pid")):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def is_busy(self) -> bool:
        """Whether a run is active."""
        if self._started is not None:
            self._started.poll()  # otherwise it would remain as a zombie
        with _lock(self.folder) as held:
            return not held

    def state(self) -> dict[str, Any]:
        """The state of the latest run: status none, running, done, failed, stopped or interrupted.

        A run that was asked for in the moment in which the one before ended is started here.
        """
        state = self._state()
        if state["status"] in ("done", "stopped") and self.queue.waiting():
            self._start(finished=state["status"] == "done")
            state = self._state()
        return state

    def _state(self) -> dict[str, Any]:
        names = self.names()
        if not names:
            return {"status": "none"}
        state: dict[str, Any] = read_json(self.folder / names[-1] / "state.json")
        if state["status"] == "running" and not self.is_busy():
            state = read_json(self.folder / names[-1] / "state.json")  # it may just have ended
            if state["status"] == "running":
                state["status"] = "interrupted"
        return state

    def names(self) -> list[str]:
        """The runs, the latest last."""
        return sorted(path.parent.name for path in self.folder.glob("*/state.json"))

    def log(self, name: str = "") -> Path:
        """The log of a run, or of the latest one if none is named.

        Raises:
            UserError: there is no such run.
        """
        names = self.names()
        chosen = name or (names[-1] if names else "")
        if chosen not in names:
            raise UserError("no such run")
        return self.folder / chosen / "log.txt"

    def lines(self) -> list[str]:
        """The lines that the latest run has printed."""
        return lines_of(self.log()) if self.names() else []

    def _remove_old(self) -> None:
        for name in self.names()[:-KEPT]:
            for path in (self.folder / name).iterdir():
                path.unlink()
            (self.folder / name).rmdir()


def lines_of(log: Path) -> list[str]:
    """The lines of a log; a progress bar that overwrites itself is one line."""
    try:
        text = log.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]


def prepare(folder: Path, run: dict[str, Any]) -> str:
    """Make the folder of a run that is about to start, with its state; returns its name.

    Args:
        folder: .desk/runs.
        run: targets and command, as `Queue.take` gives them.
    """
    name = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    (folder / name).mkdir()
    state = {"run": name, "status": "running", "started": time.time(), "ended": None, "exit": None}
    write_json(folder / name / "state.json", state | {"targets": run["targets"], "command": run["command"]})
    return name


def work(project: Project, run: str) -> int:
    """Run Snakemake as `prepare` has specified, then the waiting runs; see `run_queue`.

    Returns:
        Exit status of the last run, or 3 if another run is active.
    """
    folder = project.state / "runs"
    queue = Queue(folder)
    with _lock(folder, STARTING / 2) as held:  # the desk holds it briefly to check
        if not held:
            return 3
        asked = threading.Event()

        def end(number: int, frame: FrameType | None) -> None:
            asked.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            status, code = _work(project, folder / run, asked)
            following = queue.take(finished=status == "done" and not asked.is_set())
            if following is None:
                return code
            asked.clear()
            run = prepare(folder, following)


def _work(project: Project, folder: Path, asked: threading.Event) -> tuple[str, int]:
    """One run; how it has ended, and the exit status of Snakemake."""
    path = folder / "state.json"
    state = read_json(path) | {"pid": os.getpid()}
    write_json(path, state)
    _end_leftovers(project, folder.name)
    with open(folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *state["command"]], cwd=project.folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, env=environment(),
        )  # fmt: skip
        write_json(path, state | {"group": process.pid, "born": _born(process.pid)})
        while process.poll() is None and not asked.is_set():
            time.sleep(0.1)
        if asked.is_set() and process.poll() is None:
            killed = _end(process)
            if killed:
                _unlock(project)
        code = process.wait()
    status = "stopped" if asked.is_set() and code else "done" if code == 0 else "failed"
    write_json(path, read_json(path) | {"status": status, "ended": time.time(), "exit": code})
    return status, code


def _end(process: subprocess.Popen[bytes]) -> bool:
    """End Snakemake and its jobs; whether they had to be killed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(PATIENCE)
        killed = False
    except subprocess.TimeoutExpired:
        killed = True
    with suppress(ProcessLookupError):  # including remaining jobs
        os.killpg(process.pid, signal.SIGKILL)
    return killed


def _end_leftovers(project: Project, run: str) -> None:
    """After a run whose process was killed, e.g. by a reboot: end its remaining processes and remove its lock."""
    names = [name for name in Runs(project).names() if name < run]
    if not names:
        return
    path = project.state / "runs" / names[-1] / "state.json"
    last = read_json(path)
    if last["status"] != "running":
        return
    if last.get("group") and _born(last["group"]) == last.get("born"):
        with suppress(ProcessLookupError):
            os.killpg(last["group"], signal.SIGKILL)
    write_json(path, last | {"status": "interrupted", "ended": time.time()})
    _unlock(project)


def _unlock(project: Project) -> None:
    """Remove the lock of a killed Snakemake, as `snakemake --unlock` does, but without its seconds of start-up."""
    shutil.rmtree(project.folder / ".snakemake/locks", ignore_errors=True)


def _born(pid: int) -> str:
    """Start time of a process in Linux's units, to distinguish it from a later one with the same id; "": none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def environment() -> dict[str, str]:
    """Environment of a process that runs Snakemake: with this package, unbuffered output, no colours."""
    package = str(ROOT / "workflow")
    known = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONPATH": f"{package}:{known}".rstrip(":")}


@contextmanager
def _lock(folder: Path, patience: float = 0) -> Iterator[bool]:
    """Try for ``patience`` seconds to take the lock of the runs; yields whether it was taken. Released at the end."""
    until = time.monotonic() + patience
    with open(folder / "lock", "ab") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                yield False
            else:
                yield True
            return


def main() -> None:
    """The process of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the desk")
    parser.add_argument("run", help="name of the run in .desk/runs/")
    args = parser.parse_args()
    sys.exit(work(Project(args.folder), args.run))


if __name__ == "__main__":
    main()
