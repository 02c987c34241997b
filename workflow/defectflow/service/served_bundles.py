"""The bundles of a service: their names, versions, and the service's copies of them.

The service uses copies, so a folder replaced on the disk takes effect only on reload, in all workers at once. Standard
library only.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError
from defectflow.inspection.bundle_files import MANIFEST, inside, read_bundle, unpacked

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Served:
    """One bundle of a service.

    Attributes:
        name: in URLs and responses.
        folder: the service's copy.
        version: the first 12 digits of the sha256 of its bundle.json, which contains the sha256 of every other file.
        settings: content of bundle.json.
    """

    name: str
    folder: Path
    version: str
    settings: dict[str, Any]


def named(words: Sequence[str]) -> dict[str, Path]:
    """Paths of bundles by name, from BUNDLE or NAME=BUNDLE.

    The default name is that of the folder or .zip; for a folder called "bundle", that of the data set of its run.

    Raises:
        UserError: a path is not a bundle, a name cannot be used in a URL, or two bundles have the same name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        given = bool(equals and NAME.fullmatch(name) and not Path(word).exists())
        path = Path(rest if given else word)
        with unpacked(path) as whole:
            run = str(read_bundle(whole).settings.get("name") or "")
        if not given:
            stem = path.resolve().stem if path.is_file() else path.resolve().name
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", run.partition("/")[0] if stem == "bundle" and run else stem)
        if not NAME.fullmatch(name):
            raise UserError(f"{word}: its name {name!r} cannot be used in a URL (give NAME={path})")
        if name in found:
            raise UserError(f"{word}: another bundle is already called {name} (give NAME={path})")
        found[name] = path
    return found


def copied(bundles: Mapping[str, Path], folder: Path) -> dict[str, Served]:
    """Copy every bundle into ``folder``, which is created.

    Raises:
        UserError: a bundle is damaged.
    """
    served = {}
    for name, path in bundles.items():
        with unpacked(path) as whole:
            bundle = read_bundle(whole)
            for file in (MANIFEST, *bundle.settings["files"]):
                target = inside(folder / name, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(inside(whole, file), target)
        own = read_bundle(folder / name)  # the files may have been replaced meanwhile
        version = hashlib.sha256((folder / name / MANIFEST).read_bytes()).hexdigest()[:12]
        served[name] = Served(name, folder / name, version, own.settings)
    return served
