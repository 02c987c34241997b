"""What is known of a photograph when labels are written: its place, its part, its damaged regions."""

import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from defectflow.core.files import UserError
from defectflow.core.records import Coco, CocoAnnotation, CocoImage
from defectflow.images.bit_depth import is_deep
from defectflow.images.exif_orientation import stored_size
from defectflow.images.read_write import read_rgb

PART, DEFECT = "part", "defect"
HELD_OUT = 0.2  # share of the photographs for validation or test, where the set has no split


@dataclass(frozen=True)
class Shape:
    """An outline: its label, and polygons [x0, y0, x1, y1, ...] in pixels of the upright photograph."""

    label: str
    polygons: list[list[float]]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of all polygons."""
        xs = [x for polygon in self.polygons for x in polygon[0::2]]
        ys = [y for polygon in self.polygons for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def area(self) -> float:
        """Area of all polygons in pixels."""
        return sum(abs(_twice_the_area(polygon)) for polygon in self.polygons) / 2


@dataclass(frozen=True)
class Labelled:
    """A photograph and its shapes.

    Attributes:
        image_id: safe as a file name, and of this photograph alone.
        name: relative to the folder of the photographs.
        path: of the file.
        width, height: of the upright picture in pixels.
        label: "0" (good), "1" (bad) or "".
        kind: of defect, "" if unknown.
        group, split: as in labels.csv.
        truth: path of its ground-truth mask, "" for none.
        shapes: the part, then the regions.
        depth: that a 16-bit file is read with, see `read_rgb`.
    """

    image_id: str
    name: str
    path: str
    width: int
    height: int
    label: str = ""
    kind: str = ""
    group: str = ""
    split: str = ""
    truth: str = ""
    shapes: list[Shape] = field(default_factory=list)
    depth: str | None = None


def labels_of(photographs: Iterable[Labelled]) -> list[str]:
    """The labels in use, the part first."""
    used = {shape.label for photograph in photographs for shape in photograph.shapes}
    return [label for label in (PART, DEFECT) if label in used]


def as_coco(photographs: Sequence[Labelled]) -> Coco:
    """The content of a COCO file: a category for each label, polygons and boxes in pixels."""
    numbers = {label: number for number, label in enumerate(labels_of(photographs), 1)}
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    for number, one in enumerate(photographs, 1):
        images.append({"id": number, "file_name": one.name, "width": one.width, "height": one.height})
        for shape in one.shapes:
            x, y, right, bottom = shape.box
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": numbers[shape.label], "iscrowd": 0,
                    "segmentation": shape.polygons, "bbox": [x, y, round(right - x, 2), round(bottom - y, 2)],
                    "area": shape.area,
                }
            )  # fmt: skip
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}  # type: ignore[typeddict-item]


def held_out(photographs: Sequence[Labelled]) -> set[str]:
    """Ids of the photographs for validation or test: those of the set's own split, or whole groups, HELD_OUT in all.

    Which groups does not depend on their order. A group is passed over if the share would be farther from HELD_OUT with
    it; at least one photograph is left on each side if there are two groups.
    """
    if any(one.split for one in photographs):
        return {one.image_id for one in photographs if one.split == "test"}
    groups: dict[str, list[str]] = {}
    for one in photographs:
        groups.setdefault(one.group or one.image_id, []).append(one.image_id)
    chosen: set[str] = set()
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    most = math.ceil(HELD_OUT * len(photographs))
    for name in order if len(order) > 1 else []:
        if abs(len(chosen) + len(groups[name]) - most) < most - len(chosen):
            chosen.update(groups[name])
    if not chosen and len(order) > 1:
        chosen.update(groups[min(order, key=lambda name: len(groups[name]))])
    return chosen


def check_stems(photographs: Iterable[Labelled]) -> None:
    """Raise a UserError if two photographs would share a label file, which has their name without the suffix."""
    owner: dict[str, str] = {}
    for one in photographs:
        stem = os.path.splitext(one.name)[0]
        if other := owner.get(stem):
            raise UserError(
                f"{one.name}: {other} has the same name but for the suffix, and one label file (rename one)"
            )
        owner[stem] = one.name


def copy_photograph(one: Labelled, target: Path, shallow: bool = False) -> None:
    """Copy a photograph; one with an EXIF rotation is written upright, as its labels are; another suffix: converted.

    ``shallow``: a 16-bit file is written in 8 bits, as the run reads it. Training programs take the upper 8 of 16 bits,
    so that the 12 bits of a camera would be almost black.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    deep = is_deep(one.path)
    reduced = deep and shallow
    same = stored_size(one.path)[1] == 1 and target.suffix.lower() == os.path.splitext(one.path)[1].lower()
    if same and not reduced:
        shutil.copyfile(one.path, target)
        return
    with Image.open(one.path) as image:
        # Pillow gives the upper 8 of the 16 bits of colours, whatever depth they have.
        kept = image.mode in ("1", "L", "P", "LA", "I;16") or (image.mode in ("RGB", "RGBA") and not deep)
        upright = (
            ImageOps.exif_transpose(image) if kept and not reduced else Image.fromarray(read_rgb(one.path, one.depth))
        )
        upright.save(target, quality=95)


def _twice_the_area(polygon: Sequence[float]) -> float:
    """The shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    ahead = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return sum(x * v - u * y for x, y, u, v in ahead)
