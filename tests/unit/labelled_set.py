"""The annotations of `outlined_set` as files of other tools, written as these tools write them."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from outlined_set import SIZE, mask_of
from PIL import Image

WIDTH, HEIGHT = SIZE


def write(root: Path, kind: str, outlines: list[np.ndarray], label: str = "part") -> Path:
    """Write the outline of each photograph `<number>.png` and return the file or folder of the annotations."""
    return globals()[f"_{kind}"](root, outlines, label)


def _labelme(root: Path, outlines, label: str) -> Path:
    for number, points in enumerate(outlines):
        shape = {"label": label, "points": points.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
        about = {"imagePath": f"{number}.png", "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        content = {"version": "5.5.0", "flags": {}, "shapes": [shape]} | about
        (root / "images" / f"{number}.json").write_text(json.dumps(content, indent=2))
    return root / "images"


def _labelme_mask(root: Path, outlines, label: str) -> Path:
    folder = _labelme(root, outlines, label)
    for number, points in enumerate(outlines):
        path = folder / f"{number}.json"
        content, mask = json.loads(path.read_text()), mask_of(points)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        corners = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        stream = io.BytesIO()
        Image.fromarray(part.astype(np.uint8)).save(stream, "PNG")
        painted = {"points": corners, "shape_type": "mask", "mask": base64.b64encode(stream.getvalue()).decode()}
        content["shapes"][0] |= painted
        path.write_text(json.dumps(content))
    return folder


def _voc(root: Path, outlines, label: str) -> Path:
    (root / "Annotations").mkdir()
    for number, points in enumerate(outlines):
        (x, y), (right, bottom) = points.min(0), points.max(0)
        ends = "".join(f"<x{n}>{a}</x{n}><y{n}>{b}</y{n}>" for n, (a, b) in enumerate(points, 1))
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation>\n<folder>images</folder><filename>{number}.png</filename>"
            f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>\n"
            f"<object><name>{label}</name><pose>Unspecified</pose><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox><polygon>{ends}</polygon></object></annotation>"
        )
    return root / "Annotations"


def _yolo(root: Path, outlines, label: str) -> Path:
    (root / "labels").mkdir()
    (root / "data.yaml").write_text(f"path: .\ntrain: images\nnames:\n  0: other\n  1: {label}\n")
    for number, points in enumerate(outlines):
        shares = " ".join(f"{value:.6f}" for value in (points / SIZE).ravel())
        (root / "labels" / f"{number}.txt").write_text(f"1 {shares}\n")
    return root / "labels"


def _cvat(root: Path, outlines, label: str) -> Path:
    images = []
    for number, points in enumerate(outlines):
        text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
        polygon = f'<polygon label="{label}" source="manual" occluded="0" points="{text}" z_order="0"></polygon>'
        images.append(f'<image id="{number}" name="{number}.png" width="{WIDTH}" height="{HEIGHT}">{polygon}</image>')
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta></meta>'
    (root / "annotations.xml").write_text(f"{head}{''.join(images)}</annotations>")
    return root / "annotations.xml"


def _cvat_mask(root: Path, outlines, label: str) -> Path:
    path = _cvat(root, outlines, label)
    text = path.read_text()
    for points in outlines:
        mask = mask_of(points)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        flat = np.concatenate([[False], part.ravel(), [not part.ravel()[-1]]])
        runs = np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1])])).tolist()
        box = f'left="{columns[0]}" top="{rows[0]}" width="{part.shape[1]}" height="{part.shape[0]}"'
        begin, end = text.index("<polygon"), text.index("</polygon>") + len("</polygon>")
        mask_text = f'<mask label="{label}" rle="{", ".join(map(str, runs))}" {box}></mask>'
        text = text[:begin] + mask_text + text[end:]
    path.write_text(text)
    return path


def _label_studio(root: Path, outlines, label: str) -> Path:
    tasks = [task(n, result("polygon", {"points": (100 * points / SIZE).tolist()}, label)) for n, points in
             enumerate(outlines)]  # fmt: skip
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root / "project-1.json"


def _label_studio_brush(root: Path, outlines, label: str) -> Path:
    strokes = [brush(np.repeat(mask_of(points).ravel() * np.uint8(255), 4)) for points in outlines]
    tasks = [task(n, result("brush", {"format": "rle", "rle": rle}, label)) for n, rle in enumerate(strokes)]
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root / "project-1.json"


def task(number: int, *results: dict) -> dict:
    """A task of Label Studio with one annotation."""
    data = {"image": f"/data/upload/1/8f3a1c2e-{number}.png"}
    return {"id": number + 1, "annotations": [{"id": 7, "was_cancelled": False, "result": [*results]}], "data": data}


def result(kind: str, value: dict, label: str) -> dict:
    """A region of Label Studio."""
    about = {"id": "r1", "type": f"{kind}labels", "from_name": "label", "to_name": "image", "image_rotation": 0}
    return about | {"original_width": WIDTH, "original_height": HEIGHT, "value": value | {f"{kind}labels": [label]}}


def brush(values: np.ndarray) -> list[int]:
    """uint8 values in the run-length code of Label Studio, runs and single values by turns."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    at = 0
    while at < len(values):
        same = values[at : at + 60000] != values[at]
        length = int(same.argmax()) if same.any() else len(same)
        if length > 1:
            bits += f"111{length - 1:016b}{values[at]:08b}"
        else:
            length = min(3, len(values) - at)
            bits += f"000{length - 1:03b}" + "".join(f"{value:08b}" for value in values[at : at + length])
        at += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


KINDS = ("labelme", "labelme_mask", "voc", "yolo", "cvat", "cvat_mask", "label_studio", "label_studio_brush")
