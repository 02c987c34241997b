"""Values of settings: what a type allows, texts turned into numbers, limits, and all that in words.

Standard library only: the Snakefile imports this module.
"""

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, Union

REQUIRED = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()  # there is no default: it has to be given
ABSENT = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()  # None, and not written out where it is not given


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...' or the list of what is known."""
    return meant(word, known)[2:] or f"known: {', '.join(known)}"


def meant(word: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def choices_of(hint: Any) -> list[tuple[Any, Any]]:
    """What a type allows, (type, choices) of each: the choices of a `Literal`, or the type of the items of a list."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [choice for part in typing.get_args(hint) for choice in choices_of(part)]
    if typing.get_origin(hint) is Literal:
        return [(Literal, typing.get_args(hint))]
    if typing.get_origin(hint) in (list, dict):
        return [(typing.get_origin(hint), typing.get_args(hint)[-1])]
    return [(hint, ())]


def typed(value: Any, hint: Any) -> Any:
    """``value`` with every text that is to be a number, a truth value or null turned into one, and 5.0 into 5.

    Snakemake leaves what stands inside ``--config 'a={b: 2}'`` as strings, and true, false and null anywhere. A whole
    number that is written as 5.0 is one in YAML and JSON: what is computed, and its hash, does not hang on the ".0".
    """
    kinds = choices_of(hint)
    if isinstance(value, float) and value.is_integer() and int in dict(kinds) and float not in dict(kinds):
        return int(value)
    if isinstance(value, list):
        return [typed(item, of) for kind, of in kinds[:1] if kind is list for item in value] or value
    if not isinstance(value, str) or any(kind is Literal and value in of for kind, of in kinds):
        return value
    names = [kind for kind, _ in kinds] + [type(choice) for kind, of in kinds if kind is Literal for choice in of]
    words: tuple[tuple[str, bool | None, type], ...] = (
        ("null", None, type(None)), ("true", True, bool), ("false", False, bool),
    )  # fmt: skip
    for word, meant, known in words:
        if known in names and value.lower() == word:
            return meant
    for parse, known in ((int, int), (int, float), (float, float)):
        if known in names:
            with suppress(ValueError):
                return parse(value)
    return value


def as_floats(value: Any, hint: Any) -> Any:
    """A whole number as a float where the type has no whole numbers: what is computed does not hang on a ".0"."""
    kinds = dict(choices_of(hint))
    if isinstance(value, list) and list in kinds:
        return [as_floats(item, kinds[list]) for item in value]
    return float(value) if type(value) is int and float in kinds and int not in kinds else value


def problem_of(value: Any, hint: Any, about: Mapping[str, Any]) -> str:
    """What is wrong with a value, or ""."""
    kinds = choices_of(hint)
    for kind, of in kinds:
        if kind is Literal and any(value == choice and type(value) is type(choice) for choice in of):
            return ""
        if kind is type(None) and value is None:
            return ""
        if kind is bool and isinstance(value, bool):
            return ""
        number = kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)
        if number and (kind is float or isinstance(value, int)):
            return _out_of_limits(value, about)
        if kind is str and isinstance(value, str):
            if about["pattern"] and not re.fullmatch(about["pattern"], value):
                return f"{value!r} does not match {about['pattern']!r}"
            return "" if value else "it is empty (give a text, or leave it out)"
        if kind is list and isinstance(value, list):
            if len(value) < about["least"]:
                return f"it has {len(value)} items and needs {about['least']}"
            if about["distinct"] and len({str(item) for item in value}) < len(value):
                return f"{value!r} has an item twice"
            return next((problem for item in value if (problem := problem_of(item, of, about))), "")
        if kind is dict and isinstance(value, dict):
            return ""
    named = [str(choice) for kind, of in kinds if kind is Literal for choice in of]
    others = [_word(kind) for kind, _ in kinds if kind is not Literal]
    if not named:
        return f"{value!r} is not of type {' or '.join(others)}"
    close = meant(value, named)
    return f"{value!r} is not one of {', '.join(named)}{''.join(f' or {word}' for word in others)}{close}"


def _out_of_limits(value: float, about: Mapping[str, Any]) -> str:
    if not math.isfinite(value):
        return f"{value} is not a finite number"
    unit = f" {about['unit']}" if about["unit"] else ""
    tests: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("minimum", lambda limit: value < limit, "is less than the minimum of {}"),
        ("above", lambda limit: value <= limit, "must be above {}"),
        ("maximum", lambda limit: value > limit, "is greater than the maximum of {}"),
        ("below", lambda limit: value >= limit, "must be below {}"),
    )
    for key, is_out, text in tests:
        if about[key] is not None and is_out(about[key]):
            return f"{value} {text.format(f'{about[key]}{unit}')}"
    return ""


def _word(kind: type) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false", list: "list", dict: "mapping"}
    return "null" if kind is type(None) else names.get(kind, getattr(kind, "__name__", str(kind)))


def type_in_words(hint: Any) -> str:
    """A type as the docs and the help have it."""
    words = []
    for kind, of in choices_of(hint):
        if kind is Literal:
            words += [str(choice) for choice in of]
        elif kind in (list, dict):
            words.append(f"list of {type_in_words(of)}" if kind is list else f"{_word(kind)} by name")
        else:
            words.append(_word(kind))
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]


def limits_in_words(about: Mapping[str, Any]) -> str:
    """Limits of a field and their unit: "0 to 1", "above 0", "1 pixels or more"."""
    low = about["minimum"] if about["minimum"] is not None else about["above"]
    high = about["maximum"] if about["maximum"] is not None else about["below"]
    unit = f" {about['unit']}" if about["unit"] else ""
    if low is None and high is None:
        return str(about["unit"])
    low_text = "" if low is None else f"above {low:g}" if about["above"] is not None else f"{low:g}"
    high_text = "" if high is None else f"below {high:g}" if about["below"] is not None else f"{high:g}"
    if high is None:
        return f"{low_text}{unit}" + (" or more" if about["minimum"] is not None else "")
    return f"{low_text} to {high_text}{unit}".strip() if low_text else f"up to {high_text}{unit}"


def default_in_words(default: Any) -> str:
    """A default as it would be written in config.yaml."""
    if default is ABSENT:
        return "none"
    return default if isinstance(default, str) else json.dumps(default).replace('"', "")
