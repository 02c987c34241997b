"""Labels: kept in SQLite, and written to labels.csv at each change.

A label is on the disk before the page shows it. If labels.csv was edited elsewhere, it is read again and takes
precedence.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from defectflow.core.files import UserError, atomic
from defectflow.desk.pictures import opinions
from defectflow.desk.pictures.opinions import NOBODY, NONE, Label
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.desk.project import Project
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.labels_csv import LABEL_COLUMNS, read_labels, second_row

NAMES = {"0": "good", "1": "bad", "": ""}
CODES = {"good": "0", "bad": "1", "unsure": "", "": ""}
OTHERS = ("group", "mask", "split")  # columns that are kept as read
DRAWN = "defects/"  # masks drawn at the desk begin so in labels.csv
LONGEST_KIND, LONGEST_NAME = 60, 100
DIRTY = "labels.csv lacks a change"
TABLES = """
CREATE TABLE IF NOT EXISTS labels (
    name TEXT PRIMARY KEY, label TEXT NOT NULL DEFAULT '', kind TEXT NOT NULL DEFAULT '', time REAL NOT NULL,
    "group" TEXT NOT NULL DEFAULT '', mask TEXT NOT NULL DEFAULT '', split TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS label_file (one INTEGER PRIMARY KEY CHECK (one = 1), digest TEXT NOT NULL);
"""


class LabelStore:
    """The labels of a folder.

    Args:
        project: the folder.
        photographs: its photographs.
    """

    def __init__(self, project: Project, photographs: PhotographIndex) -> None:
        self.project, self.photographs = project, photographs
        with project.lock, project.database() as database:
            for statement in (TABLES + opinions.TABLES).split(";"):
                database.execute(statement)
        self._seen: set[str] = set()  # photographs whose folders have been checked

    def all(self) -> dict[str, Label]:
        """{name: label} of photographs with a label."""
        self.sync()
        if fresh := self.photographs.all().keys() - self._seen:
            self._seen |= fresh
            with self.project.database() as database:
                known = {row["name"] for row in database.execute("SELECT name FROM labels")}
            if told := self.photographs.by_folder(sorted(fresh - known)):
                self.add(told, over=False)
        with self.project.database() as database:
            rows = database.execute("SELECT name, label, kind FROM labels WHERE label != '' OR kind != ''")
            return {row["name"]: Label(row["label"], row["kind"]) for row in rows}

    def table(self, names: Iterable[str] | None = None) -> list[list[Any]]:
        """Photographs of the folder, or these alone, as [name, stamp, label, kind, marked, differ, said] each.

        marked: whether a defect is marked; differ: whether its people do; said: [who, label, kind] of those with a
        name, or of all where they differ.
        """
        labels = self.all()
        with self.project.database() as database:
            marked = {row["name"] for row in database.execute("SELECT name FROM labels WHERE mask != ''")}
            said = opinions.counting(database)
        rows = []
        known = self.photographs.all()
        for one in known.values() if names is None else (known[name] for name in names if name in known):
            own = said.get(one.name, [])
            differ = opinions.agreed(own)[1]
            told = [[each.who, each.label, each.kind] for each in own if each.who or differ]
            rows.append([one.name, one.stamp, *labels.get(one.name, NONE), one.name in marked, differ, told])
        return rows

    def mask(self, name: str) -> str:
        """What labels.csv names as the mask of a photograph, "" for none.

        Raises:
            UserError: there is no such photograph.
        """
        self._need([name])
        self.sync()
        with self.project.database() as database:
            row = database.execute("SELECT mask FROM labels WHERE name = ?", (name,)).fetchone()
        return str(row["mask"]) if row else ""

    def mark(self, name: str, mask: str, who: str = NOBODY) -> None:
        """Name the mask of a photograph, which makes it bad; with "" it has none any more, and its label stays."""
        if mask:
            self.put([name], "bad", who=who)
        with self.project.lock:
            with self.project.database() as database:
                self._others(database, name, {"mask": mask})
                self._mark(database)
            self._export()

    def _need(self, names: Iterable[str]) -> None:
        known = self.photographs.all()
        if strange := [name for name in names if name not in known]:
            raise UserError(f"{strange[0][:100]}: no such photograph (load the page again)")

    def put(self, names: Iterable[str], label: str | None = None, kind: str | None = None, who: str = NOBODY) -> int:
        """Set the label, the kind, or both, of photographs as somebody says; one step for `undo`.

        Returns how many have changed.

        Where a person of another name says otherwise, the photograph has no label until that is settled.

        Raises:
            UserError: one is not a photograph of the folder, or label or kind is invalid.
        """
        names, who = self._checked(names, label, kind, who)

        def new(old: Label) -> Label:
            said = old.label if label is None else label
            # Only bad photographs have a kind of defect; naming one makes the photograph bad.
            if kind is not None:
                return Label("bad" if kind.strip() else said, kind.strip())
            return Label(said, old.kind if said == "bad" else "")

        self.sync()
        with self.project.lock:
            with self.project.database() as database:
                changed = self._change(database, dict.fromkeys(names, new), who)
                self._mark(database)
            self._export()
        return changed

    def settle(self, names: Iterable[str], label: str, kind: str, who: str) -> None:
        """Say what holds of photographs whose people differ; one step for `undo`.

        Raises:
            UserError: see `put`; or nobody says who settles it.
        """
        names, who = self._checked(names, label, kind, who)
        if not who:
            raise UserError("say who settles it (your name, at the top of the page)")
        told = Label(label, kind.strip() if label == "bad" else "")
        self.sync()
        with self.project.lock:
            with self.project.database() as database:
                step, old = opinions.next_step(database), self._labels(database)
                for name in names:
                    opinions.settle(database, step, name, who, old.get(name, NONE), told)
                    self._write(database, name, told)
                self._mark(database)
            self._export()

    def _checked(self, names: Iterable[str], label: str | None, kind: str | None, who: str) -> tuple[list[str], str]:
        if label is not None and label not in CODES:
            raise UserError(f"{label[:20]!r}: not a label (good, bad, unsure or empty)")
        if kind is not None and (len(kind) > LONGEST_KIND or not kind.isprintable() or '"' in kind):
            raise UserError(f"a kind of defect has at most {LONGEST_KIND} printable characters, and no quotes")
        if len(who) > LONGEST_NAME or not who.isprintable():
            raise UserError(f"the name of a person has at most {LONGEST_NAME} printable characters")
        names = list(dict.fromkeys(names))
        self._need(names)
        return names, " ".join(who.split())

    def undo(self, who: str = NOBODY) -> list[str]:
        """Take back the latest step of a person; the names of its photographs, [] if there is none."""
        self.sync()
        with self.project.lock:
            with self.project.database() as database:
                found = opinions.take_back(database, " ".join(who.split()))
                for name, told in found.items():
                    self._write(database, name, told)
                self._mark(database)
            self._export()
        return list(found)

    def add(self, found: Mapping[str, Mapping[str, str]], over: bool) -> int:
        """Add labels from a table or from folders; one step for `undo`. Returns how many changed.

        Args:
            found: {name: {label ("0", "1" or ""), defect_type, group, mask, split}}, any of these.
            over: whether they replace existing labels.
        """
        with self.project.lock:
            with self.project.database() as database:
                old, said = self._labels(database), opinions.counting(database)
                news = {}
                for name, row in found.items():
                    told = Label(
                        NAMES[row.get("label", "")], row.get("defect_type", "") if row.get("label") == "1" else ""
                    )
                    if told.label and (over or not (old.get(name, NONE).label or name in said)):
                        news[name] = lambda _, told=told: told
                changed = self._change(database, news, NOBODY)
                for name, row in found.items():
                    self._others(database, name, row)
                self._mark(database)
            self._export()
        return changed

    def remove(self, names: Iterable[str]) -> None:
        """Forget removed photographs."""
        with self.project.lock:
            with self.project.database() as database:
                for name in names:
                    for table in ("labels", "opinions", "label_steps"):
                        database.execute(f"DELETE FROM {table} WHERE name = ?", (name,))
                self._mark(database)
            self._export()

    def sync(self) -> None:
        """Read labels.csv again if it was changed elsewhere; write it if it is behind the database.

        Raises:
            UserError: it cannot be read.
        """
        with self.project.lock:
            digest = self._digest()
            with self.project.database() as database:
                row = database.execute("SELECT digest FROM label_file").fetchone()
            written = row["digest"] if row is not None else ""
            if written == digest:
                return
            if digest and written != DIRTY:
                self._read()
            self._export()

    def _read(self) -> None:
        rows = read_labels(self.project.labels)
        names = self.photographs.all(anew=True)
        matcher = Matcher(names, (row["filename"] for row in rows), str(self.project.photographs))
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            name, reason = matcher.find(row["filename"])
            if name is None:
                raise UserError(f"{self.project.labels}, line {row['line']}: {row['filename']}: {reason}")
            if name in found:  # written anew, the file would have one of them only
                raise UserError(f"{self.project.labels}: {name}: {second_row(found[name], row, dict(row))}")
            found[name] = row
        with self.project.database() as database:
            old = self._labels(database)
            for name in [*found, *(name for name in old if name in names and name not in found)]:
                given = found.get(name, {})
                told = Label(NAMES[given.get("label", "")], given.get("defect_type", ""))
                if not told.label and name in old and old[name].label == "unsure":
                    told = Label("unsure", "")
                if told != old.get(name, NONE):
                    opinions.retire(database, name)
                self._write(database, name, told)
                self._others(database, name, dict.fromkeys(OTHERS, "") | given)

    def _export(self) -> None:
        """Write labels.csv: a row for each photograph with a label or another value."""
        known = self.photographs.all()
        with self.project.database() as database:
            rows = [dict(row) for row in database.execute("SELECT * FROM labels ORDER BY name") if row["name"] in known]
        for row in rows:  # what is called good after all has no defect; the drawing stays, should it be bad again
            if row["label"] != "bad" and row["mask"].startswith(DRAWN):
                row["mask"] = ""
        used = [column for column in OTHERS if any(row[column] for row in rows)]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        columns = [column for column in LABEL_COLUMNS if column not in OTHERS or column in used]
        writer.writerow(columns)
        for row in rows:
            if row["label"] in ("good", "bad") or any(row[column] for column in used):
                told = {"filename": row["name"], "label": CODES[row["label"]], "defect_type": row["kind"]}
                writer.writerow([told[c] if c in told else row[c] for c in columns])
        content = stream.getvalue().encode()
        if content != self._content():
            with atomic(self.project.labels) as temporary:
                temporary.write_bytes(content)
        with self.project.database() as database:
            digest = hashlib.sha256(content).hexdigest()
            database.execute("INSERT OR REPLACE INTO label_file VALUES (1, ?)", (digest,))

    def _change(self, database: sqlite3.Connection, news: Mapping[str, Any], who: str) -> int:
        """Apply functions from the old to the new label of a person, as one step; returns how many have changed."""
        step, old, changed = opinions.next_step(database), self._labels(database), 0
        for name, new in news.items():
            told = opinions.say(database, step, name, who, old.get(name, NONE), new)
            if told is not None:
                changed += 1
                self._write(database, name, told)
        return changed

    def _labels(self, database: sqlite3.Connection) -> dict[str, Label]:
        rows = database.execute("SELECT name, label, kind FROM labels")
        return {row["name"]: Label(row["label"], row["kind"]) for row in rows}

    def _write(self, database: sqlite3.Connection, name: str, told: Label) -> None:
        database.execute(
            "INSERT INTO labels (name, label, kind, time) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "label = excluded.label, kind = excluded.kind, time = excluded.time",
            (name, *told, time.time()),
        )

    def _others(self, database: sqlite3.Connection, name: str, row: Mapping[str, str]) -> None:
        given = {column: row[column] for column in OTHERS if column in row}
        for column, value in given.items():
            if not value:
                database.execute(f"UPDATE labels SET \"{column}\" = '' WHERE name = ?", (name,))
                continue
            database.execute(
                f'INSERT INTO labels (name, time, "{column}") VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET '
                f'"{column}" = excluded."{column}"',
                (name, time.time(), value),
            )

    def _mark(self, database: sqlite3.Connection) -> None:
        """Record that labels.csv lacks a change: the desk may be killed before it is written."""
        database.execute("INSERT OR REPLACE INTO label_file VALUES (1, ?)", (DIRTY,))

    def _content(self) -> bytes:
        try:
            return self.project.labels.read_bytes()
        except FileNotFoundError:
            return b""

    def _digest(self) -> str:
        content = self._content()
        return hashlib.sha256(content).hexdigest() if content else ""
