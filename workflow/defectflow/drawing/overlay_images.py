"""Pictures for people: heat in fixed colours, overlays with outlines and a caption strip, contact sheets.

Colours mean the same everywhere: orange = what the detector finds anomalous, green = ground truth, blue = the part.
All functions are pure; pictures are uint8 RGB of shape (height, width, 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.drawing.heat_settings import Look

Colour = tuple[int, int, int]
DEFAULT = Look()

FOUND, TRUTH, PART = (255, 122, 26), (46, 232, 120), (120, 190, 255)
GOOD, BAD, UNKNOWN, WRONG = (64, 190, 120), (240, 84, 64), (150, 156, 166), (255, 214, 64)
GROUND = (96, 104, 118)
INK, PAPER, DIM = (236, 239, 244), (24, 27, 33), (160, 167, 178)


@dataclass(frozen=True)
class Scale:
    """Colour scale of the maps of one data set, in raw score units.

    low and high are the ends of the colours. On overlays, heat begins at ``warm`` (the highest level of good images)
    and is strongest from ``level`` on: the pixel threshold, or without one the highest level of good images.
    """

    low: float
    warm: float
    level: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One picture of a contact sheet: a thumbnail, lines of (text, colour) below it, and the colour of its frame."""

    picture: np.ndarray
    lines: tuple[tuple[str, Colour], ...]
    colour: Colour = UNKNOWN


def colour_scale(
    good: np.ndarray, everything: np.ndarray, level: float | None = None, vmax_quantile: float = DEFAULT.vmax_quantile
) -> Scale:
    """Colour scale from map values of good images and of all images (both float [N], background left out).

    The upper end lies above ``level``, so that damage is not drawn in the top colour only.
    """
    low, warm, top = (float(v) for v in np.percentile(good, [5, 99, 99.9]))
    level = top if level is None else level
    warm = min(warm, level)
    high = max(float(np.quantile(everything, vmax_quantile)), level + 0.35 * (level - low), low + 1e-6)
    return Scale(low, warm, level, high)


def scale_of(
    maps: Mapping[str, AnomalyMap],
    good: Sequence[str],
    everything: Sequence[str],
    level: float | None,
    vmax_quantile: float = DEFAULT.vmax_quantile,
) -> Scale:
    """Colour scale of a run, from some of its maps.

    Args:
        maps: by image_id.
        good, everything: image_ids; without good ones, all of them stand for what good images reach.
        level: the pixel threshold, or None.
        vmax_quantile: quantile of the values of all where the colours end.
    """

    def values(ids: Sequence[str]) -> np.ndarray:
        grids = [np.asarray(maps[i].grid_map) for i in ids]
        return np.concatenate([g[g > g.min()] if (g > g.min()).any() else g.ravel() for g in grids])

    return colour_scale(values(good or everything), values(everything), level, vmax_quantile)


def heat_index(heat: np.ndarray, scale: Scale, gamma: float = DEFAULT.gamma) -> np.ndarray:
    """Map values as colour numbers: uint8 of the same shape, 0 up to ``scale.low``, 255 from ``scale.high`` on."""
    share = np.clip((heat - scale.low) / (scale.high - scale.low), 0, 1)
    return (share**gamma * 255 + 0.5).astype(np.uint8)


