"""Classify the annotations of a COCO file: outlines or boxes, of the part or of several categories.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from defectflow.core.files import UserError
from defectflow.core.records import Coco, CocoAnnotation

FEW_OUTLINES = 3  # outlined photographs up to which their outlines are carried over to the others, to learn from these


def is_outline(segmentation: object) -> bool:
    """Whether a ``segmentation`` is neither empty nor the corners of a box; it may still be malformed."""
    if isinstance(segmentation, dict):
        return bool(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return False
    if all(isinstance(polygon, list) and len(polygon) == 0 for polygon in segmentation):
        return False
    inner = segmentation[0] if isinstance(segmentation[0], list) and len(segmentation) == 1 else segmentation
    return len(inner) != 4 or isinstance(inner[0], list)


def is_box(annotation: CocoAnnotation) -> bool:
    """Whether an annotation is a box without an outline."""
    return bool(annotation.get("bbox")) and not is_outline(annotation.get("segmentation"))


def is_rectangle(segmentation: object) -> bool:
    """Whether an outline is one upright rectangle: tools export boxes as such polygons."""
    if not isinstance(segmentation, list) or len(segmentation) not in (1, 8, 10):
        return False
    points = segmentation[0] if isinstance(segmentation[0], list) else segmentation
    if len(points) not in (8, 10) or not all(isinstance(value, int | float) for value in points):
        return False
    corners = set(zip(points[0::2], points[1::2], strict=True))
    return len(corners) == 4 and len({x for x, _ in corners}) == len({y for _, y in corners}) == 2


def refuse_several(coco: Coco, category: str | None, source: object) -> None:
    """Raise a UserError if outlines of several categories would be merged because none is chosen.

    Categories without an outline do not count: some tools write one for all others.

    Args:
        coco: what ``dataset.read_coco`` returned.
        category: the chosen one, None for none.
        source: what the message names.
    """
    if category is not None:
        return
    size = {image["id"]: (image.get("width") or 0) * (image.get("height") or 0) for image in coco["images"]}
    names = {one.get("id"): str(one.get("name")) for one in coco["categories"]}
    shares: dict[str, list[float]] = defaultdict(list)
    for annotation in coco["annotations"]:
        name = names.get(annotation.get("category_id"))
        if name is not None and annotation["image_id"] in size and is_outline(annotation.get("segmentation")):
            shares[name].append(_area(annotation) / (size[annotation["image_id"]] or 1))
    if len(shares) > 1:
        told = [f"{name} (outlines: {len(found)}{_mean(found)})" for name, found in sorted(shares.items())]
        largest = max(shares, key=lambda name: (sum(shares[name]), name))
        raise UserError(
            f"{source}: outlines of {len(shares)} categories: {', '.join(told)} (say which is the part: "
            f"`category: {largest}`, or another, in the entry of the data set)"
        )


def _mean(shares: Sequence[float]) -> str:
    mean = sum(shares) / len(shares)
    return f", {100 * mean:.2g} % of the picture on average" if 0 < mean <= 1 else ""


def _area(annotation: CocoAnnotation) -> float:
    """Approximate area of an outline in pixels, enough to tell a part from a scratch; 0 if it is malformed."""
    segmentation: Any = annotation.get("segmentation")
    try:
        if isinstance(segmentation, dict):
            runs = segmentation["counts"]
            return float(sum(runs[1::2])) if isinstance(runs, list) else float(annotation.get("area") or 0)
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return float(sum(_polygon_area(polygon) for polygon in polygons))
    except (TypeError, ValueError, KeyError, IndexError):
        return 0.0


def _polygon_area(polygon: Sequence[float]) -> float:
    """The shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    ahead = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * v - u * y for x, y, u, v in ahead)) / 2
