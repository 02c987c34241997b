"""Strict reader of labels.csv: every line with content becomes one row, or the run stops and names the line.

Standard library only: the Snakefile reads labels.csv when it starts.
"""

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from defectflow.core.files import UserError

LABEL_COLUMNS = ("filename", "label", "defect_type", "group", "mask", "split")
DELIMITERS = ",;\t"
GOOD = ("0", "good", "goods", "ok", "io", "pass", "passed", "normal", "defectfree")
BAD = ("1", "bad", "nok", "notok", "ng", "nio", "fail", "failed", "anomaly", "anomalous", "abnormal")
LABELS = {"": ""} | dict.fromkeys(GOOD, "0") | dict.fromkeys((*BAD, "defect", "defective"), "1")
ALLOWED = "0, good, ok, pass or normal; 1, bad, nok, ng, fail, defect or anomaly; empty = unknown"
OTHER_NAMES = {
    "filename": ("file", "file_name", "image", "image_name", "image_path", "img", "name", "path", "photo", "picture"),
    "label": ("class", "quality", "result", "status", "target", "verdict"),
    "defect_type": ("anomaly_type", "defect", "kind", "type"),
    "group": ("batch", "burst", "lot", "part", "series", "session"),
    "split": ("fold", "set", "subset"),
}


def read_labels(path: str | Path) -> list[dict[str, str]]:
    """Read labels.csv, separated by comma, semicolon, tab or a first line `sep=`; UTF-8, or UTF-16 with a byte order
    mark.

    Columns may have any order and letter case; entirely empty columns are ignored.

    Returns:
        One dict for each line with content after the header: all LABEL_COLUMNS, without surrounding spaces, label
        "0" (good), "1" (bad) or "" (unknown), split "train", "test" or ""; and "line", its number in the file.

    Raises:
        UserError: the file is absent or not text; a column is unknown, missing or a duplicate; a line can be split
            into cells in more than one way; a label or split is not allowed.
    """
    header, *lines = _lines(path)
    delimiter, header = _delimiter(path, header, lines)
    columns = _columns(path, split_line(path, *header, delimiter))
    rows = [(number, split_line(path, number, line, delimiter)) for number, line in lines]
    rows = [(number, cells) for number, cells in rows if any(cells)]
    even = len({len(cells) for _, cells in rows}) == 1
    return [_row(f"{path}, line {number}", number, columns, cells, even) for number, cells in rows]


