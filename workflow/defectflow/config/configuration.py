"""config.yaml checked and resolved: unknown keys named with the nearest known one, `auto` turned into a choice.

Standard library and jsonschema (a part of Snakemake) only: the Snakefile imports this module.
"""

import difflib
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from defectflow.core.files import UserError

# Options that the strategies of thresholds.py need (those of youden may be left out); a test keeps the two in step.
THRESHOLD_OPTIONS = {
    "f1_adaptive": (),
    "youden": ("max_fpr", "max_fnr"),
    "max_fpr": ("max_fpr",),
    "max_fnr": ("max_fnr",),
    "target_recall": ("recall",),
    "normal_percentile": ("percentile",),
    "normal_sigma": ("sigma",),
    "conformal": ("alpha",),
}

# Keys of earlier versions, and what they are called now.
RENAMED = {
    "pictures": "drawing",
    "clip_q": "vmax_quantile",
    "object_only": "foreground_only",
    "bank": "bank_dtype",
    "top_share": "top_fraction",
}

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


def nearest(word: str, known: list[str]) -> str:
    """'did you mean ...' or the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def typed(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """``value`` with every string that the schema wants to be a number, a truth value or null turned into one.

    Snakemake leaves what stands inside ``--config 'a={b: 2}'`` as strings, and true, false and null anywhere.
    """
    root = root or schema
    while "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target | {key: schema[key] for key in schema if key != "$ref"}
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        other = other if isinstance(other, dict) else {}
        return {key: typed(item, known.get(key, other), root) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item, schema.get("items", {}), root) for item in value]
    types = {t for s in (schema, *schema.get("anyOf", ())) for t in _as_list(s.get("type", []))}
    if isinstance(value, str) and types & {"integer", "number", "boolean", "null"}:
        for word, meant, name in (("null", None, "null"), ("true", True, "boolean"), ("false", False, "boolean")):
            if name in types and value.lower() == word:
                return meant
        for parse, name in ((int, "integer"), (int, "number"), (float, "number")):
            if name in types:
                with suppress(ValueError):
                    return parse(value)
    return value


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check ``config`` against a JSON schema.

    Raises:
        UserError: one line with the key, what is wrong with it and the remedy.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is None:
        return
    where = ".".join(str(key) for key in error.absolute_path) or "top level"
    if error.validator == "additionalProperties" and error.schema.get("additionalProperties") is False:
        known = sorted(error.schema["properties"])
        unknown = next(key for key in error.instance if key not in known)
        if unknown in RENAMED:
            raise UserError(f"config.yaml: {where}: {unknown!r} is called {RENAMED[unknown]!r} now (rename the key)")
        raise UserError(f"config.yaml: {where}: unknown key {unknown!r} ({nearest(str(unknown), known)})")
    if error.validator == "enum":
        raise UserError(
            f"config.yaml: {where}: {error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
        )
    raise UserError(f"config.yaml: {where}: {error.message}")


def check_methods(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check, before defaults are filled in, that each entry holds only keys that its method, or the rest of it, reads.

    Raises:
        UserError: one line with the key, the nearest one that the method reads, and all of these.
    """
    for section in ("segmenters", "detectors"):
        properties = schema["properties"][section]["additionalProperties"]["properties"]
        for name, entry in config[section].items():
            method = entry["method"]
            own = [key for key, about in properties.items() if method in about.get("methods", [method])]
            for key in entry:
                if key not in own:
                    where = f"config.yaml: {section}.{name}: method {method}"
                    raise UserError(f"{where} does not read {key!r} ({_own_keys(key, own)}; give it its own entry)")
    for name, entry in config["segmenters"].items():
        if entry.get("engine") == "official" and "augmentations" in entry:
            raise UserError(
                f"config.yaml: segmenters.{name}: engine official does not read 'augmentations' (its trainer varies "
                "photographs itself: leave the key out)"
            )
    for name, entry in config["isolations"].items():
        cut = entry.get("crop", False)
        if "margin" in entry and not cut:
            raise UserError(f"config.yaml: isolations.{name}: 'margin' is read with crop: true only (leave it out)")
        whole = entry["background"] == "keep" and entry.get("normalise", ["none"]) == ["none"] and not cut
        if "dilate" in entry and whole:
            raise UserError(f"config.yaml: isolations.{name}: 'dilate' is not read where nothing is cut (leave it out)")


def _own_keys(key: str, own: list[str]) -> str:
    close = difflib.get_close_matches(key, own, n=1)
    return f"{f'did you mean {close[0]!r}? ' if close else ''}it reads: {', '.join(own)}"


