"""A hash of everything a stage computes with. Snakemake compares it to find outputs that an edit has made stale.

That is the code of its modules and of the packages they lie in, the settings they read from the package, and the locked
versions of the libraries they import. Comments, docstrings and layout do not count: they change no result.

Standard library only: the Snakefile imports this module.
"""

import ast
import fnmatch
import hashlib
import json
import os
import re
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from defectflow.core.files import atomic

PACKAGE = Path(__file__).parents[__name__.count(".") - 1]
LOCK = PACKAGE.parents[1] / "requirements.lock"
# Libraries that are imported under another name than they are installed by.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "paho": "paho-mqtt",
    "prometheus_client": "prometheus-client",
    "sklearn": "scikit-learn",
    "training": "sam2",
    "yaml": "pyyaml",
}
WITHOUT_INFLUENCE = {"tqdm"}  # it draws progress bars
SETTLED = 2 * 10**9  # a file written less than so many ns ago may change again within the resolution of its time stamp
_cache: dict[str, Any] = {"file": None, "known": {}, "new": False}  # what was read of unchanged modules, see remember()


class Source(NamedTuple):
    """What counts of a module: a hash of its syntax tree without docstrings, and what it imports and names."""

    code: str
    imports: frozenset[str]  # dotted and absolute; `from a import b` gives a.b
    words: frozenset[str]  # string constants that may be names of files


def path_of(module: str) -> Path | None:
    """File of a module of this package, named from the root of the package; of a package, its ``__init__.py``.

    Args:
        module: "files", "room.module", "room" or "", which is the package itself.

    Returns:
        None where there is no such module.
    """
    place = PACKAGE.joinpath(*module.split("."))
    for path in (place / "__init__.py", PACKAGE / f"{module.replace('.', '/')}.py"):
        if path.is_file():
            return path
    return None


def modules() -> list[str]:
    """All modules and packages of this package but itself, named from its root: "files", "room", "room.module"."""
    paths = (path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
    return sorted(name for parts in paths if (name := ".".join(parts).removesuffix("__init__").rstrip(".")))


def remember(file: str | Path) -> None:
    """Keep what was read of unchanged modules in ``file`` (JSON) from one process to the next."""
    known = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        known = dict(content["modules"]) if content["reader"] == _reader() else {}
    _cache.update(file=Path(file), known=known, new=False)


def _save() -> None:
    if _cache["file"] and _cache["new"]:
        _cache["new"] = False
        with suppress(OSError), atomic(_cache["file"]) as temporary:  # a dry run may look at a read-only folder
            content = {"reader": _reader(), "modules": _cache["known"]}
            temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def _reader() -> str:
    """What reads a module: another Python or another version of this file may read it otherwise."""
    return f"{sys.version} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"


@cache
def _all() -> list[str]:
    return modules()


@cache
def source(module: str) -> Source:
    """Read a module of this package; an empty Source for a package without ``__init__.py``."""
    path = path_of(module)
    if path is None:
        return Source("", frozenset(), frozenset())
    stat = os.stat(path)
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    before = _cache["known"].get(str(path))
    if before and before["stat"] == state:
        return Source(before["code"], frozenset(before["imports"]), frozenset(before["words"]))
    found = _parse(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    if max(stat.st_mtime_ns, stat.st_ctime_ns) < time.time_ns() - SETTLED:
        entry = {"code": found.code, "imports": sorted(found.imports), "words": sorted(found.words)}
        _cache["known"][str(path)] = {"stat": state} | entry
        _cache["new"] = True
    return found


def _parse(text: str, module: str, is_package: bool) -> Source:
    tree = ast.parse(text)
    package = [PACKAGE.name, *module.split(".")] if module else [PACKAGE.name]
    if not is_package:
        package.pop()
    names, words = set(), set()
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]  # imports for annotations run nothing
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names |= {start if alias.name == "*" else f"{start}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"[\w.+-]+\.\w+", node.value):
                words.add(node.value)
            # For import_module, `python -m` and hydra; with a star for settings.discover.
            if re.fullmatch(rf"{PACKAGE.name}(\.[\w*]+)+", node.value):
                names.add(node.value)
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return Source(code, frozenset(names), frozenset(words))


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Modules of this package that run when ``module`` does, one step away, named from the root of the package.

    Those it imports itself, at the top or inside functions, and the packages in which they lie and it lies itself
    ("" is this package): Python runs the ``__init__.py`` of each on the way.
    """
    imports = [name.partition(".")[2] for name in source(module).imports if name.split(".")[0] == PACKAGE.name]
    names = [
        one.split(".") for name in imports for one in ([name] if "*" not in name else fnmatch.filter(_all(), name))
    ]
    found = {".".join(parts[:end]) for parts in [module.split("."), *names] for end in range(len(parts) + 1)}
    return frozenset(name for name in found - {module} if path_of(name))


@cache
def locked_versions() -> dict[str, str]:
    """Version of each distribution in requirements.lock."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\\n]+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE))


def libraries(module: str) -> set[str]:
    """``name==version`` of the locked libraries that ``module`` imports itself and that may change a result."""
    tops = {name.split(".")[0] for name in source(module).imports} - WITHOUT_INFLUENCE
    names = {DISTRIBUTIONS.get(top, top.lower()) for top in tops}
    return {f"{name}=={locked_versions()[name]}" for name in names if name in locked_versions()}


@cache
def _settings_files() -> list[Path]:
    return sorted(PACKAGE.rglob("configs/*"))


def settings(module: str) -> list[Path]:
    """Files of configs/, of the package or of a room in it, that ``module`` names."""
    return [path for path in _settings_files() if path.name in source(module).words]


@cache
def code_hash(module: str, *folders: str, without: str = "") -> str:
    """Hash over ``module`` and all modules of this package it imports, however far down, their settings and libraries.

    Args:
        module: name of a module of this package, from its root ("files", "room.module").
        folders: folders of the package whose files it reads (templates).
        without: a module (or a package with all in it) that is not followed: one that is imported only for a job of
            another kind.

    Returns:
        16 hex digits.

    Raises:
        ValueError: there is no such module or folder.
    """
    for name in filter(None, (module, without)):
        if path_of(name) is None:
            raise ValueError(f"code_hash: no module {name} in {PACKAGE.name}")
    todo, seen = [module], set()
    digest, used = hashlib.sha256(module.encode()), set()
    while todo:
        name = todo.pop()
        if name not in seen and not (without and f"{name}.".startswith(f"{without}.")):
            seen.add(name)
            todo += imported_modules(name)
            used |= libraries(name)
    for name in sorted(seen):
        digest.update(f"{name}\n{source(name).code}\n".encode())
        for path in settings(name):
            digest.update(path.read_bytes())
    for folder in folders:
        if not (PACKAGE / folder).is_dir():
            raise ValueError(f"code_hash: no folder {folder} in {PACKAGE.name}")
    for path in sorted(path for folder in folders for path in (PACKAGE / folder).iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    digest.update(" ".join(sorted(used)).encode())
    _save()
    return digest.hexdigest()[:16]
