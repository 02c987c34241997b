"""Adding photographs, archives and tables of labels to the desk.

Files are recognised by their content. A photograph is fully decoded before it is added; duplicates, broken files and
files that are not photographs are named in the report and left out.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from defectflow.core.files import UserError, sha256_of
from defectflow.desk.pictures import label_imports, thumbnails
from defectflow.desk.pictures.label_store import LabelStore
from defectflow.desk.pictures.photograph_index import Photograph, PhotographIndex
from defectflow.desk.project import Project
from defectflow.images import image_checks
from defectflow.images.formats import ARCHIVES, OTHER, PACKED, RAW, SUFFIXES, content_suffix, unread
from defectflow.inspection.judge_files import check_header

GIGA = 1_000_000_000
LARGEST_FILE = 200_000_000  # bytes of a photograph
MOST_IN_ARCHIVE = 50_000  # files
LARGEST_RATIO = 200  # unpacked over packed bytes of a file, beyond a first megabyte: PNG and JPEG hardly shrink
SPARE = GIGA // 2  # bytes kept free on the disk
NAMED = 300  # files that a report names, of each kind
HIDDEN = (".", "__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass
class Report:
    """The result of adding files.

    Attributes:
        total, done: number of files, and of processed ones.
        added, labels: photographs added, labels read from tables or folders.
        named: {duplicate, broken, passed}: files with the reason, at most NAMED of each.
        counts: number of each of these.
        notes: other messages to the user.
        ended: whether processing has ended.
    """

    total: int = 0
    done: int = 0
    added: int = 0
    labels: int = 0
    named: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ended: bool = False

    def name(self, kind: str, file: str, reason: str) -> None:
        """Record a file that was not added."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.named.setdefault(kind, [])) < NAMED:
            self.named[kind].append({"name": file, "reason": reason})

    def as_dict(self) -> dict[str, Any]:
        """For the API."""
        return asdict(self)


