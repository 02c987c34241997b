"""LabelMe: one JSON file per photograph, with polygons, boxes, circles and masks. Standard library only.

Source: LabelMe, labelme/label_file.py and labelme/shape.py.
"""

import math

from defectflow.core.files import UserError, read_json
from defectflow.label_formats.collected import Collected, numbers, pairs, size
from defectflow.label_formats.photographs import placed

LINES = ("line", "linestrip", "point", "points")  # enclose no area


def read_into(collected: Collected, path: str, folder: str) -> None:
    """Add the photograph of a file.

    Args:
        path: the file.
        folder: of the file, relative to the folder that is read.

    Raises:
        UserError: it is malformed.
    """
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise UserError(f"{path}: not a LabelMe file (it has no list `shapes`: save it again in LabelMe)")
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: it names no photograph (`imagePath` is missing: save it again in LabelMe)")
    width, height = size((content.get("imageWidth"), content.get("imageHeight")), f"{path}: imageWidth, imageHeight")
    image = collected.image(placed(name, folder), width, height)
    for number, shape in enumerate(shapes):
        where = f"{path}: shapes[{number}]"
        if not isinstance(shape, dict):
            raise UserError(f"{where}: not a shape (save it again in LabelMe)")
        kind, label = str(shape.get("shape_type") or "polygon"), str(shape.get("label") or "")
        if kind in LINES:
            collected.skipped[kind] += 1
            continue
        points = pairs(shape.get("points"), where)
        if kind == "polygon":
            collected.polygon(image, label, points)
        elif kind in ("rectangle", "oriented_rectangle") and len(points) in (2, 4):
            collected.box(image, label, points)
        elif kind == "circle" and len(points) == 2:
            radius = math.dist(*points)
            collected.ellipse(image, label, points[0], (radius, radius))
        elif kind == "mask" and len(points) == 2 and isinstance(shape.get("mask"), str):
            if width is None or height is None:
                raise UserError(f"{path}: imageWidth and imageHeight are missing (save it again in LabelMe)")
            corner = [round(value) for value in numbers([min(c) for c in zip(*points, strict=True)], where)]
            painted = {"size": [int(height), int(width)], "png": shape["mask"], "corner": corner}
            collected.painted(image, label, painted)
        else:
            raise UserError(f"{where}: a {kind} of {len(points)} points (draw polygons, rectangles, circles or masks)")
