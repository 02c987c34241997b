"""Live verdicts of the bundle in use on a folder, a camera or single pictures, stored in the log of inspections.

FOLDER/inspections.db      the log, as written by `defectflow inspect --log`, for `defectflow drift`
FOLDER/watched/            frames of a camera and single pictures, the newest KEPT of them
FOLDER/.desk/watch/        pictures of what was judged
"""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from defectflow.core.files import UserError, atomic
from defectflow.decision.outcomes import is_flagged
from defectflow.desk.project import Project
from defectflow.desk.records.releases import bundle_in_use
from defectflow.images.formats import PassedOver
from defectflow.inspection.bundle_files import MANIFEST
from defectflow.inspection.inspector import Inspector, Verdict
from defectflow.inspection.judge_files import judge_one
from defectflow.inspection.outputs import Pictures, notices, picture_path
from defectflow.inspection.photo_sources import stamp_of, watch
from defectflow.monitoring.inspection_log import open_log

LATEST = 300  # verdicts kept for the page
KEPT = 500  # frames and single pictures kept on the disk
PIXELS = 120_000_000  # of a photograph, at most
FASTEST, SLOWEST = 0.2, 3600.0  # seconds between two frames
BROKEN = 10  # frames in a row that a camera may fail to deliver
ANSWERS = 8000  # milliseconds that a stream has to respond, and to deliver its next frame
ADDRESS = re.compile(r"(rtsps?|https?)://[^\s]{1,500}")


@dataclass(frozen=True)
class Seen:
    """A judged photograph; ``verdict``: good, bad, review or error; ``stamp``: of its file as it was judged."""

    number: int
    time: float
    path: Path
    verdict: str
    score: float | None
    said: str
    stamp: tuple[int, ...]

    def unchanged(self) -> Path:
        """Its file.

        Raises:
            UserError: there is another photograph by this name now. A camera may use one name again and again.
        """
        now = stamp_of(self.path)
        if now and now != self.stamp:
            raise UserError(f"{self.path.name}: was replaced by another photograph since it was judged")
        return self.path

    def row(self) -> dict[str, Any]:
        """For the page."""
        return {
            "number": self.number,
            "time": self.time,
            "name": self.path.name,
            "verdict": self.verdict,
            "score": self.score,
            "said": self.said,
        }


@dataclass
class State:
    """The source: kind ("folder", "camera" or ""), source; since: start in seconds; problem: why it ended, or ""."""

    kind: str = ""
    source: str = ""
    since: float = 0.0
    problem: str = ""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("good", "bad", "review", "error"), 0))
    passed_over: int = 0


