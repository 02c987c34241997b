"""The table of what people said about verdicts: feedback.csv, read and checked before anything is computed."""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

from defectflow.core.files import UserError, nearest_path, sha256_of

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


def read_feedback(table: str | Path) -> list[Feedback]:
    """Rows of a CSV with the columns COLUMNS, of which ``filename`` and ``said`` (good or bad) are needed.

    A filename is a path from the folder of the table, or from where the command runs.

    Raises:
        UserError: the table is absent, empty or malformed, names a file that does not exist, or says two things.
    """
    table = Path(table)
    rows = [_row(table, number, row) for number, row in _cells(table)]
    if not rows:
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


def _cells(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{table}: no such file{nearest_path(table)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a table ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    lines = text.splitlines()
    if not lines:
        raise UserError(f"{table}: the file is empty (its first line names the columns: {', '.join(COLUMNS)})")
    separator = max(",;\t", key=lines[0].count)
    reader = csv.reader(lines, delimiter=separator)
    names = [name.strip().lower() for name in next(reader)]
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
    for row in reader:
        if any(cell.strip() for cell in row):
            if len(row) > len(names):
                raise UserError(f"{table}, line {reader.line_num}: more cells than columns")
            cells = dict.fromkeys(COLUMNS, "") | dict(zip(names, (cell.strip() for cell in row), strict=False))
            rows.append((reader.line_num, cells))
    return rows


def _row(table: Path, number: int, cells: dict[str, str]) -> Feedback:
    where = f"{table}, line {number}"
    said = cells["said"].lower()
    if said not in ("good", "bad"):
        raise UserError(f"{where}: said is {cells['said']!r} (write good for a false alarm, bad for a missed defect)")
    path = _file(where, table, cells["filename"], "filename")
    numbers = [cells[name] for name in BOX]
    box, mask = (_box(where, numbers) if any(numbers) else None), None
    if cells["mask"]:
        mask = _file(where, table, cells["mask"], "mask")
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


def _file(where: str, table: Path, name: str, column: str) -> Path:
    if not name:
        raise UserError(f"{where}: no {column}")
    places = [table.parent / name, Path(name)]
    found = [place for place in places if place.is_file()]
    if not found:
        raise UserError(f"{where}: {name}: no such file{nearest_path(places[0])}")
    if len(found) == 2 and not found[0].samefile(found[1]):
        raise UserError(f"{where}: {name} is {found[0]} and {found[1].resolve()} (write the whole path)")
    return found[0]
