"""Checks of a data set before anything is computed: where it is, whether it is valid, what changed.

Standard library only: the Snakefile calls this at parse time, in every dry run.
"""

import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from defectflow.core.files import UserError
from defectflow.core.records import DataSet
from defectflow.label_formats.label_files import files_of, lists_of
from defectflow.listing import annotation_files
from defectflow.listing.folders import Folders
from defectflow.listing.image_names import image_ids, shard_of
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources import passed_over
from defectflow.sources.annotation_kinds import is_outline, refuse_several
from defectflow.sources.dataset import Problem, category_ids, image_paths, image_rows, read_coco
from defectflow.sources.dataset_entry import check_paths, unread, way_out
from defectflow.sources.dataset_entry import resolve as resolve
from defectflow.sources.digest_cache import digests_of, file_digests, read_cache, write_cache
from defectflow.sources.unlabelled import check_unlabelled, learns_from_unlabelled


def check(resolved: DataSet, on_problem: str = "stop", cache: str | Path | None = None) -> None:
    """Raise a UserError for any problem of a data set that shows without opening an image.

    Args:
        resolved: what ``resolve`` returned.
        on_problem: with "leave_out", rows of labels.csv that match no image are not an error.
        cache: see ``file_digests``; a COCO file that was checked before is not read again.
    """
    check_paths(resolved)
    data = _listing(_key(resolved))
    rows, problems = data.rows, data.problems
    if resolved["annotations"]:
        _outline_digests(resolved, data.paths, cache)
    if problems and on_problem == "stop":
        more = f" and {len(problems) - 1} more like it" if len(problems) > 1 else ""
        raise UserError(f"{problems[0].file}: {problems[0].text}{more} (correct it, or set on_problem: leave_out)")
    source = resolved["labels"] or resolved["images"]
    fixed = any(row["split"] for row in rows.values())
    if fixed and (loose := sorted(n for n, row in rows.items() if row["label"] and not row["split"])):
        raise UserError(f"{source}: {loose[0]} has a label and no split (fill column split for every labelled image)")


def check_learnable(resolved: DataSet, calibration: Mapping[str, int] | None = None) -> None:
    """Raise a UserError if too few images are labelled to learn from and to judge.

    At least two images must be labelled good (one if the data set fixes train and test), unless those without a label
    are learned from.

    Args:
        resolved: what ``resolve`` returned.
        calibration: {"good": n, "bad": n}, labelled images needed to choose a threshold, besides the one it judges.
    """
    data = _listing(_key(resolved))
    rows, source = data.rows, resolved["labels"] or resolved["images"]
    fixed = any(row["split"] for row in rows.values())
    if learns_unlabelled(resolved):
        check_unlabelled(resolved, rows)
        bad = sum(row["label"] == "1" for row in rows.values())
        return check_labels(str(source), {"good": len(rows) - bad, "bad": bad}, calibration or {})
    good = sum(row["label"] == "0" and row["split"] != "test" for row in rows.values())
    if good < (1 if fixed else 2):
        raise UserError(f"{source}: {good} images are labelled good, and {way_out(resolved, next(iter(data.paths)))}")
    judged = [row["label"] for row in rows.values() if row["split"] != "train"]
    check_labels(str(source), {"good": judged.count("0"), "bad": judged.count("1")}, calibration or {})


def check_labels(source: str, judged: Mapping[str, int], calibration: Mapping[str, int]) -> None:
    """Raise a UserError if too few images are labelled to choose a threshold for each of them.

    Args:
        source: what the message names.
        judged: {"good": n, "bad": n}, labelled images to be judged.
        calibration: {"good": n, "bad": n}, those needed to choose a threshold, besides the one it judges.
    """
    for kind, least in calibration.items():
        if least and judged[kind] <= least:
            raise UserError(
                f"{source}: {judged[kind]} images to be judged are labelled {kind}, and a threshold is chosen on at "
                f"least {least} others (label more, or change threshold or review in config.yaml: docs/verdicts.md)"
            )


def learns_unlabelled(resolved: DataSet) -> bool:
    """Whether the photographs without a label are learned from; see `unlabelled.learns_from_unlabelled`."""
    return learns_from_unlabelled(resolved, _listing(_key(resolved)).rows.values())


def count(resolved: DataSet) -> int:
    """Number of images of a data set."""
    return len(_listing(_key(resolved)).paths)


