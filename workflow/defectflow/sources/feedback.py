"""The table of what people said about verdicts: feedback.csv, read and checked before anything is computed.

Standard library only: the Snakefile reads it when it starts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectflow.core.files import UserError, nearest_path, sha256_of
from defectflow.sources.labels_csv import split_line

COLUMNS = ("filename", "said", "x0", "y0", "x1", "y1", "mask", "time", "who")
NEEDED = ("filename", "said")
BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Feedback:
    """What a person said about one photograph.

    Attributes:
        line: in the table.
        path: the photograph.
        sha256: of its content.
        bad: whether the person said that the part is bad.
        box: where it is damaged, (x0, y0, x1, y1) in pixels of the upright photograph; None where that was not said.
        mask: file of a mask of the damage (white), or None.
    """

    line: int
    path: Path
    sha256: str
    bad: bool
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None


def read_feedback(table: str | Path, folders: Sequence[str | Path] = (), least: int = 1) -> list[Feedback]:
    """Rows of a CSV with the columns COLUMNS, of which ``filename`` and ``said`` (good or bad) are needed.

    A filename is a path from the folder of the table, from where the command runs, or from one of ``folders``.
    ``least``: rows that it has to have, 1 or 0.

    Raises:
        UserError: the table is absent, empty or malformed, names a file that does not exist, or says two things.
    """
    table = Path(table)
    places = [table.parent, Path(), *map(Path, folders)]
    rows = [_row(table, number, row, places) for number, row in _cells(table)]
    if len(rows) < least:
        raise UserError(f"{table}: no rows (name a photograph, and said: good or bad; or take all back with --forget)")
    seen: dict[str, Feedback] = {}
    for row in rows:
        other = seen.setdefault(row.sha256, row)
        if other is row:
            continue
        both = f"{table}: lines {other.line} and {row.line} are about the same photograph, {row.path.name}"
        if other.bad != row.bad:
            raise UserError(f"{both}, and contradict each other (delete one)")
        if not row.bad or (row.box, row.mask) == (other.box, other.mask):
            raise UserError(f"{both}, and say the same (delete one)")
    return rows


def by_photograph(
    rows: Iterable[Feedback], folder: str, names: Iterable[str]
) -> tuple[dict[str, Feedback], list[Feedback]]:
    """Rows by the photograph of a data set that each is about, and those that are about none.

    Of several rows about one photograph, which `read_feedback` lets mark several places, one with a mask is taken.

    Args:
        rows: as `read_feedback` gives them.
        folder: of the photographs.
        names: of the photographs, relative to it.
    """
    said = {
        os.path.relpath(os.path.realpath(row.path), os.path.realpath(folder)).replace(os.sep, "/"): row
        for row in sorted(rows, key=lambda row: row.mask is not None)
    }
    said |= {os.path.relpath(row.path, folder).replace(os.sep, "/"): row for row in said.values()}
    found = {name: said[name] for name in names if name in said}
    told = {row.line for row in found.values()}
    return found, [row for row in dict.fromkeys(said.values()) if row.line not in told]


def _cells(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{table}: no such file{nearest_path(table)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a table ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{table}: the file is empty (its first line names the columns: {', '.join(COLUMNS)})")
    separator = max(",;\t", key=lines[0][1].count)
    (_, first), *others = [(number, split_line(table, number, line, separator)) for number, line in lines]
    names = [name.lower() for name in first]
    for name in names:
        if name not in COLUMNS:
            near = "".join(f"{one}? " for one in difflib.get_close_matches(name, COLUMNS, 1))
            raise UserError(f"{table}: unknown column {name!r} ({near}allowed: {', '.join(COLUMNS)})")
        if names.count(name) > 1:
            raise UserError(f"{table}: two columns are called {name!r} (delete one)")
    for name in NEEDED:
        if name not in names:
            raise UserError(f"{table}: column {name!r} is missing (allowed: {', '.join(COLUMNS)})")
    rows = []
    for number, row in others:
        if any(row):
            if len(row) > len(names):
                raise UserError(f"{table}, line {number}: more cells than columns")
            rows.append((number, dict.fromkeys(COLUMNS, "") | dict(zip(names, row, strict=False))))
    return rows


def _row(table: Path, number: int, cells: dict[str, str], places: Sequence[Path]) -> Feedback:
    where = f"{table}, line {number}"
    said = cells["said"].lower()
    if said not in ("good", "bad"):
        raise UserError(f"{where}: said is {cells['said']!r} (write good for a false alarm, bad for a missed defect)")
    path = _file(where, places, cells["filename"], "filename")
    numbers = [cells[name] for name in BOX]
    box, mask = (_box(where, numbers) if any(numbers) else None), None
    if cells["mask"]:
        mask = _file(where, places, cells["mask"], "mask")
    if said == "good" and (box or mask):
        raise UserError(f"{where}: a box or mask is for what is bad (said is good: leave it empty)")
    if box and mask:
        raise UserError(f"{where}: a box and a mask (leave one of them empty)")
    return Feedback(number, path, sha256_of(path), said == "bad", box, mask)


def _box(where: str, numbers: list[str]) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = map(float, numbers)
    except ValueError:
        raise UserError(f"{where}: a box needs the numbers x0, y0, x1 and y1, in pixels") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise UserError(f"{where}: the box is empty or outside (0 <= x0 < x1 and 0 <= y0 < y1)")
    return x0, y0, x1, y1


def _file(where: str, places: Sequence[Path], name: str, column: str) -> Path:
    if not name:
        raise UserError(f"{where}: no {column}")
    found = [place / name for place in places if (place / name).is_file()]
    if not found:
        raise UserError(f"{where}: {name}: no such file{nearest_path(places[0] / name)}")
    if other := next((one for one in found if not one.samefile(found[0])), None):
        raise UserError(f"{where}: {name} is {found[0]} and {other.resolve()} (write the whole path)")
    return found[0]