@cache
def palette(colours: str = DEFAULT.colours) -> np.ndarray:
    """The 256 colours of the heat (matplotlib's inferno: lightness rises evenly): uint8 [256, 3]."""
    import matplotlib

    return (matplotlib.colormaps[colours](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)


def blurred(heat: np.ndarray, look: Look) -> np.ndarray:
    """A map of the whole frame as it is coloured: smoothed once more if the look wants that."""
    if not look.blur:
        return heat
    return cv2.GaussianBlur(heat, (0, 0), look.blur * max(heat.shape) / 256, borderType=cv2.BORDER_REFLECT_101)


def write_heatmap(path: Path, heat: np.ndarray, scale: Scale, look: Look = DEFAULT) -> None:
    """Write a map at full resolution as PNG with a palette: a third of the size of RGB, and the index is the value."""
    image = Image.fromarray(heat_index(blurred(heat, look), scale, look.gamma), "L")
    image.putpalette(palette(look.colours).tobytes())
    image.save(path, compress_level=6)


def opacities(heat: np.ndarray, scale: Scale, look: Look) -> np.ndarray:
    """Opacity of the heat on an overlay, float of the same shape, 0 to 1; see `Look`."""
    ramp: np.ndarray | float
    shown: np.ndarray | bool
    if look.alpha_mode == "heat":
        ramp, shown = heat_index(heat, scale, look.gamma) / 255, True
    else:
        shown = heat > scale.warm
        ramp = np.clip((heat - scale.warm) / max(scale.level - scale.warm, 1e-6), 0, 1)
        ramp = ramp if look.alpha_mode == "excess" else 1.0
    return np.asarray(look.opacity * shown * (look.alpha_min + (look.alpha_max - look.alpha_min) * ramp))


def overlay(
    photo: np.ndarray,
    heat: np.ndarray,
    scale: Scale,
    found: np.ndarray,
    truth: np.ndarray | None,
    part: np.ndarray | None,
    look: Look = DEFAULT,
) -> np.ndarray:
    """Photograph with heat, by default where the map exceeds what good images reach, and outlines.

    Args:
        photo: uint8 (H, W, 3).
        heat: float (H, W), map of the whole frame.
        scale: colour scale.
        found, truth, part: bool (H, W): damaged regions, ground truth or None, mask of the part or None.
        look: of the heat.
    """
    heat = blurred(heat, look)
    alpha = opacities(heat, scale, look)
    picture, hot = photo.copy(), alpha > 0
    colours, alpha = palette(look.colours)[heat_index(heat[hot], scale, look.gamma)], alpha[hot][:, None]
    picture[hot] = (photo[hot] * (1 - alpha) + colours * alpha + 0.5).astype(np.uint8)
    draw_outlines(picture, found, truth, part)
    return picture


def draw_outlines(picture: np.ndarray, found: np.ndarray, truth: np.ndarray | None, part: np.ndarray | None) -> None:
    """Draw the outlines of an overlay into ``picture`` (H, W, 3) in place."""
    width = max(2, round(max(picture.shape[:2]) / 350))
    if part is not None:
        outline(picture, part, PART, width // 2)
    if truth is not None:
        # Drawn around the defect, not on it: a crack is often thinner than the line.
        grown = cv2.dilate(truth.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8))
        outline(picture, grown, TRUTH, width // 2)
    outline(picture, found, FOUND, width)


def legend(
    found: np.ndarray, truth: np.ndarray | None, part: np.ndarray | None, mark: str = ""
) -> list[tuple[str, Colour]]:
    """What the outlines mean that `overlay` draws with these arguments, for `caption_strip`; mark: see `Region`."""
    meanings = [("part", PART)] if part is not None and part.any() else []
    meanings += [("ground truth", TRUTH)] if truth is not None and truth.any() else []
    return meanings + ([("peak only" if mark else "anomalous", FOUND)] if found.any() else [])


def triptych(
    photo: np.ndarray,
    heat: np.ndarray,
    scale: Scale,
    found: np.ndarray,
    truth: np.ndarray | None,
    part: np.ndarray | None,
    look: Look = DEFAULT,
) -> np.ndarray:
    """Photograph, masks and heatmap side by side: uint8 (H, 3 W + 2 gaps, 3); the arguments are those of `overlay`.

    The masks: the part (light where it is; the whole frame without one), in it the anomalous area in its colour and the
    outline of the ground truth.
    """
    masks = np.empty_like(photo)
    masks[:] = PAPER if part is None else np.where(part[..., None], GROUND, np.array(PAPER))
    masks[found] = FOUND
    nothing = np.zeros_like(found)
    draw_outlines(masks, nothing, truth, None)
    colours = palette(look.colours)[heat_index(blurred(heat, look), scale, look.gamma)]
    draw_outlines(colours, nothing, truth, part)
    gap = np.full((photo.shape[0], max(4, photo.shape[1] // 100), 3), PAPER, np.uint8)
    return np.hstack([photo, gap, masks, gap, colours])


def outline(picture: np.ndarray, mask: np.ndarray, colour: Colour, thickness: int) -> None:
    """Draw the border of a bool mask into ``picture`` in place, on a dark rim so that it shows on any ground."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if thickness > 1:
        cv2.drawContours(picture, contours, -1, (20, 20, 20), thickness + 2, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)


def boxes(picture: np.ndarray, regions: Sequence[tuple[int, int, int, int]], dashed: bool = False) -> None:
    """Draw boxes (x, y, width, height) around regions into ``picture`` in place, a little off what they enclose.

    Dashed boxes mark a peak that does not exceed the pixel threshold.
    """
    height, width = picture.shape[:2]
    line = max(1, round(max(height, width) / 700))
    for x, y, w, h in regions:
        first = (max(x - 3 * line, 0), max(y - 3 * line, 0))
        last = (min(x + w + 3 * line, width) - 1, min(y + h + 3 * line, height) - 1)
        cv2.rectangle(picture, first, last, (20, 20, 20), line + 2)
        if not dashed:
            cv2.rectangle(picture, first, last, FOUND, line)
            continue
        step = max(6 * line, (last[0] - first[0] + last[1] - first[1]) // 16)
        for left in range(first[0], last[0], 2 * step):
            for row in (first[1], last[1]):
                cv2.line(picture, (left, row), (min(left + step, last[0]), row), FOUND, line)
        for top in range(first[1], last[1], 2 * step):
            for column in (first[0], last[0]):
                cv2.line(picture, (column, top), (column, min(top + step, last[1])), FOUND, line)


def strip_height(width: int) -> int:
    """Height in pixels of the caption strip below a picture of this width."""
    return round(3.5 * _text_size(width))


def caption_strip(
    width: int,
    name: str,
    verdict: str,
    colour: Colour,
    notice: str,
    detail: str,
    legend: Sequence[tuple[str, Colour]],
    base: int | None = None,
) -> np.ndarray:
    """Strip of two lines: file name and verdict; details and what the outlines mean.

    Args:
        width: width of the picture above, in pixels.
        name, verdict, detail: texts; name and detail are shortened to fit.
        colour: of the verdict.
        notice: "" or a warning, drawn in yellow before the details.
        legend: (text, colour) of each outline; left out where there is no room.
        base: width in pixels that the letters are sized for, if it is not that of the picture.
    """
    size, height = _text_size(base or width), strip_height(base or width)
    image = Image.new("RGB", (width, height), PAPER)
    pen, font, small = ImageDraw.Draw(image), _font(size, bold=True), _font(max(9, round(size * 0.82)))
    pad, first, second = size // 2, round(size * 0.95), round(size * 2.5)
    left: float = pad
    right: float = width - pad
    pen.text((right, first), verdict, fill=colour, font=font, anchor="rm")
    room = right - pad - font.getlength(verdict) - size
    pen.text((pad, first), shorten(name, font, room), fill=INK, font=font, anchor="lm")
    if notice:
        pen.text((left, second), notice, fill=WRONG, font=small, anchor="lm")
        left += small.getlength(notice) + 0.7 * size
    # The legend gets what the details leave; entries that do not fit are left out.
    free = right - left - min(small.getlength(detail), 0.6 * width) - size
    for text, tint in reversed(legend):
        needed = small.getlength(text) + 1.9 * size
        if needed > free:
            break
        pen.text((right, second), text, fill=DIM, font=small, anchor="rm")
        start = right - small.getlength(text) - 0.35 * size
        pen.line([(start - size, second), (start, second)], fill=tint, width=max(2, size // 7))
        right, free = start - 1.55 * size, free - needed
    pen.text((left, second), shorten(detail, small, right - left), fill=DIM, font=small, anchor="lm")
    return np.asarray(image)


def contact_sheet(title: str, sections: Sequence[tuple[str, Sequence[Cell]]], columns: int = 4) -> np.ndarray:
    """Contact sheet: a title and, for each section, a heading and its cells in rows; empty sections say so."""
    side, gap, head, line = 320, 18, 30, 19
    width = columns * side + (columns + 1) * gap
    cells = [cell for _, section in sections for cell in section]
    tall = max((thumbnail(c.picture, side).shape[0] for c in cells), default=side)
    text = max((len(c.lines) for c in cells), default=1) * line + 10
    rows = [-(-len(section) // columns) for _, section in sections]
    height = 64 + sum(head + max(n * (tall + text + gap), 30) for n in rows) + gap
    image = Image.new("RGB", (width, height), PAPER)
    pen, large, medium, small = ImageDraw.Draw(image), _font(24, bold=True), _font(16, bold=True), _font(14)
    pen.text((gap, 34), title, fill=INK, font=large, anchor="lm")
    top = 64
    for heading, section in sections:
        pen.text((gap, top + head / 2), heading, fill=DIM, font=medium, anchor="lm")
        top += head
        if not section:
            pen.text((gap, top + 8), "none", fill=DIM, font=small, anchor="lm")
            top += 30
        for start in range(0, len(section), columns):
            for column, cell in enumerate(section[start : start + columns]):
                left = gap + column * (side + gap)
                picture = thumbnail(cell.picture, side)
                image.paste(Image.fromarray(picture), (left, top))
                box = (left - 2, top - 2, left + side + 1, top + picture.shape[0] + 1)
                pen.rectangle(box, outline=cell.colour, width=2)
                for number, (words, tint) in enumerate(cell.lines):
                    at = (left, top + picture.shape[0] + 15 + number * line)
                    pen.text(at, shorten(words, small, side), fill=tint, font=small, anchor="lm")
            top += tall + text + gap
    return np.asarray(image)


def thumbnail(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture scaled to ``width`` pixels; very tall ones are cut at 1.5 times the width."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    method = cv2.INTER_AREA if picture.shape[1] > width else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=method)[: round(1.5 * width)]


def shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or its beginning and end around an ellipsis, so that it fits into ``room`` pixels."""
    if font.getlength(text) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
        if font.getlength(short) <= room:
            return short
    return ""


def _text_size(width: int) -> int:
    return max(11, round(width / 44))


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic in any locale and on any machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
