"""Recognise annotation files by their content, and read those of a tool as a COCO file.

LabelMe, Pascal VOC and YOLO write one file per photograph: such annotations are given as the folder of these files,
which is searched through. COCO, Label Studio and CVAT write one file for all. Standard library only: the Snakefile
imports this module through ``preflight``.
"""

import mmap
import os
import re
from collections.abc import Iterator
from functools import lru_cache

from defectflow.core.files import UserError
from defectflow.core.records import Coco
from defectflow.label_formats import cvat, label_studio, labelme, pascal_voc, yolo
from defectflow.label_formats.collected import Collected

IMAGES = re.compile(rb'"images"\s*:\s*\[\s*\{')
OUTLINES = re.compile(rb'"annotations"\s*:\s*\[\s*\{')
SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
PHOTOGRAPH = re.compile(rb'"imagePath"\s*:\s*"')
TASKS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
RESULTS = re.compile(rb'"result"\s*:\s*\[')
DATA = re.compile(rb'"data"\s*:\s*\{')
ROOT = re.compile(rb"<(annotations?)[\s>]")

COCO, LABELME, LABEL_STUDIO, VOC, CVAT, YOLO = "COCO", "LabelMe", "Label Studio", "Pascal VOC", "CVAT", "YOLO"
WHOLE = (COCO, LABEL_STUDIO, CVAT)  # one file for all photographs
SINGLE = (LABELME, VOC, YOLO)  # one file for each
SUFFIXES = (".json", ".xml", ".txt")
BEGINNING = 65536  # bytes


def kind_of(path: str | os.PathLike[str]) -> str:
    """The tool whose annotations a file holds, one of WHOLE and SINGLE, or "" for any other file."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix == ".txt":
        return YOLO if yolo.looks_like(os.fspath(path)) else ""
    if suffix not in SUFFIXES:
        return ""
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _kind_of_xml(content) if suffix == ".xml" else _kind_of_json(content)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return ""


def _kind_of_json(content: mmap.mmap) -> str:
    # The picture itself may come first or last, as text.
    if SHAPES.search(content) and PHOTOGRAPH.search(content):
        return LABELME
    if IMAGES.search(content) and OUTLINES.search(content):
        return COCO
    return LABEL_STUDIO if TASKS.match(content) and RESULTS.search(content) and DATA.search(content) else ""


def _kind_of_xml(content: mmap.mmap) -> str:
    root = ROOT.search(content, 0, BEGINNING)
    if root and root[1] == b"annotations":
        return CVAT if re.search(rb"<image\s", content) else ""
    return VOC if root and re.search(rb"<(object|bndbox)>", content) else ""


@lru_cache(maxsize=64)
def files_of(source: str) -> dict[str, str]:
    """{path: kind} of the annotation files that a file or folder stands for, in order; of a folder those of SINGLE.

    A text file of numbers beside YOLO labels is one of them: if it is malformed, that is told. Whatever is no
    annotation file of a tool is not among them. It is looked up once per process; `files_of.cache_clear()` undoes that.

    Raises:
        UserError: two tools annotated one photograph.
    """
    return _files_of(source)


def _files_of(source: str) -> dict[str, str]:
    if not os.path.isdir(source):
        return {source: kind_of(source)}
    found: dict[str, str] = {}
    for folder, names in _walk(source):
        paths = [os.path.join(folder, name) for name in names if name.lower().endswith(SUFFIXES)]
        kinds = {path: kind for path in paths if (kind := kind_of(path)) in SINGLE}
        if YOLO in kinds.values():
            texts = [path for path in paths if path.lower().endswith(".txt") and path not in kinds]
            kinds |= {path: YOLO for path in texts if yolo.is_numeric(path)}
        found |= {path: kinds[path] for path in paths if path in kinds}
    owners: dict[str, str] = {}
    if len(set(found.values())) > 1:
        for path, kind in found.items():
            other = owners.setdefault(os.path.splitext(os.path.basename(path))[0], path)
            if found[other] != kind:
                raise UserError(
                    f"{other} and {path}: annotations of one photograph by {found[other]} and by {kind}, which count? "
                    "(move the others out of the data set, or name the folder of those that count: `annotations: ...`)"
                )
    return found


def lists_of(source: str, files: dict[str, str]) -> list[str]:
    """Files beside those of `files_of` that are read too: the lists of the classes of YOLO labels."""
    known = yolo.Classes(source)
    folders = dict.fromkeys(os.path.dirname(path) for path, kind in files.items() if kind == YOLO)
    return sorted({path for folder in folders for path in known.lists(folder)})


def read_tool(source: str) -> Coco | None:
    """What a file or folder of another tool than COCO lists, in the form of a COCO file; None for any other file.

    Raises:
        UserError: it is malformed; or it is a folder without annotation files.
    """
    files = _files_of(source)
    if not os.path.isdir(source):
        readers = {LABEL_STUDIO: label_studio.read, CVAT: cvat.read}
        if (kind := files[source]) in readers:
            return readers[kind](source)
        if kind not in SINGLE:
            if source.lower().endswith(".xml"):
                raise UserError(f"{source}: neither Pascal VOC nor CVAT for images (export it as one of these)")
            return None
    elif not files:
        raise UserError(
            f"{source}: no LabelMe, Pascal VOC or YOLO file in this folder (of other tools name the file itself)"
        )
    collected = Collected(source)
    top = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    known = yolo.Classes(top)
    for path, kind in files.items():
        folder = os.path.relpath(os.path.dirname(os.path.abspath(path)), os.path.abspath(top))
        folder = "" if folder == "." else folder
        if kind == YOLO:
            yolo.read_into(collected, path, folder, top, known)
        elif kind == VOC:
            pascal_voc.read_into(collected, path, folder, top)
        else:
            labelme.read_into(collected, path, folder)
    return collected.coco()


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of a folder and those below it, in order; hidden ones and links are left out."""
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))
