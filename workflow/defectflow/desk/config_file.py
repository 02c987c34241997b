"""Change keys of a config.yaml that may have been written by hand, and keep the rest of its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from defectflow.core.files import UserError, atomic


def read(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file.

    Raises:
        UserError: it is missing or not a mapping.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (start the desk again, which writes a new one)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from None


def parsed(text: str, path: Path) -> dict[str, Any]:
    """The mapping of a YAML text; ``path`` is for the message.

    Raises:
        UserError: it is not a mapping.
    """
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise UserError(f"{path}{line}: not valid YAML (correct it, or restore the file)") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a list of `key: value` (correct it, or restore the file)")
    return found


def change(path: Path, changes: Mapping[str, Any]) -> None:
    """Set top-level keys of the file, atomically; None removes a key.

    Raises:
        UserError: it cannot be read, or cannot be changed without changing something else.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    expected = parsed(text, path)
    for key, value in changes.items():
        if expected.get(key) == value and (value is not None or key not in expected):
            continue
        text = _replaced(text, key, value)
        expected = {k: v for k, v in {**expected, key: value}.items() if k != key or value is not None}
    if parsed(text, path) != expected:
        raise UserError(f"{path}: the desk cannot change a file of this form (change it by hand: {', '.join(changes)})")
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _replaced(text: str, key: str, value: Any) -> str:
    """The text with the lines of a key replaced: from `key:` to the next line without indentation."""
    new = "" if value is None else yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=100)
    found = re.search(rf"^{re.escape(key)}[ \t]*:.*\n?(?:(?:[ \t]+|-).*\n?|\n(?=[ \t\n]))*", text, re.MULTILINE)
    if not found:
        return text + ("\n" if text and not text.endswith("\n") else "") + new
    return text[: found.start()] + new + text[found.end() :]
