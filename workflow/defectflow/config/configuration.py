"""config.yaml checked and resolved: unknown keys named with the nearest known one, `auto` turned into a choice.

The classes of settings all over the package say what it may hold. Standard library only: the Snakefile imports this
module.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from defectflow.config.run_settings import NAME, RunSettings
from defectflow.config.settings import Family, Settings, discover
from defectflow.config.values import meant, nearest
from defectflow.core.files import UserError

# Where classes of settings are: these modules import nothing but the standard library at the top.
MODULES = ("defectflow.*settings", "defectflow.*segmenter*", "defectflow.*strateg*")

# Two files an image, so that no folder gets 10,000: file systems and people become slow there.
ONE_SHARD, SHARD, LARGEST_SHARD = 100, 2000, 4000  # images


class Run(NamedTuple):
    """One recipe: results/{dataset}/{segmenter}/{isolation}/{detector}/."""

    dataset: str
    segmenter: str
    isolation: str
    detector: str

    @property
    def folder(self) -> str:
        """Folder of this run's results."""
        return "results/" + "/".join(self)


@functools.cache
def sections() -> dict[str, Family | type[Settings]]:
    """What describes each section of config.yaml: a class of settings, or those that its entries choose from."""
    classes = [cls for pattern in MODULES for cls in discover(pattern, Settings) if cls.section]
    kinds: dict[str, Any] = {cls.section: cls for cls in classes if "section" in vars(cls)}
    for section in sorted({cls.section for cls in classes if cls.name}):
        own = {cls.name: cls for cls in classes if cls.name and cls.section == section}
        kinds[section] = Family.of(own, "threshold" if section == "threshold_options" else "method")
    return kinds


def family(section: str) -> Family:
    """The classes that the entries of a section choose from, by their names."""
    kind = sections()[section]
    assert isinstance(kind, Family), f"{section} has one class"
    return kind


def strategies() -> Family:
    """The classes of the strategies of thresholds, by their names."""
    return family("threshold_options")


def has_names(section: str) -> bool:
    """Whether a section of the config holds entries by name."""
    kind = sections()[section]
    return isinstance(kind, Family) or kind.by_name


class Checked(NamedTuple):
    """A config that has been checked.

    Attributes:
        config: as it was given, with numbers and truth values for texts that mean them, and all defaults.
        settings: of each section but threshold_options its settings, or those of its entries by name.
    """

    config: dict[str, Any]
    settings: dict[str, Any]


def checked(config: Mapping[str, Any]) -> Checked:
    """Check each key and value of a config.

    Raises:
        UserError: one line with the key, what is wrong with it and the remedy.
    """
    kinds = {name: kind for name, kind in sections().items() if name != "threshold_options"}
    own, given = RunSettings.own_keys(), {key: value for key, value in config.items() if key not in kinds}
    for key in given:
        for name, kind in kinds.items():
            if not isinstance(kind, Family) and kind.formerly == key:
                raise UserError(f"config.yaml: top level: {key!r} is called {name!r} now (rename the key)")
        if key not in own:
            raise UserError(f"config.yaml: top level: unknown key {key!r} ({nearest(str(key), [*own, *kinds])})")
    top = RunSettings.from_dict(given, "config.yaml")
    complete, settings = top.completed(given), dict[str, Any]()
    for name, kind in kinds.items():
        where = f"config.yaml: {name}"
        if has_names(name) and name not in config:
            raise UserError(f"config.yaml: top level: {name!r} is a required property (a section of entries by name)")
        content = config.get(name, {})
        if not isinstance(content, Mapping):
            raise UserError(f"{where}: {content!r} is not a mapping")
        if not has_names(name):
            settings[name] = kind.from_dict(content, where)
            complete[name] = settings[name].completed(content)
            continue
        settings[name], complete[name] = {}, {}
        for entry, values in content.items():
            if not re.fullmatch(NAME, str(entry)):
                raise UserError(f"{where}: {entry!r} is no name for an entry (letters, digits, and _ . + - inside)")
            if not isinstance(values, Mapping):
                raise UserError(f"{where}.{entry}: {values!r} is not a mapping")
            found = kind.from_dict(values, f"{where}.{entry}")
            settings[name][entry], complete[name][entry] = found, found.completed(values)
    _check_threshold(complete, "")
    for name, entry in complete["detectors"].items():
        if "threshold" in entry:
            _check_threshold(entry, f"detectors.{name}.")
        elif "threshold_options" in entry:
            raise UserError(f"config.yaml: detectors.{name}: threshold_options without threshold (set both or none)")
    return Checked(complete, settings)


