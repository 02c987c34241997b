"""A bundle: one folder with everything a fitted inspector needs, as safetensors, ONNX and JSON, each with its sha256.

Or a .zip of that folder. Standard library only. Nothing in a bundle is executed, and no file outside of it is read.
"""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from defectflow.core.files import UserError, atomic, nearest_path, read_json, sha256_of, write_json

FORMAT = "defectflow-bundle-4"  # a version reads one format; any change that affects verdicts gets the next number
MANIFEST = "bundle.json"
LARGEST = 20  # largest ratio of unpacked size to .zip size: weights hardly compress
SECTIONS = {
    "segmenter": dict, "isolation": dict, "detector": dict, "network": dict, "threshold": dict, "regions": dict,
    "look": dict, "scale": dict, "versions": dict, "files": dict, "depth": str,
}  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked.

    Attributes:
        folder: where it is.
        settings: content of bundle.json.
    """

    folder: Path
    settings: dict[str, Any]

    def path(self, name: str) -> Path:
        """A file of the bundle.

        Raises:
            UserError: the bundle has no such file.
        """
        if name not in self.settings["files"]:
            raise UserError(f"{self.folder}: the bundle has no {name} (make it again)")
        return inside(self.folder, name)


def inside(folder: Path, name: str) -> Path:
    """Path of file ``name`` in ``folder``.

    Raises:
        UserError: the path is outside of the folder, directly or through a link.
    """
    parts = PurePosixPath(name).parts
    whole = folder.resolve()
    path = whole.joinpath(*parts)
    if not parts or "\\" in name or ":" in name or PurePosixPath(name).is_absolute() or ".." in parts:
        raise UserError(f"{folder}: the bundle names a file outside of its folder: {name!r} (do not use it)")
    if not path.resolve().is_relative_to(whole):
        raise UserError(f"{folder}: {name!r} of the bundle is a link out of its folder (do not use it)")
    return path


def write_manifest(folder: Path, settings: dict[str, Any]) -> None:
    """Write bundle.json with size and sha256 of every file below ``folder``; the last step of making a bundle."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            files[name] = entry_of(path)
    write_json(folder / MANIFEST, {"format": FORMAT, **settings, "files": files})


def entry_of(path: Path) -> dict[str, Any]:
    """What bundle.json says of a file: size and sha256."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def read_bundle(folder: str | Path) -> Bundle:
    """Open a bundle and check that it is complete.

    Raises:
        UserError: it is not a bundle, has another version, is damaged, or names files outside of its folder.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        inside, made = folder / "bundle", "`defectflow run DATA --bundle` makes one"
        way = f"give {inside}" if (inside / MANIFEST).is_file() else made
        what = f"not a bundle (no {MANIFEST} in it; " if folder.exists() else f"no such bundle{nearest_path(folder)} ("
        raise UserError(f"{folder}: {what}{way})")
    settings = read_json(folder / MANIFEST)
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{folder}: a bundle of format {found!r}, this version reads {FORMAT!r} (make the bundle again)"
        )
    for key, kind in SECTIONS.items():
        if not isinstance(settings.get(key), kind):
            raise UserError(f"{folder}: {MANIFEST} is damaged: no {key!r} (copy or make the bundle again)")
    for name, entry in settings["files"].items():
        check_file(folder, name, entry)
    return Bundle(folder, settings)


def made_at(folder: Path) -> int:
    """When a bundle was made, in ns since 1970: what it learns from people later, or an export, is newer.

    Raises:
        OSError: it is not a folder.
    """
    return min(path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file())


def check_file(folder: Path, name: str, entry: Any) -> None:
    """Check one file against its entry {"bytes": size, "sha256": hash}.

    Raises:
        UserError: it is absent, altered, or outside of ``folder``.
    """
    path = inside(folder, name)
    if not isinstance(entry, dict) or not path.is_file():
        raise UserError(f"{folder}: {name} of the bundle is missing (copy or make the bundle again)")
    if path.stat().st_size != entry.get("bytes") or sha256_of(path) != entry.get("sha256"):
        raise UserError(f"{folder}: {name} of the bundle is damaged (copy or make the bundle again)")


def pack(folder: str | Path, target: str | Path) -> None:
    """Write a bundle as one uncompressed .zip (weights hardly compress); the same bundle gives the same bytes.

    Raises:
        UserError: the folder is not a complete bundle, see `read_bundle`.
    """
    bundle = read_bundle(folder)
    with atomic(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted({MANIFEST, *bundle.settings["files"]}):
            entry = zipfile.ZipInfo(name)  # dated 1980, so that the bytes do not depend on the time
            entry.external_attr = 0o644 << 16
            with open(inside(bundle.folder, name), "rb") as source, archive.open(entry, "w", force_zip64=True) as copy:
                shutil.copyfileobj(source, copy)


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """Yield the folder of a bundle: the given one, or a temporary one with the content of a .zip, removed afterwards.

    The .zip may contain the bundle's files or the bundle's folder. It is unpacked only if every name in it stays inside
    the folder, and if its content is at most LARGEST times its size.

    Raises:
        UserError: the file is not such a .zip. Errors inside the block get the name of the .zip.
    """
    path = Path(path)
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="defectflow-") as name:
        folder = Path(name)
        try:
            _unpack(path, folder)
            yield next((top for top in (folder, *sorted(folder.iterdir())) if (top / MANIFEST).is_file()), folder)
        except UserError as error:
            raise UserError(str(error).replace(str(folder), str(path))) from None


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > LARGEST * path.stat().st_size:
                raise UserError(f"{path}: unpacked it would be more than {LARGEST} times as large (do not use it)")
            for entry in entries:
                target = inside(folder, entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)  # zipfile raises if it is more than file_size
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: neither a bundle's folder nor a whole .zip of one ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked in {tempfile.gettempdir()} ({error.strerror})") from None
