"""Which picture the coordinates of COCO outlines belong to: the frame (upright, or as stored), the size, the unit.

A photograph with an EXIF rotation has two frames, and tools disagree about which one they draw in and which one they
call `width` and `height`. Outlines may also be exported at another size, as shares or in percent. The answer follows
from the size of the file as stored and upright, the size in the COCO file, and the extent of the outlines. Everything
here is arithmetic on these numbers; if two readings fit, the pictures decide (`outline_set`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from defectflow.core.records import CocoImage

Size = tuple[float, float]  # width, height

UPRIGHT, STORED = "upright", "stored"
SHARES, PERCENT = "shares of the picture", "percent of the picture"
TURNED = "they fit only the pixels as stored, before the EXIF rotation: rotated with it"
ROUNDING = 0.02  # share of the side by which an outline may leave its picture: pens are thick, and tools round
SLOPPY = 0.10  # the same for a few outlines of a set, which are cut at the rim
FEW = 0.2  # share of the outlines of a set
ASPECT = 0.01  # by which the aspects of two sizes may differ, beside the rounding to whole pixels
SAME = 0.005  # share of a side by which a size that a tool rounded differs from that of the picture
HUNDREDS = 200  # pixels: in a picture of this size coordinates up to 100 are percent


@dataclass(frozen=True)
class Listed:
    """What the COCO file and the header of the picture say about one image.

    Attributes:
        raw_size: (width, height) of the pixels as stored.
        orientation: EXIF orientation, 1 to 8.
        told: (width, height) in the COCO file, None if absent.
        extent: smallest x and y, largest x and y of all polygons; None without polygons.
        has_rle: whether an outline is an RLE, which has a size of its own.
    """

    raw_size: tuple[int, int]
    orientation: int
    told: Size | None
    extent: tuple[float, float, float, float] | None
    has_rle: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return self.raw_size[::-1] if self.orientation >= 5 else self.raw_size

    def frames(self) -> list[tuple[str, tuple[int, int]]]:
        """The frames that outlines may be drawn in, with their sizes in pixels."""
        both = [(UPRIGHT, self.upright_size), (STORED, self.raw_size)]
        return both if self.orientation != 1 else both[:1]


@dataclass(frozen=True)
class Reading:
    """One way to read the outlines of an image.

    Attributes:
        frame: UPRIGHT or STORED.
        unit: (width, height) of that frame in the unit of the coordinates: its pixels, or (1, 1), (100, 100), or the
            size at which the outlines were exported.
        note: what was corrected, "" for nothing.
    """

    frame: str
    unit: Size
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """The readings that fit an image, the likeliest first.

    Attributes:
        readings: one if the sizes are conclusive; none if nothing fits; several if the picture has to decide.
        problem: why no reading can be used if the picture does not decide either; "" if the first one may be used.
        doubt: reported if the picture did not decide and the first reading was used.
        confirm: whether the picture must show that the only reading is right.
    """

    readings: tuple[Reading, ...]
    problem: str = ""
    doubt: str = ""
    confirm: bool = field(default=False)


Evidence = tuple[object, ...]  # what tells one image from others, see _evidence


def extent_of(polygons: Iterable[Sequence[float]]) -> tuple[float, float, float, float] | None:
    """Smallest x, smallest y, largest x, largest y of polygons x1, y1, x2, y2, ...; None where there are none."""
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        xs += polygon[0::2]
        ys += polygon[1::2]
    return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else None


def settle(listed: Mapping[str, Listed]) -> dict[str, Choice]:
    """Find the readings that fit each image of a set.

    Args:
        listed: of the images that have an outline, by name.

    Returns:
        A choice for each.
    """
    extents = [one.extent for one in listed.values() if one.extent]
    largest = max((max(extent[2:]) for extent in extents), default=0.0)
    smallest = min((min(extent[:2]) for extent in extents), default=0.0)
    if extents and largest <= 1 + ROUNDING and smallest >= -ROUNDING:
        return {name: _in_unit(one, 1, SHARES) for name, one in listed.items()}
    large = all(min(one.raw_size) >= HUNDREDS for one in listed.values())
    if extents and large and largest <= 100 * (1 + ROUNDING) and smallest >= -100 * ROUNDING:
        return {name: _in_unit(one, 100, PERCENT) for name, one in listed.items()}
    evidence = _evidence(listed)
    found = {name: _of_mixed_unit(one, _in_pixels(one, evidence)) for name, one in listed.items()}
    outside = [name for name, choice in found.items() if not choice.readings]
    if len(outside) <= max(1, FEW * len(found)) < len(found):
        for name in outside:
            found[name] = _cut(listed[name], found[name])
    return found


def fits(extent: Sequence[float] | None, size: Size, slack: float = ROUNDING) -> bool:
    """Whether outlines lie within a picture of this size; True for None (no polygons)."""
    if extent is None:
        return True
    x, y = slack * size[0] + 1, slack * size[1] + 1
    return extent[0] >= -x and extent[1] >= -y and extent[2] <= size[0] + x and extent[3] <= size[1] + y


def same_aspect(one: Size, other: Size) -> bool:
    """Whether two sizes are of one picture, scaled; each side was rounded to whole pixels."""
    (w, h), (v, g) = one, other
    return abs(w * g - v * h) <= max(ASPECT * w * g, 0.5 * (w + h), 0.5 * (v + g))


def _in_unit(one: Listed, unit: int, name: str) -> Choice:
    """Readings of coordinates as shares or percent; percent may also be pixels of a part in the corner."""
    sizes = [size for _, size in one.frames()]
    other = one.told if one.told and not any(_equal(one.told, size) for size in sizes) else None
    if unit == 100 and other and any(same_aspect(other, size) for size in sizes):
        return _in_pixels(one, set())  # pixels of a small copy, whose size the file gives
    # A size of 1 x 1 says that they are shares, as those of YOLO are.
    note = "" if one.told == (unit, unit) else f"coordinates are {name}, not pixels: converted"
    readings = [Reading(frame, (unit, unit), note) for frame, _ in _frames_as_told(one)]
    if one.extent is None:
        return _in_pixels(one, set())
    if unit == 100:
        readings += [Reading(frame, size) for frame, size in one.frames()]
    return Choice(tuple(readings))


def _of_mixed_unit(one: Listed, choice: Choice) -> Choice:
    """The same for an image of a set in pixels, whose own outlines may be shares or percent: exports were merged."""
    if one.extent is None or min(one.extent[:2]) < -ROUNDING:
        return choice
    largest = max(one.extent[2:])
    if largest <= 1 + ROUNDING:
        return _in_unit(one, 1, SHARES)
    if largest > 100 * (1 + ROUNDING) or min(one.raw_size) < HUNDREDS or not choice.readings:
        return choice
    percent = tuple(reading for reading in _in_unit(one, 100, PERCENT).readings if reading.unit == (100, 100))
    return replace(choice, readings=choice.readings + percent)  # used only if the picture confirms it


def _evidence(listed: Mapping[str, Listed]) -> set[Evidence]:
    """Relations proved by the extent of the outlines of some images, as keys that other images of the set share."""
    proved: set[Evidence] = set()
    for one in listed.values():
        if not (one.told and one.extent):
            continue
        inside = [frame for frame, size in one.frames() if fits(one.extent, size)]
        if len(inside) == 1 and one.upright_size != one.raw_size:
            proved.add(("frame", _relation(one), inside[0]))
        if not inside and fits(one.extent, one.told):
            proved.add(("scaled", _relation(one)))
        if inside and not fits(one.extent, one.told):
            proved.add(("pixels", _relation(one)))
    return proved


def _relation(one: Listed) -> Evidence:
    """How the size in the COCO file relates to the picture: a tool treats all images of one kind alike."""
    if one.told is None:
        return ("absent",)
    for frame, size in one.frames():
        if _equal(one.told, size):
            return (frame, one.orientation >= 5)
    return ("ratio", round(one.told[0] / one.upright_size[0], 1), one.orientation >= 5)


def _in_pixels(one: Listed, evidence: set[Evidence]) -> Choice:
    """Readings of coordinates in pixels, of the picture or of the size that the COCO file gives."""
    (width, height), told = one.upright_size, one.told
    pixels = [Reading(frame, size) for frame, size in _frames_as_told(one) if fits(one.extent, size)]
    of_size = [frame for frame, size in one.frames() if told and _equal(told, size)]
    if told and one.extent is None and one.has_rle and len(of_size) == 1 and one.orientation != 1:
        return Choice((Reading(of_size[0], told, TURNED if of_size[0] == STORED else ""),))
    reach = f"the outlines reach {one.extent[2]:.0f}x{one.extent[3]:.0f}" if one.extent else ""
    if one.extent and min(one.extent[:2]) < 0:
        reach = f"{reach} from {one.extent[0]:.0f}, {one.extent[1]:.0f}"
    stored = f" ({one.raw_size[0]}x{one.raw_size[1]} before EXIF rotation)" if one.raw_size != (width, height) else ""
    picture = f"the picture has {width}x{height}{stored}"
    if told is None:
        if not pixels:
            text = f"{reach}, {picture}, and the COCO file has no width and height (export it with these)"
            return Choice((), text)
        if one.extent is None:  # an RLE contains its size
            return Choice(tuple(pixels))
        if all(reading.frame == STORED for reading in pixels):
            pixels = [Reading(reading.frame, reading.unit, TURNED) for reading in pixels]
        text = "the COCO file has no width and height, and the picture does not show whether the outlines fit"
        return Choice(tuple(pixels), f"{text} (export it with these)", confirm=True)
    if any(_equal(told, size) for _, size in one.frames()):
        outside = f"{reach}, {picture}: drawn at another size, or x and y exchanged? (export them for this picture)"
        return _of_known_size(one, pixels, evidence, outside)
    if one.orientation == 1 and _equal(told[::-1], (width, height)) and width != height:
        if pixels and not fits(one.extent, told):
            exchanged = "width and height are exchanged in the COCO file: taken from the picture"
            return Choice((Reading(UPRIGHT, (width, height), exchanged),))
        return Choice((), _disagree(told, picture))
    return _of_other_size(one, pixels, evidence, _disagree(told, picture))


def _of_known_size(one: Listed, pixels: list[Reading], evidence: set[Evidence], outside: str) -> Choice:
    """The COCO file gives the size of one of the frames."""
    if not pixels:
        return Choice((), outside)
    first = pixels[0]
    as_told = next(frame for frame, _ in _frames_as_told(one))
    proved = [frame for frame in (UPRIGHT, STORED) if ("frame", _relation(one), frame) in evidence]
    if len(pixels) > 1 and len(proved) == 1:
        pixels = [reading for reading in pixels if reading.frame == proved[0]]
        first = pixels[0]
    if len(pixels) == 1:
        if first.frame != as_told:
            meant = "as it is stored" if as_told == STORED else "upright"
            drawn = "upright picture" if first.frame == UPRIGHT else "pixels as stored"
            note = f"width and height are those of the picture {meant}, the outlines of the {drawn}: read accordingly"
            return Choice((Reading(first.frame, first.unit, note),))
        return Choice((first,))
    doubt = ""
    if first.frame == STORED:
        doubt = "taken as drawn before the EXIF rotation, as width and height say: the pictures do not show if it is so"
    return Choice(tuple(pixels), doubt=doubt)


def _of_other_size(one: Listed, pixels: list[Reading], evidence: set[Evidence], disagree: str) -> Choice:
    """The COCO file gives a size that does not belong to the picture: a scaled picture, or a wrong size."""
    told = one.told
    assert told is not None
    inside = fits(one.extent, told)
    note = f"drawn at another size than that of the picture ({told[0]:.0f}x{told[1]:.0f}): scaled"
    alike = [frame for frame, size in one.frames() if same_aspect(told, size)]
    scaled = [Reading(frame, told, note) for frame in alike] if inside else []
    wrong = "width and height in the COCO file are wrong, the outlines fit the picture: taken as they are"
    as_they_are = [Reading(reading.frame, reading.unit, wrong) for reading in pixels]
    key = _relation(one)
    if ("scaled", key) in evidence and ("pixels", key) not in evidence:
        as_they_are = []
    if ("pixels", key) in evidence and ("scaled", key) not in evidence:
        scaled = []
    if not alike or not (scaled or as_they_are):
        return Choice((), disagree)
    if told[0] <= one.upright_size[0] and scaled and one.extent:
        as_they_are = []  # outlines that all happen to end where the smaller picture ends
    readings = (*scaled, *as_they_are)
    if one.extent is None:
        return Choice(tuple(scaled))
    return Choice(readings, disagree if len({reading.unit for reading in readings}) > 1 else "")


def _cut(one: Listed, choice: Choice) -> Choice:
    """Outlines of a few images that reach a little beyond the picture, where the file gives its size, are cut."""
    for frame, size in _frames_as_told(one)[:1]:
        if one.told and _equal(one.told, size) and fits(one.extent, size, SLOPPY):
            return Choice((Reading(frame, size, "reaches a little beyond the picture: cut at its rim"),))
    return choice


def _frames_as_told(one: Listed) -> list[tuple[str, tuple[int, int]]]:
    """The frames, first the one whose size the COCO file gives; the upright one if it fits both or neither."""
    frames = one.frames()
    if len(frames) > 1 and one.told and _equal(one.told, one.raw_size) and one.raw_size != one.upright_size:
        frames.reverse()
    return frames


def _equal(one: Size, other: Size) -> bool:
    return all(abs(a - b) <= max(0.5, SAME * b) for a, b in zip(one, other, strict=True))


def _disagree(told: Size, picture: str) -> str:
    return f"sizes disagree: annotated as {told[0]:.0f}x{told[1]:.0f}, {picture}"


def told_size(entry: CocoImage) -> Size | None:
    """(width, height) of an image in the COCO file, None where absent or 0."""
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if width and height else None
