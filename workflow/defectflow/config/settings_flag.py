"""`--settings` of a stage: the values of a class of settings as JSON, with a line of help for each."""

import argparse
import dataclasses
import json
from typing import Any

from defectflow.config.settings import Family, types_of
from defectflow.config.values import REQUIRED, default_in_words, limits_in_words, type_in_words
from defectflow.core.files import UserError, read_json


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the table of settings."""


def add_settings(
    parser: argparse.ArgumentParser, kind: Any, *stages: str, flag: str = "--settings", default: str = "{}"
) -> None:
    """Add `--settings`, with a line for each value that the stages read.

    Args:
        kind: a class of settings, or a `Family`.
        stages: those whose values are meant.
    """
    named = f", with its {kind.key}" if isinstance(kind, Family) else ""
    parser.add_argument(
        flag, default=default, metavar="JSON", help=f"JSON, or a file with it{named}; its keys: see below"
    )
    parser.formatter_class = _Help
    lines = []
    for cls in kind.classes.values() if isinstance(kind, Family) else [kind]:
        told = [field for field in dataclasses.fields(cls) if set(stages) & set(field.metadata["stages"])]
        told = [field for field in told if field.name not in cls.fixed]
        title = f" of {kind.key} {cls.name}" if isinstance(kind, Family) else ""
        lines += [f"keys of {flag}{title}{'' if told else ': none'}", *(f"  {help_line(cls, f)}" for f in told), ""]
    parser.epilog = "\n".join([*filter(None, [parser.epilog]), *lines])


def help_line(cls: type, field: dataclasses.Field[Any]) -> str:
    """A field in one line: name, type, limits, default, description."""
    about = field.metadata
    what = ", ".join(filter(None, (type_in_words(types_of(cls)[field.name]), limits_in_words(about))))
    default = "required" if about["default"] is REQUIRED else f"default: {default_in_words(about['default'])}"
    return f"{field.name}: {about['description']} ({what}; {default})"


def read_settings(text: str, kind: Any, *stages: str, where: str = "--settings") -> Any:
    """The settings of ``--settings``, as far as the stages read them.

    Args:
        text: a JSON object, or the path of a file with one.
        kind: a class of settings, or a `Family`.

    Raises:
        UserError: it is no JSON, or see `Settings.from_dict`.
    """
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not valid JSON ({error})") from None
    else:
        given = read_json(text)
    if not isinstance(given, dict):
        raise UserError(f"{where}: not a JSON object (give {{...}})")
    return kind.from_dict(given, where).only_for(*stages)
