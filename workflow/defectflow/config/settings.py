"""Settings of one thing (a method, a stage) as a frozen dataclass: each field has its default, limits, unit and a line.

The config, its checks, `--settings` of a stage with its help, the JSON schema and docs/configuration.md all follow from
the classes. Standard library only, no msgspec or pydantic: under `--sdm conda` the Snakefile, which reads the classes,
runs in whatever Python the user's Snakemake has, and modules with settings import nothing else at the top.
"""

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Self

from defectflow.config.values import ABSENT, REQUIRED, as_floats, meant, nearest, problem_of, typed
from defectflow.core.files import UserError

PACKAGE = Path(__file__).parents[1]
Base = typing.TypeVar("Base")


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    pattern: str = "",
    least: int = 0,
    distinct: bool = False,
    stage: str = "",
    formerly: str = "",
    read_if: Callable[[Any], bool] | None = None,
    refused: str = "",
    nested: type | None = None,
) -> Any:
    """A field of a class of settings.

    Args:
        default: its value where it is not given; REQUIRED, or ABSENT: None, and left out of what is written.
        description: one line, for the help and the docs.
        unit: of a number, e.g. "pixels".
        minimum, above, maximum, below: limits of a number, or of each in a list; `above` and `below` are excluded.
        pattern: regular expression that a whole text has to match.
        least: items of a list at least.
        distinct: whether no item of a list may come twice.
        stage: the stages that read it, e.g. "fit calibrate"; see `Settings.read_by`.
        formerly: what an earlier version called it; that is refused, with the new name.
        read_if: of the settings: whether any stage reads it, beside other fields that make it of no use.
        refused: why a config that gives it nevertheless is refused; "": it is not.
        nested: class of settings of a value that is a mapping, or of each item of a list.
    """
    about = {
        "default": default, "description": description, "unit": unit, "minimum": minimum, "above": above,
        "maximum": maximum, "below": below, "pattern": pattern, "least": least, "distinct": distinct,
        "stages": tuple(stage.split()), "formerly": formerly, "read_if": read_if,
        "refused": refused, "nested": nested,
    }  # fmt: skip
    if default is REQUIRED:
        return dataclasses.field(metadata=about)
    value = None if default is ABSENT else default
    # A factory leaves no attribute on the class: what a stage does not read is then really not there, see `only_for`.
    return dataclasses.field(default_factory=lambda: value, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings.

    Attributes of a class:
        name: value of ``method`` (or of ``threshold``) that stands for it; "" where there is but one class.
        section: part of config.yaml that it describes.
        by_name: whether that part holds entries by name, each of which the class describes.
        formerly: what an earlier version called the part.
        fixed: fields of a base class that are no keys here, and their value.
    """

    name: ClassVar[str] = ""
    section: ClassVar[str] = ""
    by_name: ClassVar[bool] = False
    formerly: ClassVar[str] = ""
    fixed: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        for name, value in self.fixed.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in types_of(type(self)):
            raise AttributeError(f"{name} is not read by this stage: name the stage in its `setting(stage=...)`")
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @classmethod
    def own_keys(cls) -> list[str]:
        """Names of the fields that may be given."""
        return [field.name for field in dataclasses.fields(cls) if field.name not in cls.fixed]

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], where: str, refuse: bool = True) -> Self:
        """The settings that are given, and the defaults of all others.

        Args:
            where: beginning of a message, e.g. "config.yaml: regions".
            refuse: whether to refuse values that others make of no use, see `setting`; a bundle has all of them.

        Raises:
            UserError: one line with the key and the remedy.
        """
        strange = [key for key in given if key not in cls.own_keys()]
        if strange:
            raise UserError(f"{where}: {cls._strange(str(strange[0]))}")
        dot = ": " if where == "config.yaml" else "."
        values = {key: checked(f"{where}{dot}{key}", value, cls, key) for key, value in given.items()}
        for field in dataclasses.fields(cls):
            if field.metadata["default"] is REQUIRED and field.name not in {*given, *cls.fixed}:
                raise UserError(f"{where}: {cls._missing(field)}")
        made = cls(**values)
        for field in dataclasses.fields(cls):
            if refuse and field.metadata["refused"] and field.name in given and not made._is_read(field):
                raise UserError(f"{where}: {field.metadata['refused']}")
        made.check(where)
        return made

    @classmethod
    def _strange(cls, key: str) -> str:
        return cls.renamed(key) or f"unknown key {key!r} ({nearest(key, cls.own_keys())})"

    @classmethod
    def _missing(cls, field: dataclasses.Field[Any]) -> str:
        return f"{field.name!r} is a required property ({field.metadata['description']})"

    @classmethod
    def renamed(cls, key: str) -> str:
        """What to say of a key of an earlier version, or ""."""
        new = [field.name for field in dataclasses.fields(cls) if key and field.metadata["formerly"] == key]
        return f"{key!r} is called {new[0]!r} now (rename the key)" if new else ""

    def check(self, where: str) -> None:
        """Check what several fields say together.

        Raises:
            UserError: one line that begins with ``where``.
        """

    def read_by(self, *stages: str) -> dict[str, Any]:
        """The values that these stages read: the params of their rules, so that another value re-runs them alone."""
        read = [field for field in dataclasses.fields(self) if set(stages) & set(field.metadata["stages"])]
        values = {field.name: getattr(self, field.name) for field in read if self._is_read(field)}
        absent = {field.name for field in read if field.metadata["default"] is ABSENT}
        return {key: value for key, value in values.items() if value is not None or key not in absent}

    def only_for(self, *stages: str) -> Self:
        """A copy without what these stages do not read: to use it there is an AttributeError and no silent default."""
        copy = object.__new__(type(self))
        for field in dataclasses.fields(self):
            if set(stages) & set(field.metadata["stages"]):
                value = getattr(self, field.name)
                object.__setattr__(copy, field.name, as_floats(value, types_of(type(self))[field.name]))
        return copy

    def _is_read(self, field: dataclasses.Field[Any]) -> bool:
        return field.metadata["read_if"] is None or bool(field.metadata["read_if"](self))

    def completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given``, in its order, and the defaults of what is not in it."""
        return {
            **{key: self._completed(key, given[key]) for key in given},
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
                if field.name not in {*given, *self.fixed} and field.metadata["default"] is not ABSENT
            },
        }

    def _completed(self, key: str, given: Any) -> Any:
        field = next((field for field in dataclasses.fields(self) if field.name == key), None)
        value = getattr(self, key, given)
        of = field.metadata["nested"] if field else None
        if of and isinstance(value, dict):
            return of.from_dict(value, key).completed(value)
        return [of.from_dict(item, key).completed(item) for item in value] if of and isinstance(value, list) else value


