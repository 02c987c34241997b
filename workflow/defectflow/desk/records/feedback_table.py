"""Feedback on verdicts: FOLDER/feedback.csv, which `defectflow learn --feedback` reads."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError, atomic, sha256_of
from defectflow.desk.project import Project
from defectflow.desk.records.watching import copy_for_feedback
from defectflow.images.read_write import read_photograph
from defectflow.learning.feedback import BOX, COLUMNS, read_feedback

Box = tuple[float, float, float, float]


def table_of(project: Project) -> Path:
    """The table."""
    return project.folder / "feedback.csv"


def rows_of(project: Project) -> list[dict[str, str]]:
    """Its rows; none if there is no table.

    Raises:
        UserError: it is damaged.
    """
    path = table_of(project)
    if not path.is_file():
        return []
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            found = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV table ({error})") from None
    for row in found:
        if set(row) - set(COLUMNS):
            raise UserError(f"{path}: has columns other than {', '.join(COLUMNS)} (correct it, or move it away)")
    return found


def say(project: Project, photograph: Path, said: str, who: str = "", box: Box | None = None) -> int:
    """Write feedback on a photograph, replacing earlier feedback on it; returns the number of rows.

    Args:
        photograph: a file; the table names a copy of it.
        said: "good", "bad", or "" to remove the feedback.
        box: where it is damaged, (x0, y0, x1, y1) in pixels of the upright photograph.

    Raises:
        UserError: the photograph is missing, or the box does not fit.
    """
    if said not in ("good", "bad", ""):
        raise UserError(f"said is {said[:40]!r} (good, bad, or nothing)")
    if not photograph.is_file():
        raise UserError(f"{photograph.name}: the photograph is missing (it was moved, or is too old)")
    if box and said != "bad":
        raise UserError("a box is only for bad photographs")
    if box:
        height, width = read_photograph(photograph).shape[:2]
        if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise UserError(f"the box is empty or outside the photograph ({width} x {height} pixels)")
    digest = sha256_of(photograph)
    with project.lock:
        target = project.folder / "feedback" / f"{digest[:16]}{photograph.suffix.lower()}"
        name = target.relative_to(project.folder).as_posix()
        rows = [row for row in rows_of(project) if row.get("filename") != name]
        if said:
            copy_for_feedback(project, photograph, digest)
            row: dict[str, Any] = {"filename": name, "said": said, "who": " ".join(who.split())[:100]}
            row |= {"time": time.strftime("%Y-%m-%d %H:%M:%S")}
            rows.append(row | dict(zip(BOX, (f"{value:g}" for value in box or ()), strict=False)))
        elif target.is_file():
            target.unlink()
        if rows:
            with atomic(table_of(project)) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        else:
            table_of(project).unlink(missing_ok=True)
    return len(rows)


def said_of(project: Project) -> dict[str, str]:
    """The feedback, by the first 16 digits of the sha256 of the photograph."""
    return {Path(row["filename"]).stem: row["said"] for row in rows_of(project)}


def checked(project: Project) -> int:
    """Number of rows, after checking them for `defectflow learn`.

    Raises:
        UserError: see `read_feedback`.
    """
    return len(read_feedback(table_of(project)))
