"""Which code a stage is made of, as a hash: what Snakemake compares to know that an edit made an output stale.

Standard library only: the Snakefile imports this module.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Names of the modules of this package that ``module`` imports, at the top or inside functions, without itself."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith(f"{PACKAGE.name}.")}
    return frozenset(name for name in names if (PACKAGE / f"{name}.py").exists())


@cache
def code_hash(module: str, *folders: str) -> str:
    """Hash over the text of ``module``, of all modules of this package it imports, however far down, and of the files
    in ``folders`` of the package (templates).
    """
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imported_modules(name)
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\n".encode() + (PACKAGE / f"{name}.py").read_bytes())
    for path in sorted(path for folder in folders for path in (PACKAGE / folder).iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
