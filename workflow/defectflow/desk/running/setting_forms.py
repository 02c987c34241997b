"""All settings of a run that can be changed on a page, with the help texts of the classes that define them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml

from defectflow.config.configuration import family, strategies
from defectflow.config.run_settings import RunSettings
from defectflow.config.settings import Settings, types_of
from defectflow.config.values import ABSENT, REQUIRED, choices_of, default_in_words, limits_in_words, type_in_words
from defectflow.core.files import UserError
from defectflow.desk.project import Project
from defectflow.desk.running.choices import change, effective, value_at, workflow_config
from defectflow.sources.dataset_settings import DatasetSettings

# Set elsewhere on the pages, or not useful for a single data set.
NOT_HERE = {"dataset", "compare", "shards", "label_format", "allow_downloads"}
TITLES = ("The run", "The photographs", "How {name} compares photographs")
OF_DATASET = ("part", "unlabelled", "bit_depth")


def groups(project: Project) -> list[dict[str, Any]]:
    """Groups of fields: {title, name: of the detector, fields}, each field as `_field` has it.

    Values and defaults are texts, as config.yaml has them; choices are texts, [] if any value of the type is allowed.
    """
    config = effective(project)
    base = workflow_config()
    run = [_field(RunSettings, key, key, config, base) for key in RunSettings.own_keys() if key not in NOT_HERE]
    for field in run:
        if field["key"] in ("segmenter", "isolation", "detector"):
            names = sorted(config[f"{field['key']}s"])
            field["choices"] = [*([] if field["key"] == "detector" else ["auto"]), *names]
        if field["key"] == "threshold":
            field["choices"] = list(strategies().classes)
    of_set = f"datasets.{project.dataset}"
    data = [_field(DatasetSettings, key, f"{of_set}.{key}", config, base) for key in OF_DATASET]
    name = str(config["detector"])
    entry = config["detectors"].get(name, {})
    classes = family("detectors").classes
    found = [{"title": TITLES[0], "fields": run}, {"title": TITLES[1], "fields": data}]
    if entry.get("method") in classes:
        cls = classes[entry["method"]]
        path = f"detectors.{name}"
        fields = [_field(cls, key, f"{path}.{key}", config, base) for key in cls.own_keys()]
        found.append({"title": TITLES[2], "name": name, "fields": fields})
    return found


def set_text(project: Project, path: str, text: str) -> None:
    """Set one of the fields of `groups`; "" for its default.

    Raises:
        UserError: there is no such field, or the value is invalid.
    """
    field = next((field for field in _fields(project) if field["path"] == path), None)
    if field is None:
        raise UserError(f"{path[:60]}: no such setting")
    try:
        value = yaml.safe_load(text) if text.strip() else yaml.safe_load(field["default"])
    except yaml.YAMLError:
        raise UserError(
            f"{field['key']}: {text[:60]!r} is not a value (as in config.yaml: 5, true, name, [a, b])"
        ) from None
    if not text.strip() and value_at(workflow_config(), path) is None:
        value = None  # removed from config.yaml: the default of its class applies
    values = {path: value}
    if path == "threshold" and (strategy := strategies().classes.get(value)):
        values["threshold_options"] = dict(strategy.compared)  # options belong to one strategy
    change(project, values)


def _fields(project: Project) -> Iterator[dict[str, Any]]:
    for group in groups(project):
        yield from group["fields"]


def _field(
    cls: type[Settings], key: str, path: str, config: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
    field = next(field for field in dataclasses.fields(cls) if field.name == key)
    about, hint = field.metadata, types_of(cls)[key]
    default = value_at(base, path)
    if default is None and about["default"] not in (REQUIRED, ABSENT):
        default = about["default"]
    value = value_at(config, path)
    kinds = choices_of(hint)
    choices = [_text(choice) for kind, of in kinds if kind is Literal for choice in of]
    if all(kind in (Literal, bool) for kind, _ in kinds):
        choices += ["true", "false"] * any(kind is bool for kind, _ in kinds)
    else:
        choices = []
    return {
        "path": path,
        "key": key,
        "value": _text(default if value is None else value),
        "default": _text(default),
        "default_words": "" if default is None else default_in_words(default),
        "help": about["description"],
        "type": type_in_words(hint),
        "limits": limits_in_words(about),
        "choices": choices,
        "changed": value is not None and value != default,
    }


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)
