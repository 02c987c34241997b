"""Label Studio: one JSON file of tasks, with polygons, rectangles, ellipses and brush strokes. Standard library only.

Coordinates are percent of the picture. Source: Label Studio, "Label Studio JSON format of annotated tasks".
"""

from collections.abc import Mapping
from typing import Any

from defectflow.core.files import UserError, read_json
from defectflow.core.records import Coco
from defectflow.images.formats import SUFFIXES
from defectflow.label_formats.collected import Collected, numbers, pairs, turned

KINDS = ("polygon", "rectangle", "ellipse", "brush")
LABELS = tuple(f"{kind}labels" for kind in (*KINDS, "keypoint", "vector", "bitmask"))


def read(path: str) -> Coco:
    """Read an export, JSON and not JSON-MIN; predictions of a model are not read.

    Raises:
        UserError: it is malformed, or a task has annotations of several people.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: not a list of tasks (export it from Label Studio as JSON)")
    collected = Collected(path)
    predicted = 0
    for number, task in enumerate(tasks):
        where = f"{path}: task {task.get('id', number)}"
        given = task.get("annotations", task.get("completions")) or []
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise UserError(f"{where}: `annotations` is no list of annotations (export it as JSON, not JSON-MIN)")
        done = [one for one in given if not one.get("was_cancelled")]
        predicted += not done and bool(task.get("predictions"))
        if len(done) > 1:
            done = [one for one in done if one.get("ground_truth")] or done
        if len(done) > 1:
            raise UserError(
                f"{where}: {len(done)} annotations of one photograph, which counts? (mark one of them as ground truth "
                "in Label Studio, or delete the others, and export it again)"
            )
        results = done[0].get("result") if done else []
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
            raise UserError(f"{where}: `result` is no list of regions (export it again as JSON)")
        _add_task(collected, task, results, where)
    if predicted:
        text = "tasks with predictions that nobody has submitted as an annotation: these are not read"
        collected.notes.append(f"{predicted} {text}")
    return collected.coco()


def _add_task(collected: Collected, task: Mapping[str, Any], results: list[dict[str, Any]], where: str) -> None:
    sizes = [(one.get("original_width"), one.get("original_height")) for one in results]
    drawn = [one for one in results if isinstance(one.get("value"), dict)]
    width, height = next(((w, h) for w, h in sizes if w and h), (None, None))
    image = collected.image(_photograph(task, drawn, where), width, height)
    labelled = {one.get("id") for one in drawn if _label(one)}
    for one in drawn:
        kind = str(one.get("type", "")).removesuffix("labels")
        value, label = one["value"], _label(one)
        if kind == "":  # type "labels": its geometry is that of the control tag that drew it
            kind = "polygon" if "points" in value else "brush" if "rle" in value else "rectangle"
        if not label and one.get("id") in labelled:
            continue  # the same region, as the tool of the drawing writes it
        if kind not in KINDS:
            if kind not in ("choices", "textarea", "rating", "taxonomy", "relation", "number"):
                collected.skipped[kind] += 1
            continue
        place = f"{where}, {kind} {label}"
        if one.get("image_rotation"):
            raise UserError(f"{place}: drawn on a photograph that was turned in Label Studio (turn it back and redraw)")
        if (one.get("original_width"), one.get("original_height")) != (width, height) or not width:
            raise UserError(f"{place}: no `original_width` and `original_height`, or several (export it again)")
        across, down = numbers([width, height], place)
        if kind == "brush":
            if value.get("format") != "rle" or not isinstance(value.get("rle"), list):
                raise UserError(f"{place}: its strokes are not in format `rle` (export it as JSON)")
            brush = [int(byte) for byte in numbers(value["rle"], place)]
            collected.painted(image, label, {"size": [int(down), int(across)], "brush": brush})
        elif kind == "polygon":
            points = [(x * across / 100, y * down / 100) for x, y in pairs(value.get("points"), place)]
            collected.polygon(image, label, points)
        else:
            names = ("x", "y", "width", "height") if kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
            x, y, w, h = numbers([value.get(name) for name in names], place)
            x, y, w, h = x * across / 100, y * down / 100, w * across / 100, h * down / 100
            turn = numbers(value.get("rotation") or 0, place)[0]
            if kind == "ellipse":
                collected.ellipse(image, label, (x, y), (w, h), turn)
            else:  # turned about its first corner
                collected.box(image, label, turned([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], (x, y), turn))


def _photograph(task: Mapping[str, Any], drawn: list[dict[str, Any]], where: str) -> str:
    """The name of the photograph of a task: what the regions were drawn on, or the only value that looks like one."""
    data = task.get("data") if isinstance(task.get("data"), dict) else {}
    texts = {key: value for key, value in (data or {}).items() if isinstance(value, str) and value}
    named = {texts[one["to_name"]] for one in drawn if one.get("to_name") in texts}
    looks = {value for value in texts.values() if value.split("?d=")[-1].split("?")[0].lower().endswith(SUFFIXES)}
    for found in (named, {texts["image"]} if "image" in texts else set(), looks):
        if len(found) == 1:
            return found.pop()
    if isinstance(task.get("file_upload"), str) and task["file_upload"]:
        return str(task["file_upload"])
    raise UserError(f"{where}: its `data` does not say which photograph it is (keep one value that is its file name)")


def _label(result: Mapping[str, Any]) -> str:
    value = result.get("value")
    kind = str(result.get("type", ""))
    labels = value.get(kind) if isinstance(value, dict) and (kind in LABELS or kind == "labels") else None
    return ", ".join(map(str, labels)) if isinstance(labels, list) else ""
