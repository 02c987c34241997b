"""Find the annotation files of a data set by their content, regardless of their names.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from defectflow.core.files import UserError
from defectflow.core.records import Coco, Id

DEPTH = 2  # levels of folders below the data set that are searched
FOLDERS, FILES = 200, 50  # most folders that are searched, and most files opened in each
IMAGES = re.compile(rb'"images"\s*:\s*\[\s*\{')
OUTLINES = re.compile(rb'"annotations"\s*:\s*\[\s*\{')
NAMED = "annotations.json"  # in the folder of the data set this file is used, even if it is broken


class Found(NamedTuple):
    """Paths of the COCO files of a data set, and of its other JSON files."""

    coco: list[str]
    others: list[str]


def find(root: str | os.PathLike[str] | None, images: str | os.PathLike[str] | None) -> Found:
    """Look for COCO files in the folder of a data set, in that of its photographs, and up to DEPTH levels below.

    Files are recognised by their content: lists `images` and `annotations` that are not empty. JSON files of single
    photographs, as LabelMe writes them, are not COCO files.
    """
    coco: list[str] = []
    others: list[str] = []
    for path in _json_files([str(folder) for folder in (root, images) if folder]):
        meant = root and os.path.normpath(path) == os.path.normpath(os.path.join(root, NAMED))
        (coco if meant or is_coco(path) else others).append(path)
    return Found(coco, others)


def is_coco(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file has the lists `images` and `annotations`, with something in them."""
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return bool(IMAGES.search(content) and OUTLINES.search(content))
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def paths(annotations: str | Sequence[str] | None) -> list[str]:
    """The annotation files of a data set as a list."""
    return [annotations] if isinstance(annotations, str) else [str(path) for path in annotations or ()]


def name_of(annotations: str | Sequence[str] | None) -> str:
    """The annotation files of a data set as text for a message."""
    return ", ".join(paths(annotations))


def folder_of(path: str, images: str | os.PathLike[str] | None) -> str:
    """Folder of an annotation file relative to that of the photographs; "" if it does not lie among them."""
    if not images:
        return ""
    below = os.path.relpath(os.path.dirname(os.path.abspath(path)), os.path.abspath(images)).replace(os.sep, "/")
    return "" if below == "." or below.startswith("..") else below


def merged(files: Iterable[tuple[str, Coco]]) -> Coco:
    """Several COCO files as one.

    Image ids are kept unless two files use the same one; then those of the later file get new numbers. Categories with
    the same name become one.

    Args:
        files: (path, content) of each, in order; lists images, annotations and categories.
    """
    whole: Coco = {"images": [], "annotations": [], "categories": []}
    used: set[Id] = set()
    names: dict[str | None, Id | None] = {}
    for _, coco in files:
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
                f"{other} and {path} both list {name}: which outlines count? (set it in the entry of the data set: "
                f"`annotations: {other}`, or `annotations: []` for none)"
            )


def _json_files(tops: Iterable[str]) -> Iterator[str]:
    """Paths of the JSON files in folders and up to DEPTH levels below, in order; of one per photograph only some."""
    pending = [(0, top) for top in tops]
    seen: set[str] = set()
    while pending and len(seen) < FOLDERS:
        depth, folder = pending.pop(0)
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        found, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.lower().endswith(".json"):
                        found.append(entry.path)
                    elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                        folders.append((depth + 1, entry.path))
        except OSError:
            continue
        if len(found) > FILES:  # first the files that tools write for all photographs together
            found.sort(key=lambda path: not re.search(r"(?i)annot|coco|instances|result|label", os.path.basename(path)))
        yield from sorted(found[:FILES])
        pending += sorted(folders)