class Family:
    """Classes of settings of which an entry chooses one by its name, e.g. the methods of the detectors.

    Args:
        pattern: dotted names of the modules where they are (`defectflow.methods.*settings`); `code_hash` follows it.
        base: what they inherit.
        key: where an entry names its class.
    """

    def __init__(self, pattern: str, base: type, key: str = "method") -> None:
        self.key, self._pattern, self._base = key, pattern, base

    @classmethod
    def of(cls, classes: Mapping[str, type[Settings]], key: str) -> Self:
        """A family of classes that are found already."""
        made = cls("", Settings, key)
        made.classes = dict(classes)
        return made

    @functools.cached_property
    def classes(self) -> dict[str, type[Any]]:
        """The classes by their names."""
        found: list[type[Any]] = discover(self._pattern, self._base)
        return {cls.name: cls for cls in found if cls.name}

    def class_of(self, entry: Mapping[str, Any], where: str) -> type[Any]:
        """The class that an entry asks for.

        Raises:
            UserError: it names none, or one that is not there.
        """
        if self.key not in entry:
            raise UserError(f"{where}: {self.key!r} is a required property (one of {', '.join(self.classes)})")
        name = entry[self.key]
        if name not in self.classes:
            raise UserError(
                f"{where}.{self.key}: {name!r} is not one of {', '.join(self.classes)}{meant(name, self.classes)}"
            )
        return self.classes[name]

    def from_dict(self, entry: Mapping[str, Any], where: str) -> Any:
        """Settings of the class that an entry asks for; see `Settings.from_dict`."""
        cls = self.class_of(entry, where)
        given = {key: value for key, value in entry.items() if key != self.key}
        for key in given:
            if key not in cls.own_keys():
                raise UserError(f"{where}: {self._foreign(str(key), cls)}")
        return cls.from_dict(given, where)

    def _foreign(self, key: str, cls: type[Any]) -> str:
        for other in (cls, *self.classes.values()):
            if told := other.renamed(key):
                return str(told)
        own = [self.key, *cls.own_keys()]
        close = meant(key, own)[2:]
        what = f"{close + ' ' if close else ''}it reads: {', '.join(own)}"
        if any(key in other.own_keys() for other in self.classes.values()):
            return f"{self.key} {cls.name} does not read {key!r} ({what}; give it its own entry)"
        return f"unknown key {key!r} ({what})"


def types_of(cls: type) -> dict[str, Any]:
    """Type of each field of a class of settings."""
    return _types_of(cls)


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def discover(pattern: str, base: type[Base]) -> list[type[Base]]:
    """Subclasses of ``base`` in the modules of this package whose dotted names match, in the order of these names."""
    found: list[type[Base]] = []
    steps = pattern.split(".")[1:]
    for path in sorted(PACKAGE.joinpath(*steps[: _wild(steps)]).rglob("*.py")):
        name = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        if fnmatchcase(name, pattern):
            module = importlib.import_module(name)
            own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]
            found += [cls for cls in own if cls.__module__ == name]
    return found


def _wild(steps: Sequence[str]) -> int:
    return next((i for i, step in enumerate(steps) if "*" in step), len(steps) - 1)


def checked(where: str, value: Any, cls: type, key: str) -> Any:
    """A value of a field, with its type, within its limits.

    Raises:
        UserError: it is not; one line that begins with ``where``.
    """
    field = next(field for field in dataclasses.fields(cls) if field.name == key)
    hint = types_of(cls)[key]
    value = typed(value, hint)
    problem = problem_of(value, hint, field.metadata)
    if problem:
        raise UserError(f"{where}: {problem}")
    if of := field.metadata["nested"]:
        for item in value if isinstance(value, list) else [value] if value is not None else []:
            of.from_dict(item, where)
    return value
