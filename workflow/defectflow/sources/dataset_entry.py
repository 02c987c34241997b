"""Resolve an entry of `datasets:` in the config: where its photographs, outlines and labels are.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from defectflow.core.files import UserError, nearest_path
from defectflow.core.records import DataSet
from defectflow.label_formats.label_files import files_of
from defectflow.listing import annotation_files
from defectflow.listing.archives import is_archive, unpack, unpacked
from defectflow.listing.folders import SIDES, plain, subfolders, tells_labels


def resolve(entry: Mapping[str, Any]) -> DataSet:
    """Turn an entry of ``datasets:`` into the paths it means.

    Args:
        entry: ``path`` (a folder whose subfolders give the labels, as in MVTec, or one with images/ and optionally a
            COCO file and labels.csv) or ``images``, ``annotations`` (one, a list, [] for none), ``labels``,
            each overriding; ``category``; ``good``: further names of folders of good photographs; ``links``: folders
            elsewhere that links may lead to; ``feedback``: table of what people said about verdicts.

    Returns:
        layout ("mvtec": folders give the labels; or "coco"), images (folder; for mvtec the root), path, annotations (a
        path, a list of several, None), labels, category (None: absent), good, links, found (whether the annotations
        were looked for).

    Raises:
        UserError: neither ``path`` nor ``images`` is given, or it is an archive; several files are called labels.csv.
    """
    root = entry.get("path")
    images = entry.get("images")
    if not (root or images):
        raise UserError("datasets: an entry has neither `path` nor `images` (give the folder of the photographs)")
    for path in (root, images):
        if path and is_archive(path) and os.path.isfile(path):
            into = unpacked(path)
            raise UserError(f"{path}: an archive, not a folder ({unpack(path, into)}, and give {into} instead)")
    labels, good = entry.get("labels"), list(entry.get("good") or ())
    if root:
        labels = labels or _labels_in(root)
        if not images:
            inside = next((path for name, path in subfolders(root).items() if plain(name) == "images"), None)
            images = inside if inside and not tells_labels(root, good, labels) else root
    if "labels" not in entry:
        labels = _labels_in(*{os.path.normpath(folder): folder for folder in (images, root) if folder}.values())
    annotations, found = annotation_files.paths(entry.get("annotations")), entry.get("annotations") is None
    if found:
        annotations = annotation_files.find(root, images).annotations
    return {
        "layout": "mvtec" if tells_labels(images, good, labels) else "coco",
        "images": str(images),
        "path": root,
        "annotations": annotations if len(annotations) > 1 else annotations[0] if annotations else None,
        "labels": labels,
        "category": entry.get("category"),
        "good": good,
        "links": list(entry.get("links") or ()),
        "found": found,
        "unlabelled": entry.get("unlabelled", "auto"),
        "feedback": entry.get("feedback"),
    }


def _labels_in(*folders: str) -> str | None:
    """Path of the labels.csv in these folders, whatever its letter case; None where there is none."""
    found = []
    for folder in folders:
        with suppress(OSError):
            found += [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.lower() == "labels.csv"]
    if len(found) > 1:
        raise UserError(
            f"{found[0]} and {found[1]}: which one has the labels? (say so in the entry of the data set: "
            f"`labels: {found[0]}`)"
        )
    return found[0] if found else None


def check_paths(resolved: DataSet) -> None:
    """Raise a UserError for the first file or folder of the entry that does not exist, with the nearest name."""
    named = {"annotations": annotation_files.paths(resolved["annotations"]), "links": resolved.get("links") or []}
    named["labels"] = [resolved["labels"]] if resolved["labels"] else []
    told = resolved.get("feedback")
    named["feedback"] = [told] if told else []
    for key, files in named.items():
        for path in files:
            if not os.path.exists(path):
                what = "folder" if key == "links" else "file"
                raise UserError(f"{path}: no such {what}{nearest_path(path)} (correct `{key}` of the data set)")


def way_out(resolved: DataSet, some: str) -> str:
    """The remedy for a data set with too few photographs labelled good; ``some``: the name of any photograph."""
    folder = resolved["images"]
    needed = "the detector learns from at least 2"
    tops = subfolders(folder)
    below = [path for path in tops.values() if tells_labels(path)]
    if below:
        others = ", or `categories: all` for each folder like it" if len(below) > 1 else ""
        return f"{needed} (the folder below it has good ones: set `path: {below[0]}`{others})"
    kinds: dict[str, list[str]] = {side: [] for side in ("train", "val", "test")}
    for top, path in tops.items():
        kinds.get(SIDES.get(plain(top), ""), []).extend(subfolders(path))
    if (names := kinds["train"] or kinds["val"] or kinds["test"]) and not resolved["labels"]:
        which = "say in the entry of the data set which folders contain good photographs"
        return f"{needed} ({which}: `good: [{names[0]}]`" + (f"; or {', '.join(names[1:])})" if names[1:] else ")")
    if resolved["labels"]:
        others = "`unlabelled: learn` in the entry of the data set takes those without a label as mostly good"
        return f"{needed} (give good photographs the label 0 there, one line for each: `{some},0`; or {others})"
    labels = os.path.join(resolved.get("path") or folder, "labels.csv")
    good, bad = os.path.join(folder, "good"), os.path.join(folder, "bad")
    return (
        f"{needed} (move good ones into {good}, bad ones into {bad}; or write {labels}: a line `filename,label`, then "
        f"one for each: `{some},0` if it is good, `{some},1` if it is bad)"
    )


def unread(resolved: DataSet, among: Iterable[str]) -> list[str]:
    """Paths of annotations and other JSON files of a data set that are not read, sorted.

    ``among``: names of JSON files among its images.
    """
    found = annotation_files.find(resolved.get("path"), resolved["images"])
    paths = [*found.annotations, *found.others, *(os.path.join(str(resolved["images"]), name) for name in among)]
    sources = annotation_files.paths(resolved["annotations"])
    read = {os.path.realpath(path) for one in sources for path in (one, *files_of(one))}
    by_file = {os.path.realpath(path): path for path in reversed(paths)}
    return sorted(path for real, path in by_file.items() if real not in read)
