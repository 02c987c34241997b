"""Read ground-truth masks from any tool: find out which pixels mark a defect, in one way for a whole set.

Reads 0/1, 0/255 and any other two values, label maps, palettes, colours on one background, alpha channels, and masks
with soft edges (JPEG, scaled). An ambiguous mask is reported. `read_write.read_mask` reads the masks that this workflow
writes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from defectflow.core.files import UserError
from defectflow.images.decoders import UNREADABLE

FEW = 32  # a picture with at most this many colours is drawn, not photographed
SOFT = 0.35  # edges are soft if this share of the middle values lies on a slope between darker and brighter ones
CONTRAST = 64  # least difference in grey levels between background and defect of a mask with soft edges
BLACK = 0  # as a packed colour
SPREAD = 0.2  # share of a mask that may lie between background and defect
JPEG = ("JPEG", "MPO")


class Layers(NamedTuple):
    """A mask file, upright. Grey ones have ``values``, number (height, width), others ``rgb``, uint8 (..., 3).

    ``alpha`` is uint8 (height, width), or None where there is none.
    """

    values: np.ndarray | None
    rgb: np.ndarray | None
    alpha: np.ndarray | None
    lossy: bool


class Profile(NamedTuple):
    """What decides how a mask is read.

    Attributes:
        channel: "values", "index" (a palette that has one colour twice) or "colour".
        alpha: "none", "constant" or "varies".
        opaque: largest alpha.
        contradicts: whether the colours mark one part of what the alpha channel marks.
        lossy: whether it is a JPEG.
        counts: pixels by value, or by packed colour.
        middle: pixels between the smallest and the largest value.
        slope: those of them that lie on a slope from darker to brighter ones.
    """

    channel: str
    alpha: str
    opaque: int
    contradicts: bool
    lossy: bool
    counts: Counter[float]
    middle: int
    slope: int


class Reading(NamedTuple):
    """How the masks of a set are read.

    Attributes:
        channel: "values", "index", "colour" or "alpha".
        background: value or packed colour of the background; with ``cut``, distances are measured from it.
        cut: smallest value, distance or alpha of a defect; None: every pixel that is not background is a defect.
        text: for people; "" for two values with 0 as background.
    """

    channel: str
    background: float
    cut: float | None
    text: str


class Ambiguous(Exception):
    """The masks of a set are ambiguous; the message says how, with the remedy."""


def layers_of(path: str | Path, indices: bool = False) -> Layers:
    """Decode a mask, turned as EXIF says.

    Args:
        path: the file.
        indices: return the indices of a palette instead of its colours.

    Raises:
        UserError: the file is absent or not an image.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as opened:
            lossy = opened.format in JPEG
            image: Image.Image = opened
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "P" and indices:
                return Layers(np.asarray(image), None, None, lossy)
            if image.mode in ("P", "PA"):
                image = image.convert("RGBA")
            if image.mode == "1":
                return Layers(np.asarray(image).astype(np.uint8), None, None, lossy)
            if image.mode in ("L", "F") or image.mode.startswith("I"):
                values = np.asarray(image)
                return Layers(np.nan_to_num(values) if image.mode == "F" else values, None, None, lossy)
            if image.mode not in ("LA", "RGB", "RGBA"):
                image = image.convert("RGB")
            pixels = np.asarray(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not a readable image ({error})") from None
    alpha = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
    if pixels.shape[2] == 2:
        return Layers(pixels[..., 0], None, alpha, lossy)
    rgb = pixels[..., :3]
    red, green, blue = (rgb[..., k] for k in range(3))
    tolerance = 24 if lossy else 0  # the colours of a JPEG are not exact
    if max(int(cv2.absdiff(red, green).max()), int(cv2.absdiff(green, blue).max())) <= tolerance:
        return Layers(np.ascontiguousarray(green), None, alpha, lossy)
    return Layers(None, rgb, alpha, lossy)


def profile(path: str | Path) -> Profile:
    """Measure one mask.

    Raises:
        UserError: see `layers_of`.
    """
    found, channel = layers_of(path), "values"
    with Image.open(path) as image:
        palette = image.mode == "P"
    if palette:
        indices = layers_of(path, indices=True)
        drawn = np.unique(_packed(found) if found.values is None else found.values)
        if len(np.unique(_values(indices))) > len(drawn):
            found, channel = indices, "index"
    alpha, opaque, contradicts = "none", 255, False
    if found.alpha is not None:
        opaque = int(found.alpha.max())
        alpha = "varies" if found.alpha.min() < opaque else "constant"
        if alpha == "constant" and opaque == 255:
            alpha = "none"
        if alpha == "varies":
            bright = found.values if found.values is not None else _rgb(found).max(axis=2)
            share = float((bright[found.alpha * 2.0 >= opaque] * 2.0 < max(1, bright.max())).mean())
            contradicts = 0.01 < share < 0.99
    if found.values is None:
        counts = _count(_packed(found))
        return Profile("colour", alpha, opaque, contradicts, found.lossy, counts, 0, 0)
    values = found.values
    counts, middle, slope = _count(values), 0, 0
    if len(counts) > 2:
        plain = values if values.dtype in (np.uint8, np.uint16) else values.astype(np.float32)
        between = (plain > plain.min()) & (plain < plain.max())
        around = np.ones((3, 3), np.uint8)
        rising = (cv2.dilate(plain, around) > plain) & (cv2.erode(plain, around) < plain)
        middle, slope = int(between.sum()), int((between & rising).sum())
    return Profile(channel, alpha, opaque, contradicts, found.lossy, counts, middle, slope)


def choose(profiles: Iterable[Profile]) -> Reading:
    """The reading of a set of masks.

    Raises:
        Ambiguous: they can be read in two ways.
    """
    profiles = list(profiles)
    if any(one.alpha == "varies" for one in profiles):
        if any(one.contradicts for one in profiles):
            raise Ambiguous("its alpha channel marks one thing and its colours another (save one of them, as grey)")
        cut = max(one.opaque for one in profiles if one.alpha == "varies") / 2
        return Reading("alpha", 0, cut, "their alpha channel marks the defects, what is transparent is background")
    lossy, channels = any(one.lossy for one in profiles), {one.channel for one in profiles}
    if "colour" in channels:
        return _of_colours(_sum_packed(profiles), lossy)
    middle, slope = sum(one.middle for one in profiles), sum(one.slope for one in profiles)
    soft = lossy or (slope >= SOFT * middle > 0)
    return _of_values(_sum(profiles), soft, lossy, "index" if "index" in channels else "values")


def _of_values(counts: Counter[float], soft: bool, lossy: bool, channel: str) -> Reading:
    low, high = min(counts), max(counts)
    total, (frequent, most) = counts.total(), counts.most_common(1)[0]
    if len(counts) > 2 and soft and (high - low >= CONTRAST or high <= 1):
        # JPEG overshoots both values: take the most frequent value of each half.
        middle = (low + high) / 2
        low = max((value for value in counts if value <= middle), key=counts.__getitem__)
        high = max((value for value in counts if value > middle), key=counts.__getitem__)
        margin, cut = (high - low) / 8, (low + high) / 2
        near = [sum(n for v, n in counts.items() if abs(v - value) <= margin) for value in (low, high)]
        between = total - sum(near)
        beyond = total - near[0]
        if between > SPREAD * total or between * 3 > 2 * beyond:
            raise Ambiguous("has all values, as a photograph or a heatmap (save the defect as 255 on 0, as PNG)")
        return Reading(channel, low, cut, f"values from {low:g} to {high:g} are cut at half, {cut:g}")
    if soft and len(counts) > 2 and (lossy or high > FEW):
        raise Ambiguous(f"is soft and between {low:g} and {high:g} only (save the defect as 255 on 0, as PNG)")
    if len(counts) <= 2 and low == 0:
        return Reading(channel, 0, None, "")
    background, what = 0.0, "label maps"
    if counts[0] * 4 < most:
        background = frequent
        if most * 2 <= total:
            raise Ambiguous(
                f"has no 0, and none of its values {_few(counts)} is most of the picture (let 0 be background)"
            )
    if len(counts) <= 2:
        what = "two values"
    rest = sorted(value for value in counts if value != background)
    if not rest:
        return Reading(channel, 0, None, "")
    why = "" if background == 0 else ", the most frequent value"
    return Reading(channel, background, None, f"{what}: {background:g} is background{why}, {_few(rest)} mark defects")


def _of_colours(counts: Counter[int], lossy: bool) -> Reading:
    total, (frequent, most) = counts.total(), counts.most_common(1)[0]
    background = BLACK if counts[BLACK] * 4 >= most else frequent
    distances = {colour: _distance(colour, background) for colour in counts}
    near = sum(counts[colour] for colour, distance in distances.items() if distance < CONTRAST / 2)
    if near * 2 <= total:
        raise Ambiguous("has no colour that is most of the picture (save the mask alone, white on black)")
    name = _colour(background)
    if len(counts) <= FEW and not lossy:
        rest = [_colour(colour) for colour, _ in counts.most_common() if colour != background]
        return Reading("colour", background, None, f"colours: {name} is background, {_few(rest)} mark defects")
    high = max(distances.values())
    if high < CONTRAST:
        raise Ambiguous(f"has colours that are hardly other than {name} (save the defect white on black, as PNG)")
    middle = {colour: d for colour, d in distances.items() if CONTRAST / 2 <= d <= high - CONTRAST / 2}
    between = sum(counts[colour] for colour in middle)
    if between > SPREAD * total or (between * 4 > total - near and not _drawn(counts, distances)):
        raise Ambiguous("has many colours, as a photograph (save the mask alone, white on black)")
    text = f"colours: {name} is background, others are cut at half the largest difference to it"
    return Reading("colour", background, high / 2, text)


def _drawn(counts: Counter[int], distances: Mapping[int, int]) -> bool:
    """Whether four shades cover half of the pixels that are not background."""
    shades: Counter[int] = Counter()
    for colour, distance in distances.items():
        if distance >= CONTRAST / 2:
            shades[colour & 0xF0F0F0] += counts[colour]
    return 2 * sum(n for _, n in shades.most_common(4)) >= shades.total()


def read(path: str | Path, reading: Reading) -> np.ndarray:
    """Read a mask like the others of its set: bool (height, width), True on defects.

    Raises:
        UserError: the file cannot be read, or not in this way.
    """
    found = layers_of(path, indices=reading.channel == "index")
    if reading.channel == "alpha":
        if found.alpha is None:
            raise UserError(f"{path}: no alpha channel, and the other masks mark defects with theirs")
        return found.alpha >= reading.cut
    if reading.channel == "colour":
        rgb = _rgb(found)
        colour = np.array(_unpacked(int(reading.background)), np.uint8)
        distance = cv2.absdiff(rgb, np.broadcast_to(colour, rgb.shape).copy()).max(axis=2)
        marked: np.ndarray = distance > (0 if reading.cut is None else reading.cut)
        return marked
    values = found.values
    if values is None:
        raise UserError(f"{path}: a colour mask, and the others are grey")
    return values != reading.background if reading.cut is None else values > reading.cut


def _sum(profiles: list[Profile]) -> Counter[float]:
    """Pixels by value over a set."""
    counts: Counter[float] = Counter()
    for one in profiles:
        counts.update(one.counts)
    return counts


def _sum_packed(profiles: list[Profile]) -> Counter[int]:
    """Pixels by packed colour over a set, grey ones too."""
    counts: Counter[int] = Counter()
    for one in profiles:
        factor = 1 if one.channel == "colour" else 0x010101
        counts.update({int(v) * factor: n for v, n in one.counts.items()})
    return counts


def _count(values: np.ndarray) -> Counter[float]:
    if values.dtype == np.uint8:  # 20 times faster than sorting
        counts = np.bincount(values.ravel(), minlength=256)
        return Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _values(found: Layers) -> np.ndarray:
    assert found.values is not None, "a mask without colours has values"
    return found.values


def _rgb(found: Layers) -> np.ndarray:
    """Colours of a mask, uint8 (height, width, 3); of a grey one too."""
    return found.rgb if found.rgb is not None else np.dstack([_values(found).astype(np.uint8)] * 3)


def _packed(found: Layers) -> np.ndarray:
    rgb = _rgb(found).astype(np.uint32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _unpacked(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _distance(one: int, other: int) -> int:
    return max(abs(a - b) for a, b in zip(_unpacked(one), _unpacked(other), strict=True))


def _colour(colour: float) -> str:
    return {0: "black", 0xFFFFFF: "white"}.get(int(colour), f"#{int(colour):06x}")


def _few(values: Iterable[float | str]) -> str:
    words = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