def outlined(resolved: DataSet, cache: str | Path | None) -> int:
    """How many photographs of a data set have an outline (of the category) to learn masks from; boxes do not count."""
    return _outlined(_key(resolved), str(cache) if cache else None)


def marked(resolved: DataSet) -> int:
    """How many bad photographs of a data set have a ground-truth mask."""
    rows = _listing(_key(resolved)).rows.values()
    return sum(row["label"] == "1" and bool(row["mask"]) for row in rows)


def images_digest(
    resolved: DataSet,
    cache: str | Path | None,
    shard: tuple[int, int] | None = None,
    labels: bool = False,
    annotated_only: bool = False,
    annotations: bool = False,
) -> str:
    """Short hash of everything a stage reads from a data set: it changes exactly when the stage has to run again.

    It always covers names and contents of the images. The data set is read once per process (``forget()`` undoes that).

    Args:
        resolved: what ``resolve`` returned.
        cache: see ``file_digests``.
        shard: (k, n): only the images of that shard.
        labels: also the labels of these images from labels.csv or folders, and their ground-truth masks.
        annotated_only: only images with an annotation (of the category), with their outlines and groups.
        annotations: also the complete annotation files, and the names of skipped files.

    Returns:
        16 hex digits.
    """
    key, cache = _key(resolved), str(cache) if cache else None
    data = index(key, cache)
    digest = hashlib.sha256()
    for name in _shards(key, cache, shard[1])[shard[0]] if shard else data.images:
        row: list[Any] = [name, data.ids[name], data.images[name]]
        if annotated_only:
            if name not in data.outlines:
                continue
            row += [data.outlines[name], data.rows[name]["group"]]
        if labels:
            row += [sorted(data.rows[name].items()), data.masks.get(data.rows[name]["mask"], "")]
        digest.update(json.dumps(row).encode())
    if annotations:  # what ingest reads or reports
        files = _source_digests(annotation_files.paths(resolved["annotations"]), cache)
        digest.update("".join(files.values()).encode())
        others = [*unread(resolved, data.json), *sorted(passed_over.others(resolved))]
        digest.update(json.dumps(others).encode())
    return digest.hexdigest()[:16]


def changed_since(resolved: DataSet, cache: str | Path | None, tables: Iterable[str | Path]) -> int:
    """How many images were added, removed or changed since the survey wrote these tables of all shards.

    Args:
        resolved, cache: as for `images_digest`.
        tables: with the columns image_id and sha256; one that is absent counts as empty.
    """
    before = set()
    for path in tables:
        if os.path.isfile(path):
            with open(path, encoding="utf-8", newline="") as file:
                before |= {(row.get("image_id"), row.get("sha256")) for row in csv.DictReader(file)}
    data = index(_key(resolved), str(cache) if cache else None)
    now = {(data.ids[name], digest) for name, digest in data.images.items()}
    return max(len(now - before), len(before - now))


@dataclass(frozen=True)
class Index:
    """Names and content hashes of one data set: images, ids, label rows, mask files, outlines (annotated images)."""

    images: dict[str, str]
    ids: dict[str, str]
    rows: dict[str, dict[str, str]]
    masks: dict[str, str]
    outlines: dict[str, str]
    json: list[str]  # JSON files among the images


@lru_cache(maxsize=32)
def index(key: str, cache: str | None) -> Index:
    """Read a data set (``resolved`` as JSON) once per process; see ``images_digest``."""
    resolved, data = json.loads(key), _listing(key)
    images = digests_of(os.path.abspath(resolved["images"]), data.paths, cache)
    masks = file_digests(sorted({row["mask"] for row in data.rows.values() if row["mask"]}), cache)
    outlines = _outline_digests(resolved, images, cache) if resolved["annotations"] else {}
    return Index(images, image_ids(images), data.rows, masks, outlines, data.json)


def forget() -> None:
    """Let the next call read data sets again."""
    for function in (index, _outlined, _listing, _shards, files_of):
        function.cache_clear()


