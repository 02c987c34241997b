"""Write a data set for training programs, photographs included: YOLO, Pascal VOC and the MVTec layout."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np

from defectflow.annotations.coco import decode_polygons
from defectflow.images.read_write import read_mask, write_png
from defectflow.label_export.labelled import DEFECT, Labelled, check_stems, copy_photograph, held_out, labels_of
from defectflow.listing.folders import GOOD, plain


def write_yolo_segment(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """images/, labels/ with a line for each polygon, and data.yaml, as Ultralytics has them; shares of the picture."""
    _write_yolo(folder, photographs, outlines=True)


def write_yolo_detect(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """The same with a box for each shape."""
    _write_yolo(folder, photographs, outlines=False)


def _write_yolo(folder: Path, photographs: Sequence[Labelled], outlines: bool) -> None:
    check_stems(photographs)
    labels, out = labels_of(photographs), held_out(photographs)
    for one in photographs:
        side = "val" if one.image_id in out else "train"
        copy_photograph(one, folder / "images" / side / one.name, shallow=True)
        lines = []
        for shape in one.shapes:
            left, top, right, bottom = shape.box
            box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            for values in shape.polygons if outlines else [box]:
                shares = (value / (one.height if n % 2 else one.width) for n, value in enumerate(values))
                lines.append(" ".join([str(labels.index(shape.label)), *(f"{share:.6f}" for share in shares)]) + "\n")
        path = (folder / "labels" / side / one.name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    for side in ("train", "val"):
        (folder / "images" / side).mkdir(parents=True, exist_ok=True)
    names = "".join(f"  {number}: {label}\n" for number, label in enumerate(labels))
    sides = "train: images/train\nval: images/val\n"  # relative to this file
    (folder / "data.yaml").write_text(f"{sides}names:\n{names}", encoding="utf-8")


def write_pascal_voc(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """JPEGImages/, Annotations/ with box and polygon of each shape, and ImageSets/Main/train.txt and val.txt."""
    check_stems(photographs)
    out = held_out(photographs)
    sides: dict[str, list[str]] = {"train": [], "val": []}
    for one in photographs:
        copy_photograph(one, folder / "JPEGImages" / one.name, shallow=True)
        stem = os.path.splitext(one.name)[0]
        sides["val" if one.image_id in out else "train"].append(f"{stem}\n")
        root = Element("annotation")
        for tag, text in (("folder", "JPEGImages"), ("filename", os.path.basename(one.name))):
            SubElement(root, tag).text = text
        size = SubElement(root, "size")
        for tag, value in (("width", one.width), ("height", one.height), ("depth", 3)):
            SubElement(size, tag).text = str(value)
        SubElement(root, "segmented").text = "0"
        for shape in one.shapes:
            for polygon in shape.polygons:
                _add_object(root, shape.label, polygon)
        path = folder / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        indent(root)
        ElementTree(root).write(path, encoding="utf-8")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for side, stems in sides.items():
        (folder / "ImageSets" / "Main" / f"{side}.txt").write_text("".join(stems), encoding="utf-8")


def _add_object(root: Element, label: str, polygon: Sequence[float]) -> None:
    xs, ys = polygon[0::2], polygon[1::2]
    found = SubElement(root, "object")
    for tag, text in (("name", label), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
        SubElement(found, tag).text = text
    box = SubElement(found, "bndbox")
    for tag, value in (("xmin", min(xs)), ("ymin", min(ys)), ("xmax", max(xs)), ("ymax", max(ys))):
        SubElement(box, tag).text = f"{value:g}"
    corners = SubElement(found, "polygon")
    for number, (x, y) in enumerate(zip(xs, ys, strict=True), 1):
        SubElement(corners, f"x{number}").text = f"{x:g}"
        SubElement(corners, f"y{number}").text = f"{y:g}"


def folders_of_kinds(kinds: Iterable[str]) -> dict[str, str]:
    """A folder for each kind of defect, that no other kind has on any file system, and that is none of good parts.

    >>> folders_of_kinds(["scratch 1", "scratch/1", "", "good"])
    {'': 'bad', 'good': 'bad_2', 'scratch 1': 'scratch_1', 'scratch/1': 'scratch_1_2'}
    """
    found: dict[str, str] = {}
    for kind in sorted(set(kinds)):
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in kind)
        name = "bad" if not plain(name) or plain(name) in GOOD else name
        taken, number, free = {other.casefold() for other in found.values()}, 1, name
        while free.casefold() in taken:
            number += 1
            free = f"{name}_{number}"
        found[kind] = free
    return found


def write_mvtec(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """train/good, test/good, test/<kind> and ground_truth/<kind>: masks of the set, or the regions where it has none.

    Photographs are PNG, as those of MVTec AD: anomalib reads no other. Files are numbered, so that masks and
    photographs have the same order, by which programs pair them; names.json has the name of each photograph.
    """
    out = held_out([one for one in photographs if one.label == "0"])
    folders, sources = folders_of_kinds(one.kind for one in photographs if one.label != "0"), {}
    for number, one in enumerate(photographs):
        kind = "good" if one.label == "0" else folders[one.kind]
        place = f"{'test' if one.label != '0' or one.image_id in out else 'train'}/{kind}"
        file = f"{place}/{number:06}.png"
        copy_photograph(one, folder / file, shallow=True)
        sources[file] = one.name
        if one.label == "0":
            continue
        mask = np.zeros((one.height, one.width), bool)
        for shape in one.shapes if not one.truth else []:
            if shape.label == DEFECT:
                mask |= decode_polygons(shape.polygons, one.width, one.height, (one.width, one.height))
        write_png(
            folder / "ground_truth" / kind / f"{number:06}_mask.png",
            (read_mask(one.truth) if one.truth else mask).astype(np.uint8) * 255,
        )
    (folder / "names.json").write_text(json.dumps(sources, indent=2) + "\n", encoding="utf-8")