def threshold_of(config: Mapping[str, Any], detector: str) -> tuple[str, dict[str, float]]:
    """Strategy of the threshold and its options: those of the detector's entry, or those of the whole config."""
    entry = config["detectors"].get(detector, {})
    chosen = entry if "threshold" in entry else config
    return chosen["threshold"], chosen.get("threshold_options", {})


def check_sizes(config: Mapping[str, Any]) -> None:
    """Check that no detector cuts more out of its input than there is.

    Raises:
        UserError: one line with both sizes and the remedy.
    """
    for name, entry in config["detectors"].items():
        crop, size = entry["center_crop"], entry["image_size"]
        if crop and crop > size:
            raise UserError(
                f"config.yaml: detectors.{name}: center_crop {crop} is larger than image_size {size} "
                "(make the one smaller or the other larger)"
            )


def check_threshold(config: Mapping[str, Any]) -> None:
    """Check that the strategy of every ``threshold`` gets the options it needs, and no other.

    Raises:
        UserError: one line with the option and the remedy.
    """
    _check_options("", config)
    for name, entry in config["detectors"].items():
        if "threshold" in entry:
            _check_options(f"detectors.{name}.", entry)
        elif "threshold_options" in entry:
            raise UserError(f"config.yaml: detectors.{name}: threshold_options without threshold (set both or none)")


def _check_options(where: str, chosen: Mapping[str, Any]) -> None:
    strategy, given = chosen["threshold"], chosen.get("threshold_options", {})
    known = THRESHOLD_OPTIONS[strategy]
    for name in given:
        if name not in known:
            takes = f"takes {' and '.join(known)}" if known else "takes none"
            raise UserError(
                f"config.yaml: {where}threshold_options: {name!r} is not an option of {strategy} (it {takes})"
            )
    missing = [name for name in known if name not in given and strategy != "youden"]
    if missing:
        raise UserError(
            f"config.yaml: {where}threshold: {strategy} needs {missing[0]} "
            f"(set threshold_options: {{{missing[0]}: ...}})"
        )


def labels_needed(config: Mapping[str, Any]) -> dict[str, int]:
    """How many {"good": ..., "bad": ...} images thresholds have to be chosen on, beside the one they judge."""
    detectors = {config["detector"], *(run.get("detector", config["detector"]) for run in config.get("compare", []))}
    needed = [_labels_for(threshold_of(config, name)[1], config["review"] is not None) for name in detectors]
    return {label: max(counts[label] for counts in needed) for label in ("good", "bad")}


def _labels_for(options: Mapping[str, float], review: bool) -> dict[str, int]:
    good = int("max_fpr" in options or "percentile" in options or review)
    if "alpha" in options:
        good = math.ceil(1 / options["alpha"] - 1e-9) - 1
    elif "sigma" in options:
        good = 2
    return {"good": good, "bad": int("max_fnr" in options or "recall" in options or review)}


def shard_count(asked: int | str, images: int) -> int:
    """How many shards a data set is worked on in.

    "auto" is one for a small set, where a second job takes longer to start than it saves, otherwise 2, doubled until
    a shard holds SHARD images on average. Few doublings, since each re-runs all: another number puts the images into
    other shards.

    Raises:
        UserError: a shard, and with it a folder, would hold more than LARGEST_SHARD images.
    """
    if asked == "auto":
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
    return section[name]


def _resolve(config: Mapping[str, Any], chosen: Mapping[str, str], has_annotations: bool) -> Run:
    segmenter, isolation = chosen["segmenter"], chosen["isolation"]
    if segmenter == "auto":
        segmenter = "template" if has_annotations else "none"
    method = _entry(config, "segmenter", segmenter)["method"]
    if method != "none" and not has_annotations:
        raise UserError(
            f"config.yaml: segmenter: {segmenter!r} learns from COCO outlines and data set {chosen['dataset']!r} has "
            "none (go on without: `segmenter=none isolation=none`; or outline some photographs and put the COCO file "
            "into the folder of the data set)"
        )
    if isolation == "auto":
        isolation = "none" if method == "none" else "crop"
    entry = _entry(config, "isolation", isolation)
    if method == "none" and (entry["background"] != "keep" or entry.get("crop", False)):
        what = f"config.yaml: isolation: {isolation!r} needs masks of the part, and "
        if has_annotations:
            raise UserError(f"{what}segmenter {segmenter} makes none (set segmenter: auto, or isolation: none)")
        raise UserError(
            f"{what}data set {chosen['dataset']!r} has no outlines to learn them from (go on without: "
            "`isolation=none`; or outline some photographs and put the COCO file into the folder of the data set)"
        )
    _entry(config, "detector", chosen["detector"])
    return Run(chosen["dataset"], segmenter, isolation, chosen["detector"])