def _check_threshold(chosen: dict[str, Any], where: str) -> None:
    """Check a strategy and its options, and turn texts among these into numbers."""
    classes, name = strategies().classes, chosen["threshold"]
    if name not in classes:
        known = ", ".join(classes)
        raise UserError(f"config.yaml: {where}threshold: {name!r} is not one of {known}{meant(name, classes)}")
    options = chosen.get("threshold_options", {})
    found = classes[name].from_dict(options, f"config.yaml: {where}threshold_options")
    if "threshold_options" in chosen:
        chosen["threshold_options"] = {key: getattr(found, key) for key in options}


def threshold_of(config: Mapping[str, Any], detector: str, main: bool = True) -> tuple[str, dict[str, float]]:
    """Strategy of the threshold and its options: those of the detector's entry, or those of the whole config.

    ``main``: whether it is for the run that the config asks for first. A fixed threshold is one on the scale of its
    scores; the runs it is compared with choose theirs.
    """
    entry = config["detectors"].get(detector, {})
    chosen = entry if "threshold" in entry else config
    if chosen["threshold"] == "fixed" and not main:
        return "auto", {}
    return chosen["threshold"], chosen.get("threshold_options", {})


def threshold_settings(config: Mapping[str, Any], detector: str, main: bool = True) -> dict[str, Any]:
    """The strategy of a detector and its options, as the stage `evaluate` reads them; ``main``: see `threshold_of`."""
    strategy, options = threshold_of(config, detector, main)
    return {"threshold": strategy} | dict(sorted(options.items()))


def shown_settings(config: Mapping[str, Any], run: Any, main: bool = True) -> dict[str, Any]:
    """The settings behind a run (a `Run`, or the wildcards of a job) that its report shows; see `threshold_of`."""
    shown: dict[str, Any] = {}
    for kind in ("segmenter", "isolation", "detector"):
        name = getattr(run, kind)
        shown[kind] = {"entry": name, **config[f"{kind}s"][name]}
    strategy, options = threshold_of(config, run.detector, main)
    shown["threshold"] = " ".join((strategy, *(f"{name}={value}" for name, value in sorted(options.items()))))
    return shown | {key: config[key] for key in ("review", "folds", "augmentation", "seed")}


def labels_needed(config: Mapping[str, Any]) -> dict[str, int]:
    """How many {"good": ..., "bad": ...} images thresholds have to be chosen on, beside the one they judge."""
    detectors = {config["detector"], *(run.get("detector", config["detector"]) for run in config.get("compare", []))}
    needed = []
    for strategy, options in (threshold_of(config, name) for name in detectors):
        needed.append(strategies().classes[strategy].from_dict(options, "").labels_needed())
    least = int(config["review"] is not None)
    return {label: max(least, *(counts[label] for counts in needed)) for label in ("good", "bad")}


def shard_count(asked: int | str, images: int) -> int:
    """How many shards a data set is worked on in.

    "auto" is one for a small set, where a second job takes longer to start than it saves, otherwise 2, doubled until
    a shard holds SHARD images on average. Few doublings, since each re-runs all: another number puts the images into
    other shards.

    Raises:
        UserError: a shard, and with it a folder, would hold more than LARGEST_SHARD images.
    """
    if isinstance(asked, str):
        count = 1 if images <= ONE_SHARD else 2
        while images > SHARD * count:
            count *= 2
        return count
    if images > LARGEST_SHARD * asked:
        least = math.ceil(images / SHARD)
        raise UserError(
            f"config.yaml: shards: {asked} puts {math.ceil(images / asked):,} images into a folder (set shards: auto, "
            f"or {least} or more)"
        )
    return asked


