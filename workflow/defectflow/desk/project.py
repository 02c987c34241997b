"""The folder that the desk works in, with photographs, labels, settings and results as the commands use them.

FOLDER/photographs/    the photographs, or links to folders of them
FOLDER/labels.csv      their labels
FOLDER/config.yaml     differences from the workflow's config.yaml
FOLDER/results/        what the workflow computes
FOLDER/.desk/          internal: labels (SQLite), thumbnails, the state of the run
"""

from __future__ import annotations

import os
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defectflow.config.run_settings import name_of
from defectflow.core.files import UserError, atomic
from defectflow.desk import config_file
from defectflow.listing.image_names import is_image

ROOT = Path(__file__).parents[3]  # of the checkout
CONFIG = """\
# Settings of this desk that differ from the config.yaml of the workflow. Any of its keys can be set here.
dataset: {name}
compare: []                 # no other runs for the leaderboard

datasets:
  {name}:
    images: photographs
    labels: labels.csv
"""


class Project:
    """The folder of a desk and its files.

    Attributes:
        folder: absolute.
        dataset: name of its data set, and of the folder of its results.
        photographs, labels, config, results: paths of these.
        state: the desk's own folder.
        lock: to be held while files of the folder are changed.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder; missing files are created.

        Raises:
            UserError: it cannot be a folder of the desk, or config.yaml cannot be read.
        """
        self.folder = folder.expanduser().resolve()
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder}: not a folder (give a folder for the desk; it is created if it does not exist)")
        self.photographs, self.labels = self.folder / "photographs", self.folder / "labels.csv"
        self.config, self.results = self.folder / "config.yaml", self.folder / "results"
        self.state = self.folder / ".desk"
        self.lock = threading.RLock()
        try:
            for path in (self.photographs, self.state / "thumbnails"):
                path.mkdir(parents=True, exist_ok=True)
            self.state.chmod(0o700)
            if not self.config.exists():
                with atomic(self.config) as temporary:
                    temporary.write_text(CONFIG.format(name=name_of(self.folder.name)), encoding="utf-8")
            if not self.labels.exists():
                with atomic(self.labels) as temporary:
                    temporary.write_text("filename,label,defect_type\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: {error.strerror} (choose a folder with write permission)"
            ) from None
        settings = self.settings()
        self.dataset = str(settings.get("dataset", ""))
        entry = (settings.get("datasets") or {}).get(self.dataset)
        if not isinstance(entry, dict):
            raise UserError(f"{self.config}: datasets has no entry {self.dataset!r} (correct it, or remove the file)")
        given = entry.get("images"), entry.get("labels")
        if given != ("photographs", "labels.csv"):
            raise UserError(
                f"{self.config}: the data set {self.dataset!r} was not made by the desk (its entry needs `images: "
                "photographs` and `labels: labels.csv`; give the desk another folder)"
            )

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """A connection to the desk's database; the block is one transaction."""
        connection = sqlite3.connect(self.state / "desk.sqlite", timeout=30, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()

    def settings(self) -> dict[str, Any]:
        """Content of the folder's config.yaml, without the workflow's own config.yaml.

        Raises:
            UserError: it cannot be read.
        """
        return config_file.read(self.config)

    def change_settings(self, changes: Mapping[str, Any]) -> None:
        """Set top-level keys of config.yaml; None removes a key. The rest of the file is not changed.

        Raises:
            UserError: it cannot be read or written.
        """
        with self.lock:
            config_file.change(self.config, changes)

    def change_entry(self, changes: Mapping[str, Any]) -> None:
        """Set keys of the entry of the data set, e.g. `links`; None removes a key."""
        with self.lock:
            sets = dict(self.settings()["datasets"])
            entry = {**sets[self.dataset], **changes}
            sets[self.dataset] = {key: value for key, value in entry.items() if value is not None}
            config_file.change(self.config, {"datasets": sets})

    def snakemake(self, *words: str) -> list[str]:
        """Arguments of a Snakemake command to run in this folder, after `python -m`."""
        files = [str(ROOT / "config.yaml"), "config.yaml"]
        return ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", *files, *words]

    def path_inside(self, name: str, below: Path | None = None) -> Path:
        """The path of a file or folder by its name, relative to the folder (or to ``below``, a folder in it).

        Links that the desk made in photographs/ are followed to their folders (`links` of config.yaml).

        Raises:
            UserError: it is outside, or not a valid name for a file of a data set.
        """
        base = below or self.folder
        wrong = f"{name[:100]!r}: not a valid file name in {base.name}"
        if not name or len(name) > 1000 or name.startswith("/") or "\\" in name or not _plain(name):
            raise UserError(wrong)
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise UserError(wrong)
        path = base / name
        try:
            real = path.resolve()
        except (OSError, RuntimeError):  # circular links
            raise UserError(wrong) from None
        allowed = [base.resolve()]
        if self.photographs in (path, *path.parents):
            allowed += [Path(link).resolve() for link in self.links()]
        if not any(real == root or root in real.parents for root in allowed):
            raise UserError(f"{name[:100]!r}: a link to outside of {base.name}")
        return path

    def links(self) -> list[str]:
        """Folders outside that links in photographs/ may lead to."""
        entry = self.settings()["datasets"][self.dataset]
        return [str(self.folder / link) for link in entry.get("links") or ()]


def folder_for(given: Path) -> Path:
    """The folder of the desk for the given one: next to it if it contains photographs, otherwise itself.

    A folder of photographs is not changed: the desk's files and results are not put into it.
    """
    given = given.expanduser().resolve()
    if not given.is_dir() or (given / ".desk").is_dir() or not holds_photographs(given):
        return given
    return given.with_name(f"{given.name}-desk")


def holds_photographs(folder: Path, follow: bool = False) -> bool:
    """Whether there are photographs in a folder, at most four levels down; ``follow``: also behind links."""
    for at, folders, files in os.walk(folder, followlinks=follow):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(is_image(name) for name in files):
            return True
        if at.count(os.sep) - str(folder).count(os.sep) > 3:
            folders.clear()
    return False


def _plain(name: str) -> bool:
    """Whether all characters are printable UTF-8 and none changes the direction of the text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name)
