"""A worker process: it loads every bundle once, then judges one photograph after another.

It ends with the service, when the pipe is closed.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectflow.core.files import UserError

if TYPE_CHECKING:
    from defectflow.inspection.inspector import Inspector

DRAWN = "drawn"
BEGUN = "begun"


def work(
    pipe: Connection, bundles: Mapping[str, Path], runtime: str, precision: str, threads: int, most_pixels: int
) -> None:
    """The loop of a worker.

    It sends ["ready", {name of a bundle: its runtime}] or ["failed", message], and then for each [name, path, whether
    to draw] that it receives BEGUN and the result of `judge`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a terminal or unit
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with suppress(OSError):  # Linux: if memory runs out, a worker is killed, not the service
        Path("/proc/self/oom_score_adj").write_text("500")
    import cv2

    from defectflow.core.kept_memory import INSPECTION, keep_memory
    from defectflow.inspection.inspector import Inspector

    cv2.setNumThreads(threads)
    keep_memory(INSPECTION)
    try:
        inspectors = {
            name: Inspector.load(folder, runtime, precision=precision, threads=threads)
            for name, folder in bundles.items()
        }
    except (UserError, OSError, MemoryError) as error:
        tell(pipe, ["failed", str(error) or type(error).__name__])
        return
    tell(pipe, ["ready", {name: inspector.runtime for name, inspector in inspectors.items()}])
    while True:
        try:
            name, path, draw = hear(pipe)
        except (EOFError, OSError):
            return
        tell(pipe, BEGUN)
        tell(pipe, judge(inspectors[name], Path(path), draw, most_pixels))


def judge(inspector: Inspector, path: Path, draw: bool, most_pixels: int) -> dict[str, Any]:
    """Judge one file with the functions of `defectflow inspect`; any error becomes its reason.

    Returns:
        The fields of `answers.Result` that depend on the photograph. An overlay is written to the folder DRAWN next to
        it.
    """
    from defectflow.decision.outcomes import is_flagged
    from defectflow.inspection.judge_files import judge_one, problem_of
    from defectflow.inspection.outputs import KIND_COLUMNS, Pictures, json_of

    start = time.perf_counter()
    try:
        settings = inspector.settings
        pictures = Pictures(path.parent / DRAWN, settings["scale"], settings["look"], False) if draw else None
        _, verdict, note = judge_one(inspector, pictures, path, most_pixels)
    except Exception as error:  # e.g. no disk space for the overlay
        verdict, note = None, problem_of(path, error)
    milliseconds = 1000 * (time.perf_counter() - start)
    if verdict is None:
        reason = note.replace(f"{path}: ", "").replace(str(path), path.name).replace(f"{path.parent}/", "")
        return {"cause": "unreadable", "reason": reason, "ms": milliseconds}
    fields = json_of(path, verdict, note)
    # A person decides in the review band, and if the mask of the part is doubtful.
    person = bool(verdict.review) or is_flagged(verdict.present, verdict.doubtful)
    return {
        "verdict": "review" if person else fields["verdict"],
        "bad": verdict.bad,
        **{key: fields[key] for key in ("score", "raw_score", "threshold", "review", "mask_present", "mask_doubtful")},
        "reason": fields["reason"],
        "size": fields["size"],
        "regions": fields["regions"],
        **{key: fields[key] for key in KIND_COLUMNS if key in fields},
        "ms": milliseconds,
    }


def tell(pipe: Connection, message: Any) -> None:
    """Send a message as JSON: unlike a pickle, it cannot run code in the receiving process."""
    pipe.send_bytes(json.dumps(message).encode())


def hear(pipe: Connection) -> Any:
    """Wait for a message."""
    return json.loads(pipe.recv_bytes())