class Intake:
    """Adds photographs and labels to the folder.

    Args:
        project: the folder.
        photographs, labels: its photographs and their labels.
    """

    def __init__(self, project: Project, photographs: PhotographIndex, labels: LabelStore) -> None:
        self.project, self.photographs, self.labels = project, photographs, labels
        self.incoming = project.state / "incoming"
        shutil.rmtree(self.incoming, ignore_errors=True)  # left by a desk that was killed
        self.incoming.mkdir()
        self._one = threading.Lock()
        self._archives: dict[str, Report] = {}
        self._looked_at: dict[str, Photograph] = {}
        self._known: dict[str, str] = {}  # sha256 -> name
        self._hashed: dict[str, str] = {}  # name + stamp -> sha256

    def take_files(self, files: Iterable[tuple[str, IO[bytes]]]) -> Report:
        """Add files, given as (name in the browser with folders, content)."""
        report = Report()
        names: list[str] = []
        # Tables last: they name photographs of the same upload.
        for given, stream in sorted(files, key=lambda one: label_imports.is_table(one[0])):
            report.total += 1
            temporary = self.incoming / f"{threading.get_ident()}-{report.total}"
            try:
                with open(temporary, "wb") as target:
                    _copy(stream, target, LARGEST_FILE)
                names += self._take(given, temporary, report)
            except UserError as error:
                report.name("broken", given[:200], str(error).replace(f"{temporary}: ", ""))
            finally:
                temporary.unlink(missing_ok=True)
            report.done += 1
        self._finish(names, report)
        return report

    def take_archive(self, given: str, archive: Path) -> str:
        """Unpack a .zip of `incoming` in the background; returns the number to pass to `archive`."""
        number = archive.name
        report = self._archives[number] = Report(notes=[given])

        def work() -> None:
            try:
                self._unpack(archive, report)
            except (UserError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
                report.name("broken", given[:200], str(error) or type(error).__name__)
            finally:
                archive.unlink(missing_ok=True)
                report.ended = True

        threading.Thread(target=work, name=f"unpack {given[:40]}", daemon=True).start()
        return number

    def archive(self, number: str) -> Report:
        """Progress of an archive.

        Raises:
            UserError: there is none of this number.
        """
        if number not in self._archives:
            raise UserError("no such archive (the desk was restarted: drag it onto the page again)")
        return self._archives[number]

    def _unpack(self, archive: Path, report: Report) -> None:
        names: list[str] = []
        try:
            with zipfile.ZipFile(archive) as packed:
                entries = [entry for entry in packed.infolist() if not entry.is_dir()]
                entries.sort(key=lambda entry: label_imports.is_table(entry.filename))
                report.total = len(entries)
                if len(entries) > MOST_IN_ARCHIVE:
                    raise UserError(f"{len(entries)} files in one archive (at most {MOST_IN_ARCHIVE}: pack several)")
                for number, entry in enumerate(entries):
                    temporary = self.incoming / f"{archive.name}-{number}"
                    try:
                        if why := _refused(entry):
                            report.name("passed", entry.filename[:200], why)
                            continue
                        if shutil.disk_usage(self.incoming).free < SPARE + entry.file_size:
                            raise OSError("the disk is nearly full (free some space)")
                        most = min(LARGEST_FILE, 1_000_000 + LARGEST_RATIO * entry.compress_size)
                        with packed.open(entry) as stream, open(temporary, "wb") as target:
                            _copy(stream, target, most)
                        names += self._take(entry.filename, temporary, report)
                    except (UserError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
                        told = str(error).replace(f"{temporary}: ", "") or type(error).__name__
                        report.name("broken", entry.filename[:200], told)
                    except OSError:
                        raise
                    except Exception as error:  # zlib, lzma and others raise their own
                        report.name("broken", entry.filename[:200], f"cannot be unpacked ({type(error).__name__})")
                    finally:
                        temporary.unlink(missing_ok=True)
                        report.done += 1
        finally:
            self._finish(names, report)

    def _take(self, given: str, file: Path, report: Report) -> list[str]:
        """Add one file; returns the names of the photographs added."""
        plain = given.replace("\\", "/").strip("/")
        if ".." in plain.split("/"):
            raise UserError("its name points outside the folder")
        if any(part.startswith(HIDDEN) for part in plain.split("/")):
            report.name("passed", plain, "a hidden or system file")
            return []
        suffix = PurePosixPath(plain).suffix.lower()
        if label_imports.is_table(plain):
            report.labels += self._table(plain, file, report)
            return []
        if suffix in (*RAW, *OTHER, *ARCHIVES, *PACKED):
            report.name("passed", plain, unread(plain).reason)
            return []
        found = content_suffix(file)
        if not found and suffix not in SUFFIXES:
            report.name("passed", plain, "not a picture")
            return []
        if found and found not in SUFFIXES:
            report.name("passed", plain, f"a {found[1:].upper()} picture (convert it to JPEG, PNG or TIFF)")
            return []
        if suffix not in SUFFIXES:
            plain += found
        self.project.path_inside(plain, self.project.photographs)  # before anything is decoded
        check_header(file, thumbnails.MOST_PIXELS)
        picture = image_checks.inspect(file, self.incoming)
        if picture.problem:
            raise UserError(picture.problem.replace(file.name, PurePosixPath(plain).name))
        with self._one:
            return self._place(plain, file, picture.sha256, report)

    def _place(self, name: str, file: Path, sha256: str, report: Report) -> list[str]:
        if other := self._equal(sha256):
            report.name("duplicate", name, f"the same picture as {other}")
            return []
        stem, suffix = os.path.splitext(name)
        number, chosen = 1, name
        known = {one.lower() for one in self.photographs.all()}
        while chosen.lower() in known or self.project.path_inside(chosen, self.project.photographs).exists():
            number += 1
            chosen = f"{stem}-{number}{suffix}"
        path = self.project.path_inside(chosen, self.project.photographs)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, path)
        path.chmod(0o644)
        self._known[sha256] = chosen
        report.added += 1
        return [chosen]

    def _equal(self, sha256: str) -> str:
        """The photograph with this content, or ""."""
        photographs = self.photographs.all()
        for name, photograph in photographs.items() if photographs is not self._looked_at else ():
            key = f"{name}\0{photograph.stamp}"
            if key not in self._hashed:
                try:
                    self._hashed[key] = sha256_of(self.photographs.path(name))
                except (OSError, UserError):
                    continue
                self._known.setdefault(self._hashed[key], name)
        self._looked_at = photographs
        found = self._known.get(sha256, "")
        if found and not (self.project.photographs / found).is_file():
            del self._known[sha256]
            return ""
        return found

    def _table(self, name: str, file: Path, report: Report) -> int:
        """Labels of a table, or outlines of an annotation file."""
        try:
            told = label_imports.read(name, file, list(self.photographs.all(anew=True)), self.project)
        except UserError as error:
            report.name("passed", name, str(error).replace(str(file), name))
            return 0
        for note in told.notes:
            report.notes.append(f"{name}: {note}")
        return self.labels.add(told.labels, over=True)

    def _finish(self, names: list[str], report: Report) -> None:
        self.photographs.forget()
        if any("/" in name for name in names):
            told = self.photographs.by_folder(names)
            report.labels += self.labels.add(told, over=False) if told else 0


def _refused(entry: zipfile.ZipInfo) -> str:
    """Why an entry of an archive is not unpacked, or ""."""
    if entry.flag_bits & 1:
        return "encrypted (unpack it with its password, and drag the files here)"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link (drag its target instead)"
    if entry.file_size > LARGEST_FILE:
        return f"larger than {LARGEST_FILE // 1_000_000} MB"
    return ""


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copy a stream; refuse more than ``most`` bytes."""
    size = 0
    for part in _parts(source):
        size += len(part)
        if size > most:
            raise UserError(f"larger than {most // 1_000_000} MB, too large for a photograph of this kind")
        target.write(part)


def _parts(source: IO[bytes]) -> Iterator[bytes]:
    while part := source.read(1 << 20):
        yield part
