"""Write labels for annotation tools: COCO, LabelMe, Label Studio and CVAT. Readers: `defectflow.label_formats`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from defectflow.core.files import write_json
from defectflow.label_export.labelled import Labelled, as_coco, check_stems, copy_photograph, labels_of


def points_of(polygon: Sequence[float]) -> list[tuple[float, float]]:
    """The corners (x, y) of a polygon."""
    return list(zip(polygon[0::2], polygon[1::2], strict=True))


def write_coco(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """annotations.json; names are relative to the folder of the photographs."""
    (folder / "annotations.json").write_text(json.dumps(as_coco(photographs)) + "\n", encoding="utf-8")


def write_labelme(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """A copy of each photograph with its JSON file beside it; polygons of one region share a group."""
    check_stems(photographs)
    for one in photographs:
        target = folder / one.name
        copy_photograph(one, target)
        shapes: list[dict[str, Any]] = [
            {
                "label": shape.label, "points": points_of(polygon), "group_id": number if many else None,
                "description": "", "shape_type": "polygon", "flags": {}, "mask": None,
            }
            for number, shape in enumerate(one.shapes) for many in [len(shape.polygons) > 1]
            for polygon in shape.polygons
        ]  # fmt: skip
        about = {"imagePath": target.name, "imageData": None, "imageHeight": one.height, "imageWidth": one.width}
        write_json(target.with_suffix(".json"), {"version": "5.5.0", "flags": {}, "shapes": shapes} | about)


def write_label_studio(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """tasks.json, whose predictions are shown as regions to correct, and label_config.xml for the project.

    The photographs are read from local storage whose root is the folder above that of the photographs.
    """
    tasks = []
    for one in photographs:
        size = {"original_width": one.width, "original_height": one.height, "image_rotation": 0}
        results: list[dict[str, Any]] = []
        for shape in one.shapes:
            for polygon in shape.polygons:
                points = [[100 * x / one.width, 100 * y / one.height] for x, y in points_of(polygon)]
                value = {"points": points, "closed": True, "polygonlabels": [shape.label]}
                about = {
                    "id": f"r{len(results) + 1}",
                    "type": "polygonlabels",
                    "from_name": "label",
                    "to_name": "image",
                }
                results.append(about | size | {"value": value})
        place = quote(f"{os.path.basename(os.path.normpath(images))}/{one.name}")
        data = {"image": f"/data/local-files/?d={place}"}
        tasks.append({"data": data, "predictions": [{"model_version": "defectflow", "result": results}]})
    write_json(folder / "tasks.json", tasks)
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    choices = SubElement(view, "PolygonLabels", name="label", toName="image")
    for label in labels_of(photographs):
        SubElement(choices, "Label", value=label)
    _write_xml(folder / "label_config.xml", view)


def write_cvat(folder: Path, photographs: Sequence[Labelled], images: str) -> None:
    """annotations.xml, `CVAT for images 1.1`, to upload into a task with these photographs."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for label in labels_of(photographs):
        SubElement(SubElement(labels, "label"), "name").text = label
    for number, one in enumerate(photographs):
        size = {"width": str(one.width), "height": str(one.height)}
        image = SubElement(root, "image", {"id": str(number), "name": one.name} | size)
        for group, shape in enumerate(one.shapes, 1):
            for polygon in shape.polygons:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in points_of(polygon))
                about = {"label": shape.label, "source": "auto", "occluded": "0", "points": points, "z_order": "0"}
                SubElement(image, "polygon", about | ({"group_id": str(group)} if len(shape.polygons) > 1 else {}))
    _write_xml(folder / "annotations.xml", root)


def _write_xml(path: Path, root: Element) -> None:
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