def second_row(first: dict[str, str], second: Mapping[str, str], filled: dict[str, str]) -> str:
    """Describe that an image has two rows, and remove a contradictory label from ``filled``, the known cells.

    Args:
        first: its first row; it takes over the label of the second if it has none.
        second: the other one.
        filled: its non-empty cells; label, type and mask are cleared if the labels contradict each other.

    Returns:
        The reason, ready for a message.
    """
    text = f"this image has two rows (lines {first['line']} and {second['line']}"
    if first["label"] and second["label"] and first["label"] != second["label"]:
        filled |= dict.fromkeys(("label", "defect_type", "mask"), "")
        words = {"0": "good", "1": "bad"}
        return f"{text}: {words[first['label']]} and {words[second['label']]}; delete the wrong one)"
    if second["label"] and not first["label"]:
        filled["label"] = first["label"] = second["label"]
    return f"{text}: delete one)"


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not blank; at least one."""
    try:
        content = Path(path).read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (correct `labels` in the config, or leave it out)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error}; save it as CSV UTF-8)") from None
    if "\0" in text:
        raise UserError(f"{path}: not readable as text (it has bytes of value 0; save it as CSV UTF-8)")
    # Not splitlines(), which also splits at form feeds and Unicode line separators.
    lines = [(number, line) for number, line in enumerate(re.split("\r\n|\n|\r", text), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: the file is empty (the first line names the columns: {', '.join(LABEL_COLUMNS)})")
    return lines


def _delimiter(path: str | Path, header: tuple[int, str], lines: list[tuple[int, str]]) -> tuple[str, tuple[int, str]]:
    """The delimiter, and the line that names the columns (after `sep=` the next one, taken from ``lines``)."""
    if told := re.fullmatch(r'\s*"?sep=(.?)"?\1*\s*', header[1], re.IGNORECASE):
        delimiter = told[1] or "\t"  # a tab at the end of a line is lost in some editors
        if delimiter not in f"{DELIMITERS}|":
            raise UserError(f"{path}, line {header[0]}: cells separated by {delimiter!r} are not read (use a comma)")
        if not lines:
            raise UserError(f"{path}: no line names the columns ({', '.join(LABEL_COLUMNS)})")
        return delimiter, lines.pop(0)

    def known(delimiter: str) -> int:
        return sum(_column(cell) in LABEL_COLUMNS for cell in header[1].replace('"', "").split(delimiter))

    return max(DELIMITERS, key=known), header


def split_line(path: str | Path, number: int, line: str, delimiter: str) -> list[str]:
    """Cells of a line, without spaces around them.

    Raises:
        UserError: a double quote leaves it open where a cell ends.
    """
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
    except csv.Error:
        cells = []
    # A quote inside a cell that does not begin with one, as in 3" scratch, is kept if it is the only such cell:
    # a second quote might close it, and a delimiter between them would not separate cells.
    bare, quoted = re.subn(rf'(^|{re.escape(delimiter)}) *"(?:[^"]|"")*"(?={re.escape(delimiter)}|$)', r"\1", line)
    if not cells or sum('"' in cell for cell in bare.split(delimiter)) > (not quoted):
        raise UserError(
            f"{path}, line {number}: a double quote is not closed in this line, or ends where no cell ends (delete "
            'it, or write the whole cell in double quotes and those in it twice, "3"" scratch"; no line breaks in it)'
        )
    return [cell.strip() for cell in cells]


def _columns(path: str | Path, names: Sequence[str]) -> list[str]:
    """Names of the columns as in LABEL_COLUMNS, "" for one without a name."""
    columns, allowed = [_column(name) for name in names], ", ".join(LABEL_COLUMNS)
    if not set(columns) & set(LABEL_COLUMNS) and not any(next(_near(column), "") for column in columns):
        raise UserError(f"{path}: the first line names no column (write `filename,label` there; allowed: {allowed})")
    for name, column in zip(names, columns, strict=True):
        if column and column not in LABEL_COLUMNS:
            near = next(_near(column), "")
            raise UserError(f"{path}: unknown column {name!r} ({f'{near}? ' if near else ''}allowed: {allowed})")
    for column, count in Counter(filter(None, columns)).items():
        if count > 1:
            raise UserError(f"{path}: {count} columns are called {column!r} (delete or rename all but one)")
    for column in LABEL_COLUMNS[:2]:
        if column not in columns:
            raise UserError(f"{path}: column {column!r} is missing (the first line names the columns: {allowed})")
    return columns


def _column(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _near(column: str) -> Iterator[str]:
    yield from difflib.get_close_matches(column, LABEL_COLUMNS, 1)
    yield from (ours for ours, others in OTHER_NAMES.items() if column in others)


def _row(where: str, number: int, columns: Sequence[str], cells: Sequence[str], even: bool) -> dict[str, str]:
    """The row of a line; ``even``: all lines have as many cells."""
    if any(cells[len(columns) :]) or (len(cells) > len(columns) and not even):
        # One extra empty cell may also come from a comma in an unquoted text.
        raise UserError(f"{where}: more cells than columns (put names with a comma in double quotes)")
    row = dict.fromkeys(LABEL_COLUMNS, "") | {"line": str(number)}
    for column, cell in zip(columns, cells, strict=False):
        if not column and cell:
            raise UserError(f"{where}: {cell!r} is in a column without a name (name the column, or delete it)")
        if column:
            row[column] = cell
    if not row["filename"]:
        raise UserError(f"{where}: no filename")
    word = row["label"].lower()
    letters = re.sub(r"[\s_.-]", "", word)  # n.i.O., not ok
    word = letters if letters.isalpha() else word
    # Spreadsheets and pandas write 0 and 1 as 0.0 and 1.0 (0,0 and 1,0) when other cells of the column are empty.
    word = re.sub(r"^([01])[.,]0+$", r"\1", word)
    if word in ("true", "false", "yes", "no"):
        raise UserError(f"{where}: label {row['label']!r} could mean good or bad (write 0 or good, 1 or bad)")
    if word not in LABELS:
        raise UserError(f"{where}: label {row['label']!r} is not allowed ({ALLOWED})")
    if row["split"].lower() not in ("", "train", "test"):
        raise UserError(f"{where}: split {row['split']!r} is not allowed (train, test or empty)")
    return row | {"label": LABELS[word], "split": row["split"].lower()}
