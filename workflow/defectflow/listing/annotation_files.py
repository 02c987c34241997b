"""Find the annotation files of a data set by their content, regardless of their names.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from defectflow.core.files import UserError
from defectflow.core.records import Coco, Id
from defectflow.label_formats.label_files import COCO, SINGLE, SUFFIXES, WHOLE, YOLO, files_of, kind_of
from defectflow.label_formats.yolo import photographs_beside

DEPTH = 2  # levels of folders below the data set that are searched
FOLDERS, FILES = 200, 50  # most folders that are searched, and most files of a kind opened in each
NAMED = "annotations.json"  # in the folder of the data set this file is used, even if it is broken


class Found(NamedTuple):
    """What a data set holds: annotations (files, and folders of one file per photograph), and other JSON files."""

    annotations: list[str]
    others: list[str]


def find(root: str | os.PathLike[str] | None, images: str | os.PathLike[str] | None) -> Found:
    """Look for annotations in the folder of a data set, in that of its photographs, and up to DEPTH levels below.

    Files are recognised by their content, see `label_files.kind_of`: a COCO file by lists `images` and `annotations`
    that are not empty. Of tools that write one file per photograph, the folder is found, with what is below it.
    """
    annotations: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    for folder, listed in _folders([str(folder) for folder in (root, images) if folder]):
        kinds = {path: kind_of(path) for path in listed}
        labels = [path for path, kind in kinds.items() if kind == YOLO]
        if labels and not photographs_beside(folder, labels):
            kinds |= dict.fromkeys(labels, "")
        for path, kind in kinds.items():
            if root and os.path.normpath(path) == os.path.normpath(os.path.join(root, NAMED)):
                kind = COCO
            if kind in WHOLE:
                annotations.append(path)
            elif kind not in SINGLE and path.lower().endswith(".json"):
                others.append(path)
        if set(kinds.values()) & set(SINGLE):
            folders.append(folder)
    real = [os.path.realpath(folder) for folder in folders]
    tops = [
        folder for folder, own in zip(folders, real, strict=True)
        if not any(own != other and own.startswith(other.rstrip(os.sep) + os.sep) for other in real)
    ]  # fmt: skip
    return Found(annotations + tops, others)


def is_coco(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file has the lists `images` and `annotations`, with something in them."""
    return kind_of(path) == COCO


def is_annotation(path: str | os.PathLike[str]) -> bool:
    """Whether a file, or a file of this folder, holds annotations of a tool that is known."""
    return os.path.isdir(path) or kind_of(path) in (*WHOLE, *SINGLE)


def paths(annotations: str | Sequence[str] | None) -> list[str]:
    """The annotation files of a data set as a list."""
    return [annotations] if isinstance(annotations, str) else [str(path) for path in annotations or ()]


def name_of(annotations: str | Sequence[str] | None) -> str:
    """The annotation files of a data set as text for a message."""
    return ", ".join(paths(annotations))


def described(path: str) -> str:
    """A file or folder of annotations, with the tool that wrote it if that is not COCO, as text for a message."""
    kinds = sorted(set(files_of(path).values()) - {COCO, ""})
    return f"{path} ({', '.join(kinds)})" if kinds else path


def folder_of(path: str, images: str | os.PathLike[str] | None) -> str:
    """Folder of annotations relative to that of the photographs; "" if it does not lie among them."""
    if not images:
        return ""
    own = os.path.abspath(path)
    own = own if os.path.isdir(own) else os.path.dirname(own)
    below = os.path.relpath(own, os.path.abspath(images)).replace(os.sep, "/")
    return "" if below == "." or below.startswith("..") else below


def merged(files: Iterable[tuple[str, Coco]]) -> Coco:
    """Several COCO files as one.

    Image ids are kept unless two files use the same one; then those of the later file get new numbers. Categories with
    the same name become one.

    Args:
        files: (path, content) of each, in order; lists images, annotations and categories.
    """
    whole: Coco = {"images": [], "annotations": [], "categories": [], "notes": []}
    used: set[Id] = set()
    names: dict[str | None, Id | None] = {}
    for _, coco in files:
        whole["notes"] += coco.get("notes", [])
        own = {image["id"] for image in coco["images"]}
        step = 0
        if own & used:
            step = max((number for number in used if isinstance(number, int)), default=0) + 1
            step -= min((number for number in own if isinstance(number, int)), default=0)
        ids = {one: one + step if isinstance(one, int) else f"{one}+{step}" if step else one for one in own}
        used |= set(ids.values())
        taken = {category["id"] for category in whole["categories"]}
        categories = {}
        for category in coco["categories"]:
            name = category.get("name")
            if name not in names:
                free = category.get("id") not in taken
                names[name] = category.get("id") if free else max(n for n in taken if isinstance(n, int)) + 1
                taken.add(names[name])
                whole["categories"].append(category | {"id": names[name]})
            categories[category.get("id")] = names[name]
        whole["images"] += [image | {"id": ids[image["id"]]} for image in coco["images"]]
        for one in coco["annotations"]:
            # An id that the file does not list must not match an image of another file.
            image = ids.get(one["image_id"], f"{one['image_id']} of another file")
            category_id = categories.get(one.get("category_id"), f"unknown {one.get('category_id')}")
            whole["annotations"].append(one | {"image_id": image, "category_id": category_id})
    return whole


def check_disjoint(listed: Iterable[tuple[str, str]]) -> None:
    """Raise a UserError if two annotation files list one photograph.

    Args:
        listed: (annotation file, name of a photograph that it lists).
    """
    owner: dict[str, str] = {}
    for path, name in listed:
        other = owner.setdefault(name, path)
        if other != path:
            raise UserError(
                f"{described(other)} and {described(path)} both list {name}: which outlines count? (set it in the "
                f"entry of the data set: `annotations: {other}`, or `annotations: []` for none)"
            )


def _folders(tops: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(folder, paths of files that may hold annotations) of folders and up to DEPTH levels below, in order.

    Of one per photograph only some.
    """
    pending = [(0, top) for top in tops]
    seen: set[str] = set()
    while pending and len(seen) < FOLDERS:
        depth, folder = pending.pop(0)
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        found: dict[str, list[str]] = {suffix: [] for suffix in SUFFIXES}
        folders = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if (suffix := os.path.splitext(entry.name)[1].lower()) in found:
                        found[suffix].append(entry.path)
                    elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                        folders.append((depth + 1, entry.path))
        except OSError:
            continue
        listed: list[str] = []
        for paths in found.values():
            if len(paths) > FILES:  # first the files that tools write for all photographs together
                order = r"(?i)annot|coco|instances|result|label"
                paths.sort(key=lambda path: (not re.search(order, os.path.basename(path)), path))
            listed += sorted(paths[:FILES])
        yield folder, listed
        pending += sorted(folders)
