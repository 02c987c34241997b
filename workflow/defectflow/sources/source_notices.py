"""Notices of ingest about files of a data set that were found, passed over or read in an unusual way."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from defectflow.core.counted import counted
from defectflow.core.records import DataSet
from defectflow.label_formats.label_files import files_of
from defectflow.listing.annotation_files import is_annotation, paths
from defectflow.listing.folders import Folders
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.dataset import Notice, Problem
from defectflow.sources.dataset_entry import unread
from defectflow.sources.labels_csv import read_labels

SINGLY = 3  # JSON files of one folder up to which each is named


def link_problems(folders: Folders) -> list[Problem]:
    """Links to folders that are not followed."""
    texts = {
        "outside": "leads out of the data set (not followed: name the folder that it leads to in the entry of the data "
        "set, `links: [FOLDER]`, or copy the images)",
        "circle": "leads to a folder above it (not followed: remove it)",
        "read": "leads to photographs that are read in their own folder (not followed: remove it)",
    }
    links = sorted(folders.links.items())
    return [Problem(name, f"a link to a folder, {texts[why]}", "image") for name, why in links]


def masks_read_as_photographs(
    resolved: DataSet, rows: Mapping[str, Mapping[str, str]], names: Collection[str]
) -> list[Problem]:
    """Masks that labels.csv names (``rows``: of the photographs with one) and that are among the photographs."""
    found = {os.path.relpath(row["mask"], str(resolved["images"])).replace(os.sep, "/") for row in rows.values()}
    text = "named as a mask, and read as a photograph (move the masks into a folder called ground_truth)"
    return [Problem(name, text, "image") for name in sorted(found) if name in names]


def notices(
    resolved: DataSet,
    folders: Folders,
    told: Iterable[tuple[str, str, str]],
    names: Collection[str],
    row: Callable[[str], Mapping[str, str]],
    found: bool,
) -> list[Notice]:
    """All notices on the files of a data set.

    Args:
        resolved: the data set.
        folders: how its folders are read.
        told: the notices of `Folders.report`.
        names: of its photographs.
        row: labels of each, see `dataset.row_reader`.
        found: whether the annotation files were found by their content.
    """
    notes = [Notice(*one) for one in told]
    named = paths(resolved["annotations"])
    own = os.path.join(str(resolved.get("path") or resolved["images"]), "annotations.json")
    for path in named if found else ():
        if os.path.normpath(path) != os.path.normpath(own):
            files = files_of(path)
            kinds = " and ".join(sorted(set(files.values()))) or "COCO"
            what = f"these {len(files)} {kinds} files" if os.path.isdir(path) else f"this {kinds} file"
            text = f"outlines are read from {what}, found by {'their' if os.path.isdir(path) else 'its'} content"
            notes.append(Notice(path, f"{text} (`annotations: []` for none)"))
    notes += _of_json(unread(resolved, folders.json), named)
    if resolved["labels"]:
        labels = str(resolved["labels"])
        notes += names_in_other_case(labels, ((entry["filename"], "") for entry in read_labels(labels)), names)
    notes += _of_labels(resolved, folders, names, row)
    if table := resolved.get("feedback"):
        count = sum(bool(row(name).get("said")) for name in names)
        text = f"labels of {counted(count, 'photograph')} are what people said (its boxes are for `defectflow learn`)"
        notes.append(Notice(table, text, "verdicts"))
    return notes


def names_in_other_case(source: str, given: Iterable[tuple[str, str]], names: Collection[str]) -> list[Notice]:
    """Notices on names in a table or COCO file that are matched but differ: in letter case, or by digits before them.

    Args:
        source: the table or COCO file.
        given: (name, folder) as `match_names_to_photographs.Matcher` takes them.
        names: of all photographs.
    """
    given = list(given)
    if all(name in names for name, _ in given):
        return []
    matcher = Matcher(names, given)
    for name, folder in given:
        matcher.find(name, folder)
    notes = []
    for kind, figure, found in (
        ("differ from those of the photographs in letter case only were matched", "", matcher.recased),
        ("begin with eight digits were taken as those of uploads, not as dates", "verdicts", matcher.undated),
    ):
        if found:
            (name, meant), *others = sorted(found.items())
            many = f", and {len(others)} more" if others else ""
            notes.append(Notice(source, f"names that {kind}: {name} is {meant}{many}", figure))
    return notes


def _of_json(files: Iterable[str], named: list[str]) -> list[Notice]:
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    figure = "" if named else "masks"
    for path in files:
        by_folder[os.path.dirname(path)].append(path)
    notes = []
    for folder, listed in sorted(by_folder.items()):
        if len(listed) > SINGLY:
            text = f"{len(listed)} JSON files are not read, the first is {os.path.basename(listed[0])}"
            notes.append(Notice(folder, f"{text} (outlines are read from COCO, LabelMe and Label Studio)", figure))
            continue
        for path in listed:
            why = "no annotations of COCO (lists `images` and `annotations` with content), LabelMe or Label Studio"
            if named and is_annotation(path):
                why = f"the config names {', '.join(named)}"
            elif is_annotation(path):
                why = "the config names none"
            notes.append(Notice(path, f"not read: {why}", figure))
    return notes


def _of_labels(
    resolved: DataSet, folders: Folders, names: Iterable[str], row: Callable[[str], Mapping[str, str]]
) -> list[Notice]:
    """For a data set with labels.csv: folders called good or bad that contradict it, and masks that it omits."""
    silent, used = folders.silent(), []
    without: Counter[str] = Counter()
    against: Counter[str] = Counter()
    for name in names if resolved["labels"] or not folders.by_folder else ():
        known, folder, says = row(name), name.rpartition("/")[0], folders.row(name).get("label", "")
        used += [known["mask"]] if known["mask"] else []
        if (top := name.partition("/")[0]) in silent:
            folder, says = top, "0" if folders.is_good(top) else "1"
            without[top] += not known["label"]
        against[folder] += bool(says) and known["label"] not in ("", says)
    notes = [Notice(*one) for one in folders.unused_masks(used)]
    for folder, count in sorted((+without).items()):
        text = f"{counted(count, 'photograph')} without a label in {resolved['labels']}: unlabelled"
        notes.append(Notice(folder, text, "verdicts"))
    for folder, count in sorted((+against).items()):
        text = f"{counted(count, 'photograph')} labelled the other way in {resolved['labels']}, which counts"
        notes.append(Notice(folder, text, "verdicts"))
    return notes
