"""CVAT for images 1.1: one XML file for all photographs, with polygons, boxes, ellipses and masks.

Standard library only. Source: CVAT, "XML annotation format", version 1.1 for images.
"""

from xml.etree.ElementTree import Element

from defectflow.core.files import UserError
from defectflow.core.records import Coco
from defectflow.label_formats.collected import Collected, numbers, pairs, size, turned
from defectflow.label_formats.xml_files import read_xml


def read(path: str) -> Coco:
    """Read a file.

    Raises:
        UserError: it is malformed, or of a video.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}: not a CVAT file (its root is <{root.tag}>, not <annotations>)")
    if root.find("track") is not None:
        raise UserError(f"{path}: tracks of a video (export it as `CVAT for images 1.1`)")
    collected = Collected(path)
    for entry in root.iter("image"):
        if not (name := entry.get("name")):
            raise UserError(f"{path}: image {entry.get('id')} has no name (export it again)")
        where = f"{path}: {name}"
        width, height = size((entry.get("width"), entry.get("height")), where)
        image = collected.image(name, width, height)
        for shape in entry:
            _add(collected, image, (width, height), shape, f"{where}, {shape.tag} {shape.get('label')}")
    return collected.coco()


def _add(
    collected: Collected, image: int, sides: tuple[float | None, float | None], shape: Element, where: str
) -> None:
    label = shape.get("label", "")

    def values(*names: str) -> list[float]:
        return numbers([shape.get(name) for name in names], where)

    turn = numbers(shape.get("rotation") or 0, where)[0]
    if shape.tag == "polygon":
        texts = [point.split(",") for point in shape.get("points", "").split(";")]
        collected.polygon(image, label, pairs(texts, where))
    elif shape.tag == "box":
        left, top, right, bottom = values("xtl", "ytl", "xbr", "ybr")
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        collected.box(image, label, turned(corners, ((left + right) / 2, (top + bottom) / 2), turn))
    elif shape.tag == "ellipse":
        x, y, rx, ry = values("cx", "cy", "rx", "ry")
        collected.ellipse(image, label, (x, y), (rx, ry), turn)
    elif shape.tag == "mask":
        if sides[0] is None or sides[1] is None:
            raise UserError(f"{where}: its photograph has no width and height (export it again)")
        runs = [int(run) for run in numbers(shape.get("rle", "").split(","), where)]
        left, top, width, height = (int(value) for value in values("left", "top", "width", "height"))
        if width < 1 or height < 1 or min(runs) < 0 or sum(runs) > width * height:
            raise UserError(f"{where}: its run lengths do not fit its box of {width}x{height} (export it again)")
        box = [left, top, width, height]
        collected.painted(image, label, {"size": [int(sides[1]), int(sides[0])], "rows": runs, "box": box})
    elif shape.tag != "tag":  # of the photograph as a whole
        collected.skipped[shape.tag] += 1
