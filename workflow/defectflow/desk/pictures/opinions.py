"""What each person says of a photograph, and what follows from it: a label where they agree, none until it is settled.

An opinion has a name. What is said without one, by a table or by folders is nobody's: who has a name replaces it.
All functions work in a transaction of the caller.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

TABLES = """
CREATE TABLE IF NOT EXISTS opinions (
    name TEXT NOT NULL, who TEXT NOT NULL, label TEXT NOT NULL, kind TEXT NOT NULL, time REAL NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, who)
);
CREATE TABLE IF NOT EXISTS label_steps (
    step INTEGER NOT NULL, who TEXT NOT NULL, name TEXT NOT NULL, label TEXT NOT NULL, kind TEXT NOT NULL,
    before TEXT NOT NULL, time REAL NOT NULL
);
"""
NOBODY = ""


class Label(NamedTuple):
    """What a person says of a photograph: label good, bad, unsure or "" (not looked at), and the kind of defect."""

    label: str
    kind: str


NONE = Label("", "")


class Opinion(NamedTuple):
    """What somebody says of a photograph; ``settled``: it does not count any more, since somebody has settled it."""

    who: str
    label: str
    kind: str
    time: float
    settled: int


def of(database: sqlite3.Connection, name: str) -> list[Opinion]:
    """All opinions on a photograph, the oldest first."""
    rows = database.execute(
        "SELECT who, label, kind, time, settled FROM opinions WHERE name = ? ORDER BY time", (name,)
    ).fetchall()
    return [Opinion(*row) for row in rows]


def agreed(opinions: Iterable[Opinion]) -> tuple[Label, bool]:
    """What opinions that count amount to, and whether they differ.

    Labels that differ give none, kinds that differ no kind. Who names no kind does not contradict who names one.
    """
    opinions = list(opinions)
    labels = {one.label for one in opinions}
    kinds = {one.kind for one in opinions if one.kind}
    if len(labels) > 1:
        return NONE, True
    return Label(next(iter(labels), ""), next(iter(kinds)) if len(kinds) == 1 else ""), len(kinds) > 1


def disputed(database: sqlite3.Connection) -> dict[str, list[Opinion]]:
    """{name: opinions that count} of photographs whose people differ."""
    return {name: said for name, said in counting(database).items() if agreed(said)[1]}


def counting(database: sqlite3.Connection) -> dict[str, list[Opinion]]:
    """{name: opinions that count, the oldest first}."""
    found: dict[str, list[Opinion]] = {}
    for name, *row in database.execute(
        "SELECT name, who, label, kind, time, settled FROM opinions WHERE NOT settled ORDER BY time"
    ):
        found.setdefault(name, []).append(Opinion(*row))
    return found


def next_step(database: sqlite3.Connection) -> int:
    """The number of a new step."""
    (step,) = database.execute("SELECT coalesce(max(step), 0) + 1 FROM label_steps").fetchone()
    return int(step)


def say(
    database: sqlite3.Connection, step: int, name: str, who: str, old: Label, new: Callable[[Label], Label]
) -> Label | None:
    """Note what somebody says of a photograph.

    Args:
        database: in a transaction.
        step: that this belongs to, for `take_back`.
        name: of the photograph.
        who: NOBODY without a name.
        old: the label that it has.
        new: from what this person, or else nobody in particular, has said so far to what is said now.

    Returns:
        The label that it has now, None: nothing has changed.
    """
    said = of(database, name)
    count = [one for one in said if not one.settled]
    own = next((one for one in count if one.who == who), None)
    before = Label(own.label, own.kind) if own else NONE if any(one.who for one in count) else old
    after = new(before)
    if after == before and (own or before == NONE or not who):
        return None
    touched = [one for one in said if one.who in (who, NOBODY)]
    _remember(database, step, name, who, old, touched)
    database.execute("DELETE FROM opinions WHERE name = ? AND who IN (?, ?)", (name, who, NOBODY))
    if after != NONE:
        _write(database, name, Opinion(who, *after, time.time(), 0))
    return agreed(one for one in of(database, name) if not one.settled)[0]


def settle(database: sqlite3.Connection, step: int, name: str, who: str, old: Label, label: Label) -> None:
    """Let one opinion count alone; the others stay on record. Arguments as of `say`."""
    _remember(database, step, name, who, old, of(database, name))
    retire(database, name)
    _write(database, name, Opinion(who, *label, time.time(), 0))


def retire(database: sqlite3.Connection, name: str) -> None:
    """Let no opinion on a photograph count any more: labels.csv was edited, and says what holds."""
    database.execute("UPDATE opinions SET settled = 1 WHERE name = ?", (name,))


def take_back(database: sqlite3.Connection, who: str) -> dict[str, Label]:
    """Undo the latest step of a person; what others have said since stays.

    Returns {name: the label that it has now}.
    """
    (step,) = database.execute("SELECT max(step) FROM label_steps WHERE who = ?", (who,)).fetchone()
    found = {}
    for row in database.execute("SELECT * FROM label_steps WHERE step = ?", (step,)).fetchall():
        name = row["name"]
        database.execute("DELETE FROM opinions WHERE name = ? AND who = ?", (name, who))
        now = {one.who: one for one in of(database, name)}
        for one in (Opinion(*values) for values in json.loads(row["before"])):
            if one.who == who or one.who not in now or now[one.who].time <= row["time"]:
                _write(database, name, one)
        count = [one for one in of(database, name) if not one.settled]
        found[name] = agreed(count)[0] if count else Label(row["label"], row["kind"])
    database.execute("DELETE FROM label_steps WHERE step = ?", (step,))
    return found


def _write(database: sqlite3.Connection, name: str, said: Opinion) -> None:
    database.execute("INSERT OR REPLACE INTO opinions VALUES (?, ?, ?, ?, ?, ?)", (name, *said))


def _remember(
    database: sqlite3.Connection, step: int, name: str, who: str, old: Label, before: Iterable[Opinion]
) -> None:
    database.execute(
        "INSERT INTO label_steps VALUES (?, ?, ?, ?, ?, ?, ?)",
        (step, who, name, *old, json.dumps(list(before)), time.time()),
    )
