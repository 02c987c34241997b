"""Pascal VOC: one XML file per photograph, with boxes and, as Roboflow writes them, polygons. Standard library only.

Source: the development kit of the PASCAL VOC Challenge 2012, section 7.2 (annotation).
"""

import os
import re

from defectflow.core.files import UserError
from defectflow.images.formats import SUFFIXES
from defectflow.label_formats.collected import Collected, numbers, size
from defectflow.label_formats.photographs import beside, placed
from defectflow.label_formats.xml_files import read_xml, text_of

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_into(collected: Collected, path: str, folder: str, top: str) -> None:
    """Add the photograph of a file; see `labelme.read_into`. ``top``: the folder that is read."""
    root = read_xml(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: not a Pascal VOC file (its root is <{root.tag}>, not <annotation>)")
    stem = os.path.splitext(os.path.basename(path))[0]
    name = text_of(root, "filename") or stem
    name = name if name.lower().endswith(SUFFIXES) else f"{name}.*"
    name = ("/" not in name and beside(os.path.dirname(path), name, top, "annotations")) or placed(name, folder)
    sides = [text_of(root, f"size/{side}") for side in ("width", "height")]
    image = collected.image(name, *size(sides, f"{path}: size"))
    for number, found in enumerate(root.iter("object"), 1):
        where, label = f"{path}: object {number}", text_of(found, "name")
        if (polygon := found.find("polygon")) is not None and len(polygon):
            ends = {child.tag: child.text for child in polygon}
            count = sum(bool(re.fullmatch(r"x\d+", tag)) for tag in ends)
            flat = [ends.get(f"{axis}{step}") for step in range(1, count + 1) for axis in "xy"]
            values = numbers(flat, where)
            collected.polygon(image, label, list(zip(values[0::2], values[1::2], strict=True)))
            continue
        box = found.find("bndbox")
        if box is None:
            raise UserError(f"{where}: it has neither <bndbox> nor <polygon> (export it again)")
        x, y, right, bottom = numbers([text_of(box, corner) for corner in CORNERS], where)
        if right < x or bottom < y:
            raise UserError(f"{where}: the box ends before it begins ({x:g}, {y:g} to {right:g}, {bottom:g})")
        collected.box(image, label, [(x, y), (right, bottom)])
