"""The most important settings as questions with answers, and the settings of config.yaml behind them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from defectflow.config.configuration import checked
from defectflow.core.files import UserError
from defectflow.desk import config_file
from defectflow.desk.project import ROOT, Project


class Option(NamedTuple):
    """One answer to a question.

    Attributes:
        name: for the API.
        words, more: what it means, in a line and in a sentence; in English, translated by the catalogs.
        values: of config.yaml, {a key at the top, or SECTION.ENTRY.KEY: value}.
        share: key of a value that is a share, which the user may choose ("": none).
        shares: the choices for it.
    """

    name: str
    words: str
    more: str
    values: Mapping[str, Any]
    share: str = ""
    shares: tuple[float, ...] = ()

    @property
    def default_share(self) -> float | None:
        """The share that is offered first."""
        share: float | None = self.values["threshold_options"][self.share] if self.share else None
        return share


class Question(NamedTuple):
    """A question with its answers; the first is the default."""

    name: str
    words: str
    options: tuple[Option, ...]


SHARES = (0.01, 0.02, 0.05, 0.1)
QUESTIONS = (
    Question(
        "error",
        "What does an error cost?",
        (
            Option(
                "balanced", "Both errors cost about the same",
                "Misses and false alarms have equal weight. With few bad photographs: at most about 5 % false alarms.",
                {"threshold": "auto", "threshold_options": {}},
            ),
            Option(
                "miss", "Missed defects cost more",
                "At most this share of bad parts is called good, with as few false alarms as that allows. It needs "
                "photographs that are labelled bad.",
                {"threshold": "max_fnr", "threshold_options": {"max_fnr": 0.02}}, "max_fnr", SHARES,
            ),
            Option(
                "alarm", "False alarms cost more",
                "At most this share of good parts is called bad, with as few misses as that allows.",
                {"threshold": "max_fpr", "threshold_options": {"max_fpr": 0.05}}, "max_fpr", SHARES,
            ),
            Option(
                "good_only", "There are only good photographs",
                "At most about this share of good parts is called bad. How many defects are missed is unknown.",
                {"threshold": "tail", "threshold_options": {"alpha": 0.05}}, "alpha", SHARES,
            ),
        ),
    ),
    Question(
        "review",
        "Should a person decide doubtful cases?",
        (
            Option("no", "No, every photograph is called good or bad", "", {"review": None}),
            Option(
                "yes", "Yes, photographs near the threshold go to a person",
                "At most 2 % of good parts are called bad without a check, and at most 2 % of bad ones good.",
                {"review": {"max_fpr": 0.02, "max_fnr": 0.02}},
            ),
        ),
    ),
    Question(
        "speed",
        "Speed or thoroughness?",
        (
            Option(
                "standard", "Standard", "512 pixels: finds defects from about 1/100 of the part's width.",
                {"detectors.patchcore.image_size": 512},
            ),
            Option(
                "fast", "Fast", "256 pixels: four times faster, enough for large defects.",
                {"detectors.patchcore.image_size": 256},
            ),
            Option(
                "thorough", "Thorough", "512 and 256 pixels together: small and large defects; the slowest.",
                {"detectors.patchcore.image_size": [512, 256]},
            ),
        ),
    ),
)  # fmt: skip


def workflow_config() -> dict[str, Any]:
    """The config.yaml of the workflow."""
    return config_file.read(ROOT / "config.yaml")


def effective(project: Project) -> dict[str, Any]:
    """The config of a run of the folder: the workflow's config.yaml, overridden by that of the folder."""
    return merged(workflow_config(), project.settings())


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping updated by another one; nested mappings are merged too."""
    found = dict(copy.deepcopy(base))
    for key, value in over.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """A value by its path: a key at the top, or SECTION.ENTRY.KEY; None where it is not given."""
    found: Any = config
    for key in _steps(path):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def change(project: Project, values: Mapping[str, Any]) -> None:
    """Write settings into config.yaml if a run accepts the resulting config.

    Args:
        project: the folder.
        values: {path as for `value_at`: value}; values equal to those of the workflow's config.yaml are not written.

    Raises:
        UserError: a value is invalid; the file is not changed.
    """
    with project.lock:
        base, own = workflow_config(), project.settings()
        new: dict[str, Any] = copy.deepcopy(own)
        for path, value in values.items():
            _set(new, _steps(path), value, value_at(base, path))
        # Options of a strategy must not be mixed with those of another one in the workflow's own file.
        checked(merged(base, new))
        project.change_settings({key: new.get(key) for key in {*own, *new} if new.get(key) != own.get(key)})


def answers(project: Project) -> dict[str, dict[str, Any]]:
    """The answers that match config.yaml: {question: {option, share}}; option "own": none of those offered."""
    config = effective(project)
    return {question.name: _answer(question, config) for question in QUESTIONS}


def answer(project: Project, question: str, option: str, share: float | None = None) -> None:
    """Write the settings of an answer into config.yaml.

    Raises:
        UserError: there is no such question or option, or the share is not between 0 and 1.
    """
    for asked in QUESTIONS:
        for offered in asked.options:
            if (asked.name, offered.name) == (question, option):
                values = copy.deepcopy(dict(offered.values))
                if offered.share and share is not None:
                    if not 0 < share < 1:
                        raise UserError(f"{share}: a share is more than 0 % and less than 100 %")
                    values["threshold_options"] = {offered.share: share}
                return change(project, values)
    raise UserError(f"{question[:40]}, {option[:40]}: no such choice")


def _answer(question: Question, config: Mapping[str, Any]) -> dict[str, Any]:
    for option in question.options:
        given = {path: value_at(config, path) for path in option.values}
        share = (given.get("threshold_options") or {}).get(option.share) if option.share else None
        expected = dict(option.values)
        if isinstance(share, int | float):
            expected["threshold_options"] = {option.share: share}
        if given == expected:
            return {"option": option.name, "share": share}
    return {"option": "own", "share": None}


def _set(config: dict[str, Any], steps: list[str], value: Any, default: Any) -> None:
    """Set a value, or remove it if it equals the default."""
    *above, last = steps
    if value == default and type(value) is type(default):
        inner: Any = config
        for key in above:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)
            if above and not inner:  # no empty mappings are left
                _set(config, above, None, None)
        return
    for key in above:
        config = config.setdefault(key, {})
    config[last] = value


def _steps(path: str) -> list[str]:
    """Steps of a path; names of entries may have dots."""
    first, *rest = path.split(".")
    return [first, ".".join(rest[:-1]), rest[-1]] if len(rest) > 1 else path.split(".")