class Watcher:
    """Judges photographs one after another; in a thread while a folder or camera is watched.

    Attributes:
        session: of this watcher; each one numbers its verdicts from 1.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.seen: deque[Seen] = deque(maxlen=LATEST)
        self.state = State()
        self.session = uuid.uuid4().hex
        self._number = 0
        self._judging, self._starting = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._inspector: tuple[tuple[Path, int], Inspector, Pictures] | None = None

    @property
    def log(self) -> Path:
        """The log of inspections."""
        return self.project.folder / "inspections.db"

    @property
    def pictures(self) -> Path:
        """Folder of the drawn verdicts."""
        return self.project.state / "watch"

    def is_watching(self) -> bool:
        """Whether a folder or camera is being watched."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, kind: str, source: str, every: float = 1.0) -> None:
        """Watch a folder of this machine, or a camera: its number, a video file, or an address (rtsp, http).

        Raises:
            UserError: a source is being watched already, no bundle is in use, or there is no such folder or camera.
        """
        with self._starting:
            if self.is_watching():
                raise UserError("a source is being watched already (stop it first)")
            self._bundle()
            paths = self._paths(kind, source.strip(), every)
            self._ended.clear()
            self.state = State(kind, source.strip(), time.time())
            self._thread = threading.Thread(target=self._run, args=(paths,), name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop, after the photograph that is being judged."""
        self._ended.set()
        if self._thread:
            self._thread.join(timeout=30)

    def judge(self, path: Path) -> Seen:
        """Judge one photograph now.

        Raises:
            UserError: no bundle is in use.
        """
        with self._judging, ExitStack() as ended:
            inspector, pictures = self._ready()
            log = ended.enter_context(open_log(self.log, inspector.settings))
            return self._judged(inspector, pictures, log, path)

    def find(self, number: int) -> Seen:
        """One of the latest.

        Raises:
            UserError: it is not among them.
        """
        for one in self.seen:
            if one.number == number:
                return one
        raise UserError(f"photograph {number} is not among the latest {LATEST}")

    def _bundle(self) -> Path:
        bundle = bundle_in_use(self.project)
        if bundle is None:
            raise UserError("no bundle is in use (release one on the page Release)")
        return bundle

    def _ready(self) -> tuple[Inspector, Pictures]:
        """The inspector of the bundle in use, reloaded if the bundle has changed."""
        bundle = self._bundle()
        key = bundle, (bundle / MANIFEST).stat().st_mtime_ns
        if self._inspector is None or self._inspector[0] != key:
            inspector = Inspector.load(bundle)
            inspector.measuring = True
            pictures = Pictures(self.pictures, inspector.settings["scale"], inspector.settings["look"], False)
            self._inspector = key, inspector, pictures
        return self._inspector[1:]

    def _run(self, paths: Iterator[Path]) -> None:
        try:
            with closing(paths):  # type: ignore[type-var]
                for path in paths:
                    if self._ended.is_set():
                        break
                    self.judge(path)
        except UserError as error:
            self.state.problem = str(error)
        except Exception as error:  # an exception in a thread would be lost
            self.state.problem = f"{type(error).__name__}: {error}"
        finally:
            self.state.kind = ""

    def _judged(self, inspector: Inspector, pictures: Pictures, log: Any, path: Path) -> Seen:
        stamp = stamp_of(path)
        _, verdict, problem = judge_one(inspector, pictures, path, PIXELS)
        if verdict:
            log.add(path, verdict)
        self._number += 1
        said = problem.removeprefix(f"{path}: ") if verdict is None else "; ".join(notices(verdict))
        score = verdict.score if verdict else None
        one = Seen(self._number, time.time(), path, word_of(verdict), score, said, stamp)
        self.state.counts[one.verdict] += 1
        if len(self.seen) == LATEST:
            self._forget(self.seen[0])
        self.seen.append(one)
        return one

    def _forget(self, one: Seen) -> None:
        for kind in ("overlays", "heatmaps"):
            picture_path(self.pictures, kind, one.path).unlink(missing_ok=True)

    def _paths(self, kind: str, source: str, every: float) -> Iterator[Path]:
        if kind == "folder":
            folder = Path(source).expanduser()
            if not source or not folder.is_absolute() or not folder.is_dir():
                raise UserError(f"{source[:200]}: not a folder of this machine (give its absolute path)")
            if folder.resolve() == self.project.folder or self.project.state in (
                folder.resolve(),
                *folder.resolve().parents,
            ):
                raise UserError(f"{source[:200]}: the desk's own folder (give the folder where photographs arrive)")
            return watch(folder, on_passed_over=self._passed, ended=self._ended.is_set)
        if kind == "camera":
            if not FASTEST <= every <= SLOWEST:
                raise UserError(f"a frame every {every:g} seconds: allowed are {FASTEST:g} to {SLOWEST:g}")
            return frames(source, every, self.folder("camera"), self._ended)
        raise UserError(f"{kind[:40]!r}: a folder or a camera can be watched")

    def _passed(self, found: PassedOver) -> None:
        self.state.passed_over += found.files

    def folder(self, name: str) -> Path:
        """Folder for photographs that are not stored elsewhere."""
        folder = self.project.folder / "watched" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def word_of(verdict: Verdict | None) -> str:
    """Verdict as the page shows it; as in the service, a person decides where the part or its mask is in doubt too."""
    if verdict is None:
        return "error"
    if verdict.review or is_flagged(verdict.present, verdict.doubtful):
        return "review"
    return "bad" if verdict.bad else "good"


def opened(source: str) -> cv2.VideoCapture:
    """A camera by its number, a video file, or an address.

    Raises:
        UserError: it cannot be opened.
    """
    if re.fullmatch(r"\d{1,2}", source):
        camera = cv2.VideoCapture(int(source))
    elif ADDRESS.fullmatch(source) or (Path(source).is_absolute() and Path(source).is_file()):
        # Without a limit, OpenCV waits half a minute for an address at which nobody answers.
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ANSWERS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ANSWERS]
        camera = cv2.VideoCapture(source, cv2.CAP_ANY, limits)
    else:
        raise UserError(
            f"{hidden(source)}: not a camera (give its number, rtsp://..., or the absolute path of a video file)"
        )
    if not camera.isOpened():
        camera.release()
        raise UserError(f"{hidden(source)}: the camera does not respond (is it connected, and not in use?)")
    return camera


def hidden(source: str) -> str:
    """An address without the password in it."""
    return re.sub(r"//[^/@\s]*@", "//…@", source[:200])


def frames(source: str, every: float, folder: Path, ended: threading.Event) -> Iterator[Path]:
    """Frames of a camera as files, one per interval; for a video file by its own clock.

    Files are PNG, so that feedback refers to the same pixels that were judged.

    Raises:
        UserError: the camera cannot be opened, or delivers no more frames; the end of a video file is not an error.
    """
    camera = opened(source)  # before the first frame is requested
    return _frames(camera, source, every, folder, ended.is_set, ended.wait)


def _frames(
    camera: cv2.VideoCapture,
    source: str,
    every: float,
    folder: Path,
    ended: Callable[[], bool],
    wait: Callable[[float], bool],
) -> Iterator[Path]:
    is_file = not re.fullmatch(r"\d{1,2}", source) and not ADDRESS.fullmatch(source)
    step = max(1, round(every * (camera.get(cv2.CAP_PROP_FPS) or 25))) if is_file else 1
    count, missing, due = 0, 0, time.monotonic()
    try:
        while not ended():
            grabbed = camera.grab()
            if not grabbed:
                if is_file:
                    return
                missing += 1
                if missing >= BROKEN:
                    raise UserError(f"{hidden(source)}: the camera delivers no more frames (is it still connected?)")
                wait(0.2)
                continue
            missing = 0
            count += 1
            # A live camera is read continuously, so that the frame taken is the newest.
            if (count - 1) % step if is_file else time.monotonic() < due:
                continue
            due = time.monotonic() + every
            fine, frame = camera.retrieve()
            if fine:
                yield kept(folder, cv2.imencode(".png", frame)[1].tobytes(), f"frame-{count:07}", ".png")
    finally:
        camera.release()


def kept(folder: Path, content: bytes, name: str, suffix: str) -> Path:
    """Write a photograph into a folder that keeps the newest KEPT."""
    stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() // 1000 % 1_000_000:06}"
    path = folder / f"{stamp}-{name}{suffix}"
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    own = sorted(one for one in folder.iterdir() if one.is_file())
    for old in own[: max(0, len(own) - KEPT)]:
        old.unlink(missing_ok=True)
    return path


def copy_for_feedback(project: Project, path: Path, digest: str) -> Path:
    """A permanent copy of a photograph for feedback."""
    target = project.folder / "feedback" / f"{digest[:16]}{path.suffix.lower()}"
    if not target.is_file():
        target.parent.mkdir(exist_ok=True)
        with atomic(target) as temporary:
            shutil.copyfile(path, temporary)
    return target
