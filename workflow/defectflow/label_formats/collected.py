"""Gather what an annotation tool drew in the form of a COCO file, and check its numbers. Standard library only."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from defectflow.core.files import UserError
from defectflow.core.records import Coco, CocoAnnotation, CocoCategory, CocoImage

ROUND = 64  # corners of the polygon that stands for an ellipse


class Collected:
    """The photographs and shapes of one or several files of a tool, as a COCO file lists them.

    Args:
        source: the file or folder that messages name.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self._images: list[CocoImage] = []
        self._annotations: list[CocoAnnotation] = []
        self._categories: dict[str, int] = {}

    def image(self, name: str, width: float | None, height: float | None) -> int:
        """Add a photograph and return its id; sizes in pixels (1 and 1 where coordinates are shares), None: unknown."""
        self._images.append({"id": len(self._images) + 1, "file_name": name, "width": width, "height": height})
        return len(self._images)

    def category(self, label: str) -> int:
        """The id of a category."""
        return self._categories.setdefault(label, len(self._categories) + 1)

    def polygon(self, image: int, label: str, points: Iterable[Sequence[float]]) -> None:
        """Add an outline through points (x, y)."""
        self._add(image, label, {"segmentation": [[value for point in points for value in point]]})

    def ellipse(self, image: int, label: str, centre: Sequence[float], radii: Sequence[float], turn: float = 0) -> None:
        """Add an ellipse, turned clockwise by ``turn`` degrees, as a polygon."""
        angles = [2 * math.pi * step / ROUND for step in range(ROUND)]
        flat = [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]
        self.polygon(image, label, turned(flat, centre, turn))

    def box(self, image: int, label: str, corners: Sequence[Sequence[float]]) -> None:
        """Add a box without an outline: the extent of these points (x, y)."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        self._add(image, label, {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]})

    def painted(self, image: int, label: str, segmentation: Mapping[str, object]) -> None:
        """Add a mask as its tool encodes it, see `annotations.painted_masks`."""
        self._add(image, label, {"segmentation": dict(segmentation)})

    def coco(self) -> Coco:
        """All of it.

        Raises:
            UserError: there is no photograph, or no shape that is an area.
        """
        if not self._images:
            raise UserError(f"{self.source}: it lists no photograph (export it again, or leave `annotations` out)")
        if not self._annotations:
            more = f": only {self._skips()}" if self.skipped else ""
            raise UserError(f"{self.source}: no outline and no box in it{more} (export it again; or `annotations: []`)")
        notes = [*self.notes, *([f"not read, since they enclose no area: {self._skips()}"] if self.skipped else [])]
        categories: list[CocoCategory] = [{"id": number, "name": name} for name, number in self._categories.items()]
        return {"images": self._images, "annotations": self._annotations, "categories": categories, "notes": notes}

    def _skips(self) -> str:
        return ", ".join(f"{kind} ({count})" for kind, count in sorted(self.skipped.items()))

    def _add(self, image: int, label: str, shape: CocoAnnotation | Mapping[str, object]) -> None:
        known: CocoAnnotation = {
            "id": len(self._annotations) + 1, "image_id": image, "category_id": self.category(label)
        }  # fmt: skip
        known.update(shape)  # type: ignore[typeddict-item]
        self._annotations.append(known)


def turned(points: Iterable[Sequence[float]], centre: Sequence[float], degrees: float) -> list[tuple[float, float]]:
    """Points (x, y), y downwards, turned clockwise about a centre."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    away = [(x - centre[0], y - centre[1]) for x, y in points]
    return [(centre[0] + c * x - s * y, centre[1] + s * x + c * y) for x, y in away]


def numbers(values: Any, where: str) -> list[float]:
    """Values, or texts, as finite numbers.

    Raises:
        UserError: one of them is not; the message begins with ``where``, the file and the place in it.
    """
    found = []
    for value in values if isinstance(values, list | tuple) else [values]:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{where}: {value!r:.40} is not a number (export it again)")
        found.append(number)
    return found


def pairs(values: object, where: str) -> list[tuple[float, float]]:
    """Points [[x, y], ...] as finite numbers.

    Raises:
        UserError: they are not; see `numbers`.
    """
    if not isinstance(values, list) or not all(isinstance(point, list) and len(point) == 2 for point in values):
        raise UserError(f"{where}: no list of points [x, y] (export it again)")
    return [(x, y) for x, y in (numbers(point, where) for point in values)]


def size(values: Sequence[object], where: str) -> tuple[float | None, float | None]:
    """(width, height) in pixels; None for both where either is absent or 0.

    Raises:
        UserError: they are no numbers, or below 0.
    """
    if any(value in (None, "") for value in values):
        return None, None
    width, height = numbers(list(values), where)
    if width < 0 or height < 0:
        raise UserError(f"{where}: a picture of {width:g}x{height:g} pixels (export it again)")
    return (width, height) if width and height else (None, None)
