"""docs/configuration.md and a JSON schema of config.yaml, both from the classes of settings.

`python -m defectflow.config.reference docs/configuration.md` writes the page anew; with `--schema FILE` also a schema
for editors that complete and check YAML files.
"""

import argparse
import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from defectflow.config.configuration import has_names, sections, strategies
from defectflow.config.run_settings import NAME, RunSettings
from defectflow.config.settings import Family, Settings, types_of
from defectflow.config.values import (
    ABSENT,
    REQUIRED,
    choices_of,
    default_in_words,
    limits_in_words,
    type_in_words,
)
from defectflow.core.files import atomic, stage, write_json

HEAD = """# Configuration

Every key of [config.yaml](../config.yaml). `python -m defectflow.config.reference docs/configuration.md` writes this
page from the code; a test compares. On the command line: `--config 'key={inner: value}'`. A key that is not known, or
that the chosen method does not read, stops the run before anything is computed. "none" as a default: the key may be
left out.
"""


def page() -> str:
    """The content of docs/configuration.md."""
    parts = [HEAD, "## Top level\n", *_table([(RunSettings, "")])]
    for section, kind in sorted(sections().items()):
        if not isinstance(kind, Family):
            entries = " (entries by name)" if has_names(section) else ""
            parts += [f"\n## {section}{entries}\n", f"{_sentence(kind)}\n", *_table([(kind, "")])]
            continue
        what = (
            "options of each `threshold`" if section == "threshold_options" else f"entries by name, with a `{kind.key}`"
        )
        parts += [f"\n## {section} ({what})\n"]
        parts += [f"- `{name}`: {_sentence(cls)}" for name, cls in kind.classes.items()]
        parts += ["", *_table([(cls, name) for name, cls in kind.classes.items()], kind.key)]
    return "\n".join(parts) + "\n"


def _sentence(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _table(classes: Iterable[tuple[type[Settings], str]], key: str = "") -> list[str]:
    """Rows of a table of all keys; where several classes have one alike, it has one row that names them."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for cls, name in classes:
        for field in _fields(cls):
            about = field.metadata
            inner = f": {', '.join(f.name for f in dataclasses.fields(about['nested']))}" if about["nested"] else ""
            kind, limits = type_in_words(types_of(cls)[field.name]) + inner, limits_in_words(about)
            cells: tuple[str, ...] = (f"`{field.name}`", kind, _default(about), limits, about["description"])
            rows.setdefault(cells, []).append(name)
    head = ["key", "type", "default", "limits, unit", "meaning", *([f"read by {key}"] if key else [])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for cells, names in rows.items():
        lines.append(f"| {' | '.join((*cells, *([', '.join(names)] if key else [])))} |")
    return lines


def _fields(cls: type[Settings]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.name in cls.own_keys()]


def _default(about: Mapping[str, Any]) -> str:
    return "required" if about["default"] is REQUIRED else default_in_words(about["default"]) or '""'


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of config.yaml."""
    top = _object([RunSettings])
    for section, kind in sorted(sections().items()):
        if section == "threshold_options":
            top["properties"][section] = _object(strategies().classes.values()) | {"required": []}
            continue
        if isinstance(kind, Family):
            entry: dict[str, Any] = {"oneOf": [_object([cls], kind.key) for cls in kind.classes.values()]}
        else:
            entry = _object([kind])
        if has_names(section):
            names = {"propertyNames": {"pattern": f"^{NAME}$"}}
            entry = {"type": "object", **names, "additionalProperties": entry}
            top["required"].append(section)
        top["properties"][section] = entry
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "defectflow configuration", **top}


def _object(classes: Iterable[type[Settings]], key: str = "") -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for cls in classes:
        if key:
            properties[key] = {"const": cls.name}
            required.append(key)
        for field in _fields(cls):
            of = field.metadata["nested"]
            value = _value(types_of(cls)[field.name], field.metadata, _object([of]) if of else None)
            properties[field.name] = value | {"description": field.metadata["description"]}
            if field.metadata["default"] is REQUIRED:
                required.append(field.name)
            elif field.metadata["default"] is not ABSENT:
                properties[field.name]["default"] = field.metadata["default"]
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _value(hint: Any, about: Mapping[str, Any], nested: dict[str, Any] | None) -> dict[str, Any]:
    names = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", type(None): "null"}
    limits = {"minimum": "minimum", "above": "exclusiveMinimum", "maximum": "maximum", "below": "exclusiveMaximum"}
    found: list[dict[str, Any]] = []
    for kind, of in choices_of(hint):
        if kind is Literal:
            found.append({"enum": list(of)})
        elif kind is list:
            items = nested or _value(of, about, None)
            found.append(
                {"type": "array", "items": items, "minItems": about["least"], "uniqueItems": about["distinct"]}
            )
        elif kind is dict and nested:
            found.append(nested)
        elif kind in (int, float):
            own = {name: about[key] for key, name in limits.items() if about[key] is not None}
            found.append({"type": names[kind]} | own)
        elif kind is str:
            found.append(
                {"type": "string", "minLength": 1} | ({"pattern": f"^{about['pattern']}$"} if about["pattern"] else {})
            )
        else:
            found.append({"type": names.get(kind, "object")})
    return found[0] if len(found) == 1 else {"anyOf": found}


def main(args: argparse.Namespace) -> None:
    """Write the page, and the schema."""
    with atomic(args.page) as temporary:
        temporary.write_text(page(), encoding="utf-8")
    if args.schema:
        write_json(args.schema, json.loads(json.dumps(schema())))


def build_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.config.reference", description=__doc__)
    parser.add_argument("page", type=Path, help="page to write (docs/configuration.md)")
    parser.add_argument("--schema", type=Path, help="JSON schema to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
