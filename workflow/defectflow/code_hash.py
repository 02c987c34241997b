"""What a stage computes with, as a hash: what Snakemake compares to know that an edit made an output stale.

That is the code of its modules, the settings they read from the package, and the locked versions of the libraries they
import. Comments, docstrings and layout do not count: they change no result.

Standard library only: the Snakefile imports this module.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
LOCK = PACKAGE.parents[1] / "requirements.lock"
# Libraries that are imported under another name than they are installed by.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "sklearn": "scikit-learn",
    "training": "sam2",
}
WITHOUT_INFLUENCE = {"tqdm"}  # it draws progress bars


class Source(NamedTuple):
    """What counts of a module: its syntax tree as text, without docstrings, and what it imports and names."""

    code: str
    imports: frozenset[str]  # dotted; `from a import b` gives a.b
    words: frozenset[str]  # string constants


@cache
def source(module: str) -> Source:
    """Read a module of this package."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names, words = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return Source(ast.dump(tree), frozenset(names), frozenset(words))


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Names of the modules of this package that ``module`` imports itself, at the top or inside functions."""
    inside = (name.split(".")[1] for name in source(module).imports if name.startswith(f"{PACKAGE.name}."))
    return frozenset(name for name in inside if (PACKAGE / f"{name}.py").exists())


@cache
def locked_versions() -> dict[str, str]:
    """Version of each distribution in requirements.lock."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\\n]+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE))


def libraries(module: str) -> set[str]:
    """``name==version`` of the locked libraries that ``module`` imports itself and that may change a result."""
    tops = {name.split(".")[0] for name in source(module).imports} - WITHOUT_INFLUENCE
    names = {DISTRIBUTIONS.get(top, top.lower()) for top in tops}
    return {f"{name}=={locked_versions()[name]}" for name in names if name in locked_versions()}


def settings(module: str) -> list[Path]:
    """Files of the package's configs/ that ``module`` names."""
    return sorted(path for path in PACKAGE.glob("configs/*") if path.name in source(module).words)


@cache
def code_hash(module: str, *folders: str, without: str = "") -> str:
    """Hash over ``module`` and all modules of this package it imports, however far down, their settings and libraries.

    Args:
        module: name of a module of this package.
        folders: folders of the package whose files it reads (templates).
        without: a module that is not followed: one that is imported only for a job of another kind.

    Returns:
        16 hex digits.
    """
    todo, seen = [module], {without}
    digest, used = hashlib.sha256(), set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imported_modules(name)
            used |= libraries(name)
    for name in sorted(seen - {without}):
        digest.update(f"{name}\n{source(name).code}\n".encode())
        for path in settings(name):
            digest.update(path.read_bytes())
    for path in sorted(path for folder in folders for path in (PACKAGE / folder).iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    digest.update(" ".join(sorted(used)).encode())
    return digest.hexdigest()[:16]