def rendered_labels(entry: Mapping[str, Any]) -> dict[str, int]:
    """How many {"good": ..., "bad": ...} images of a rendered data set have a label (a test asks the renderer)."""
    return {"good": round(0.7 * entry["rendered"]["views"]), "bad": entry["rendered"]["defects"]}


def resolve_runs(config: Mapping[str, Any], has_annotations: bool) -> list[Run]:
    """The run that the config asks for, then those of ``compare``, each once.

    Args:
        config: a config that has passed check_schema.
        has_annotations: whether the data set comes with COCO annotations.

    Raises:
        UserError: a name without an entry, a segmenter without annotations, an isolation without masks.
    """
    for key in ("dataset", "detector"):
        _entry(config, key, config[key])
    runs = [_resolve(config, config, has_annotations)]
    for extra in config.get("compare", []):
        merged = {key: config[key] for key in ("dataset", "segmenter", "isolation", "detector")} | dict(extra)
        run = _resolve(config, merged, has_annotations)
        if run not in runs:
            runs.append(run)
    return runs


def _entry(config: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    section = config[f"{key}s"]
    if name not in section:
        raise UserError(f"config.yaml: {key}: no entry {name!r} in {key}s ({nearest(name, sorted(section))})")
    entry: Mapping[str, Any] = section[name]
    return entry


def _resolve(config: Mapping[str, Any], chosen: Mapping[str, str], has_annotations: bool) -> Run:
    segmenter, isolation = chosen["segmenter"], chosen["isolation"]
    if segmenter == "auto":
        whole = config["datasets"].get(chosen["dataset"], {}).get("part") == "whole"
        segmenter = "none" if whole else "template" if has_annotations else "found"
    method = _entry(config, "segmenter", segmenter)["method"]
    if not has_annotations and family("segmenters").classes[method].needs_outlines:
        raise UserError(
            f"config.yaml: segmenter: {segmenter!r} learns from COCO outlines and data set {chosen['dataset']!r} has "
            "none (go on without: `segmenter=none isolation=none`; or outline some photographs and put the COCO file "
            "into the folder of the data set)"
        )
    kind = family("segmenters").classes[method]
    if isolation == "auto":
        # A window is as large as the largest part: of parts that nobody has drawn, one wrong mask would make it.
        isolation = "none" if method == "none" else "zero_out" if kind.finds or kind.prompts else "crop"
        detector = _entry(config, "detector", chosen["detector"])
        if family("detectors").classes[detector["method"]].measures_outlines:  # against what is around the part
            isolation = "none"
    entry = _entry(config, "isolation", isolation)
    if method == "none" and (entry["background"] != "keep" or entry.get("crop", False) or entry.get("tight")):
        what = f"config.yaml: isolation: {isolation!r} needs masks of the part, and "
        if has_annotations:
            raise UserError(f"{what}segmenter {segmenter} makes none (set segmenter: auto, or isolation: none)")
        raise UserError(
            f"{what}data set {chosen['dataset']!r} has no outlines to learn them from (go on without: "
            "`isolation=none`; or outline some photographs and put the COCO file into the folder of the data set)"
        )
    if kind.prompts and entry.get("crop", False):
        raise UserError(
            f"config.yaml: isolation: {isolation!r} cuts one window that fits the largest part of the set, and "
            f"segmenter {segmenter!r} looks at each photograph by itself (set isolation: zero_out, or tight)"
        )
    _entry(config, "detector", chosen["detector"])
    return Run(chosen["dataset"], segmenter, isolation, chosen["detector"])