def check_sha256(path: str | Path, expected: str, cache: str | Path | None, size: int | None = None) -> None:
    """Raise a UserError unless the file exists with this sha256 (and this size in bytes)."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file (put the file there, or correct the path in the config)")
    actual_size = os.path.getsize(path)
    if size is not None and actual_size != size:
        raise UserError(f"{path}: {actual_size} bytes instead of {size} (incomplete? download it again)")
    actual = file_digests([path], cache)[str(path)]
    if actual != expected.lower():
        raise UserError(f"{path}: wrong checksum: sha256 {actual[:12]}... instead of {expected[:12]}... (replace it)")


def check_writable(folders: Iterable[str | Path]) -> None:
    """Raise a UserError if one of the folders exists and cannot be written to (also as root, on a read-only disk)."""
    for folder in folders:
        if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"{folder}: the folder of the results cannot be written to (remount it, or make it writable: "
                "`ls -ld` and `findmnt --target` tell which it is)"
            )


class _Listing(NamedTuple):
    paths: dict[str, str]
    rows: dict[str, dict[str, str]]
    problems: list[Problem]
    json: list[str]


@lru_cache(maxsize=32)
def _listing(key: str) -> _Listing:
    """Images of a data set and their labels: everything that needs no file contents."""
    resolved = json.loads(key)
    if not os.path.isdir(resolved["images"]):
        image_paths(resolved)  # raises the error
    folders = Folders(resolved, keep=True)
    paths = image_paths(resolved, folders)
    return _Listing(paths, *image_rows(resolved, paths, folders), folders.json)


@lru_cache(maxsize=32)
def _outlined(key: str, cache: str | None) -> int:
    resolved = json.loads(key)
    digests = _outline_digests(resolved, _listing(key).paths, cache) if resolved["annotations"] else {}
    return sum(bool(digest) for digest in digests.values())


@lru_cache(maxsize=32)
def _shards(key: str, cache: str | None, count: int) -> list[list[str]]:
    """Names of the images in each of ``count`` shards."""
    data = index(key, cache)
    shards: list[list[str]] = [[] for _ in range(count)]
    for name in data.images:
        shards[shard_of(data.ids[name], count)].append(name)
    return shards


def _key(resolved: DataSet) -> str:
    return json.dumps(dict(resolved), sort_keys=True)


def _outline_digests(resolved: DataSet, names: Iterable[str], cache: str | Path | None) -> dict[str, str]:
    """Hash of the outlines of every image that the COCO files list; annotation ids and their order do not count.

    It is "" for an image without an outline: a box is none.

    Raises:
        UserError: a file is malformed, or two list the same image.
    """
    found: dict[str, str] = {}
    category, owners = resolved["category"], dict[tuple[str, str], None]()
    files = annotation_files.paths(resolved["annotations"])
    digests = _source_digests(files, cache)
    known = read_cache(cache)
    keys = {path: f"outlines {digests[path]} {category}" for path in files}
    if new := [path for path in files if keys[path] not in known["outlines"]]:
        fresh = {keys[path]: _outlines_of(path, category) for path in new}
        known["outlines"] = {key: known["outlines"].get(key) or fresh[key] for key in keys.values()}
        write_cache(cache, known)
    for path in files:
        by_file, folder = known["outlines"][keys[path]], annotation_files.folder_of(path, resolved["images"])
        matcher = Matcher(names, ((file_name, folder) for file_name in by_file))
        for file_name, digest in by_file.items():
            name = matcher.find(file_name, folder)[0]
            if name and (path, name) not in owners:  # of two entries of one image the first is used, see coco
                found[name] = digest
                owners[path, name] = None
    if len(files) > 1:
        annotation_files.check_disjoint(owners)
    return found


def _source_digests(sources: Iterable[str], cache: str | Path | None) -> dict[str, str]:
    """Hash of each annotation file, or of all that are read of a folder, with their names."""
    found: dict[str, str] = {}
    for source in sources:
        if not os.path.isdir(source):
            found |= file_digests([source], cache)
            continue
        files = files_of(source)
        digests = file_digests([*files, *lists_of(source, files)], cache)
        named = {os.path.relpath(path, source): digest for path, digest in digests.items()}
        found[source] = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    return found


def _outlines_of(path: str, category: str | None) -> dict[str, str]:
    """Hash of the outlines of each entry of a COCO file, by the name of its image there."""
    coco = read_coco(path)
    allowed = category_ids(coco, category, path)
    refuse_several(coco, category, path)
    outlines = defaultdict(list)
    for annotation in coco["annotations"]:
        chosen = allowed is None or annotation.get("category_id") in allowed
        if chosen and is_outline(annotation.get("segmentation")):
            outlines[annotation["image_id"]].append(json.dumps(annotation["segmentation"], sort_keys=True))
    by_file: dict[str, str] = {}
    for image in coco["images"]:
        content = [image.get("width"), image.get("height"), *sorted(outlines[image["id"]])]
        of_image = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        by_file.setdefault(str(image["file_name"]), of_image if outlines[image["id"]] else "")
    return by_file
