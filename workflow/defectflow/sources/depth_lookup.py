"""The bit depth of a data set before anything runs: find 16-bit files by their headers and measure new ones.

Standard library only: the Snakefile imports this module. Pixels are measured by `measure_depth` in a separate process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from defectflow.core.files import UserError, atomic
from defectflow.core.records import DataSet
from defectflow.images.bit_depth import Values, is_deep
from defectflow.images.formats import suffixes
from defectflow.sources import preflight
from defectflow.sources.set_depth import decide

SUFFIXES = suffixes("png tif tiff pgm ppm pnm pxm pam jp2 j2k jpc j2c jpf jpx")


class _Known(TypedDict):
    """The cache: `Values` of 16-bit files as lists, and the files that are none, by the start of their hash."""

    deep: dict[str, list[Any] | None]
    plain: list[str]


def depth_of_set(resolved: DataSet, asked: str | int, cache: str | Path | None) -> str:
    """Bits that the 16-bit files of a data set are read with, "" where there are none; see `depth_of`.

    Args:
        resolved: what `preflight.resolve` returned.
        asked: "auto", or the bits that the config names.
        cache: of the data set, see `preflight.file_digests`; measurements are stored next to it.
    """
    return _depth(json.dumps(dict(resolved), sort_keys=True), str(asked), str(cache) if cache else None)


@lru_cache(maxsize=32)
def _depth(key: str, asked: str, cache: str | None) -> str:
    folder, digests = json.loads(key)["images"], preflight.index(key, cache).images
    remembered = f"{os.path.splitext(cache)[0]}.depth.json" if cache else None
    files = {name: (os.path.join(folder, name), sha256) for name, sha256 in digests.items()}
    return depth_of(files, asked, remembered)


def depth_of(files: Mapping[str, tuple[str, str]], asked: str, cache: str | Path | None) -> str:
    """Depth that the 16-bit files among some pictures are read as, "" where there are none.

    Args:
        files: {name: (path, sha256)} of all pictures of a data set.
        asked: "auto", or the bits that the config names.
        cache: JSON file with the measurements by content hash, so that only new files are opened.

    Raises:
        UserError: the files cannot be measured, and the config does not give their bit depth.
    """
    known = _read(cache)
    old, deep, plain, new = known["deep"], {}, set(known["plain"]), {}
    for name, (path, sha256) in files.items():
        if not name.lower().endswith(SUFFIXES) or not sha256:
            continue
        key = sha256[:16]
        if key in old:
            deep[name] = old[key]
        elif key not in plain:
            new[name] = (path, key)
    found = {name: item for name, item in new.items() if is_deep(item[0])}
    if found:
        try:
            measured = dict(zip(found, _measured([path for path, _ in found.values()]), strict=True))
        except UserError:
            if asked == "auto":
                raise
            return asked
        deep |= measured
    if new and cache:
        plain |= {key for name, (_, key) in new.items() if name not in found}
        kept = old | {found[name][1]: deep[name] for name in found}
        with suppress(OSError), atomic(cache) as temporary:
            temporary.write_text(json.dumps({"deep": kept, "plain": sorted(plain)}), encoding="utf-8")
    return decide({name: Values(*values) for name, values in deep.items() if values}, asked).depth


def _measured(paths: list[str]) -> list[list[Any] | None]:
    """`Values` of files as lists, None for what has none, measured by another process."""
    package = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "defectflow.images.measure_depth"]
    done = subprocess.run(command, env=environment, input=json.dumps(paths), capture_output=True, text=True)
    try:
        found: list[list[Any] | None] = json.loads(done.stdout)
        return found
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no answer"]
        raise UserError(
            f"{paths[0]}: how many bits this and other 16-bit files hold could not be measured ({lines[-1]}; name them "
            "in the config: bit_depth of the data set)"
        ) from None


def _read(cache: str | Path | None) -> _Known:
    try:
        known = json.loads(Path(cache).read_text(encoding="utf-8")) if cache else {}
        return {"deep": dict(known["deep"]), "plain": list(known["plain"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"deep": {}, "plain": []}
