"""Which photographs a report shows, and their pictures, small enough to embed in one HTML file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from defectflow.core.anomaly_maps import AnomalyMap, full_resolution
from defectflow.core.disk_index import DiskIndex
from defectflow.decision.outcomes import FALSE_ALARM, MISSED, RIGHT, is_flagged
from defectflow.decision.pred_score import is_close
from defectflow.drawing import overlay_images
from defectflow.drawing.heat_settings import Look
from defectflow.drawing.overlay_images import DEFAULT, Scale
from defectflow.evaluation.scored_images import damage_at
from defectflow.images.read_write import read_mask, read_rgb

SIDE = 560  # pixels, longer side of a picture; twice what a page shows, for sharp screens
QUALITY = 80
GLOWS = 0.5  # a picture glows all over if heat covers at least this share of it
ERRORS_SHOWN, CLOSE_SHOWN, TYPICAL_SHOWN, NEW_SHOWN = 10, 5, 3, 5
FLAGGED_SHOWN, MASKS_SHOWN = 12, 6


@dataclass(frozen=True)
class Picture:
    """A picture for an <img>: its description, a data URI, its size in pixels."""

    kind: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Case:
    """One photograph of a gallery.

    Attributes:
        row: of the joined table.
        pictures: of it.
        drawn: what its overlay shows: some of "found", "truth", "part".
        glow: share of the overlay that heat covers, in [0, 1].
        mark: why its box is the peak and not a region, or ""; see `damaged_regions.Region`.
    """

    row: Any
    pictures: tuple[Picture, ...]
    drawn: frozenset[str] = frozenset()
    glow: float = 0.0
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Photographs of one kind: title, introduction, total number, the rows shown, and the text if there are none."""

    title: str
    lead: str
    total: int
    rows: pd.DataFrame
    none: str = "None."


def choose(table: pd.DataFrame, n_new: int) -> list[Gallery]:
    """The galleries of a run; no photograph is in two.

    Args:
        table: predictions with the columns margin (see `pred_score.margins`) and outcome (see
            `outcomes.outcomes`): every labelled photograph, and of those without a label at least the NEW_SHOWN most
            suspicious ones.
        n_new: how many without a label there are.
    """
    table = table[table["raw_score"].notna()].sort_values(["margin", "filename"], kind="stable")
    outcome, verdict = table["outcome"], table["predicted_label"]
    missed, alarms = table[outcome == MISSED], table[outcome == FALSE_ALARM][::-1]
    shown = [
        Gallery("Missed defects", "Bad, but called good; lowest scores first.", len(missed), missed),
        Gallery("False alarms", "Good, but called bad; highest scores first.", len(alarms), alarms),
    ]
    judged = table[outcome != ""]
    shown = [
        replace(g, rows=g.rows.head(ERRORS_SHOWN), none=_none_of(judged["label"] == label, word))
        for g, label, word in zip(shown, (1, 0), ("bad", "good"), strict=True)
    ]
    rest = table.drop(index=pd.concat([missed, alarms]).index)
    close = rest[rest["outcome"] == RIGHT]
    close = close.loc[close["margin"].abs().sort_values(kind="stable").index[:CLOSE_SHOWN]].sort_values("margin")
    near = close[is_close(close["margin"], close["raw_score"], close["threshold"])]
    if len(near):
        close = near
        lead = "Judged correctly, but near their threshold: with slightly different light the verdict might change."
        shown.append(Gallery("Close calls", lead, len(close), close))
    else:
        lead = "Judged correctly, and none is a close call: these are the nearest to the threshold."
        shown.append(Gallery("Nearest to the threshold", lead, len(close), close))
    rest = rest.drop(index=close.index)
    for title, lead, wanted in (
        ("Typical bad", "Correctly called bad, with a typical score for their kind.", 1),
        ("Typical good", "Correctly called good, with a typical score for their kind.", 0),
    ):
        decided = (rest["outcome"] == RIGHT) & (rest["review"] != 1)
        rows = rest[decided & (verdict.loc[rest.index] == wanted)]
        shown.append(Gallery(title, lead, len(rows), _middle(rows, TYPICAL_SHOWN)))
    new = rest[rest["label"].isna()][::-1]
    if len(new):
        lead = "Photographs without a label; highest scores first."
        shown.append(Gallery("Without a label", lead, n_new, new.head(NEW_SHOWN)))
    return [gallery for gallery in shown if gallery.total or gallery.title in ("Missed defects", "False alarms")]


def _none_of(which: pd.Series, kind: str) -> str:
    """The text of an empty gallery of errors: none among this many photographs, or nothing that could be wrong."""
    n = int(which.sum())
    return (
        f"None of {n} {kind} one{'s' * (n != 1)}."
        if n
        else f"No photograph of a {kind} part has a label and a verdict."
    )


def heat_note(look: Look, scale: Scale, good: bool, cases: Sequence[Case]) -> str:
    """Explain where heat shows on the overlays of a page.

    Args:
        look, scale: of the heat.
        good: whether a photograph is labelled good, so that the scale knows what good ones reach.
        cases: those shown.
    """
    if look.alpha_mode == "heat":
        text = "Heat covers the whole of an overlay, stronger where values are larger."
    elif not good:
        text = "No photograph is labelled good: heat shows where values are largest among all of them."
    elif scale.warm >= scale.level:
        text = "Heat shows from the pixel threshold on, which some pixels of good photographs exceed too."
    else:
        text = "Heat shows above what 99 of 100 pixels of good photographs reach."
    text += " All pictures have one scale."
    drawn = [case for case in cases if case.drawn or case.glow]
    glowing = sum(case.glow > GLOWS for case in drawn)
    if glowing and look.alpha_mode != "heat":
        text += (
            f" {glowing} of the {len(drawn)} pictured glow{'s' * (glowing == 1)} over more than half of the frame, as "
            "other light, distance or background look: such heat points at no defect."
        )
    return text


def _middle(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` rows around the middle of ordered rows."""
    start = max(0, (len(rows) - count) // 2)
    return rows.iloc[start : start + count]


def case_of(
    row: Any,
    maps: Mapping[str, AnomalyMap],
    scale: Scale,
    regions: DiskIndex,
    look: Look = DEFAULT,
    depth: str | None = None,
) -> Case:
    """Photograph, part, heat and overlay of one image, each at most SIDE pixels long.

    Args:
        row: of the joined table: image_id, path, mask (ground truth or ""), part (mask of the part or ""), label.
        maps: by image_id.
        scale: colours of the run.
        regions: damaged ones of all photographs, see `damage_index`.
        look: of the heat.
        depth: of the photograph, see `read_rgb`.
    """
    photo = read_rgb(row.path, depth)
    size = photo.shape[:2]
    drawn, glow, mark = set(), 0.0, ""
    small = shrink(photo)
    part = _small_mask(row.part, small)
    pictures = [_picture("photograph", small)]
    if part is not None:
        pictures.append(_picture("part", dimmed(small, part, overlay_images.PART)))
    if row.image_id in maps:
        entry = maps[row.image_id]
        heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size, entry.sigma)
        heat = cv2.resize(heat, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        truth = _small_mask(row.mask, small) if row.label == 1 else None
        boxes, found, mark = damage_at(regions, row.image_id, size)
        found = _shrunk(found, small)
        overlay = overlay_images.overlay(small, heat, scale, found, None, part, look)
        if truth is not None:  # in a small picture the line has to be thicker, and further from the defect
            overlay_images.outline(
                overlay, cv2.dilate(truth.astype(np.uint8), np.ones((9, 9), np.uint8)), overlay_images.TRUTH, 2
            )
        small_boxes = np.round(np.array(boxes) * small.shape[1] / photo.shape[1]).astype(int).tolist()
        overlay_images.boxes(overlay, small_boxes, dashed=bool(mark))
        shown = {"found": bool(boxes), "truth": truth is not None and truth.any()}
        shown["part"] = part is not None and part.any()
        drawn = {name for name, there in shown.items() if there}
        glow = float((overlay_images.opacities(overlay_images.blurred(heat, look), scale, look) > 0).mean())
        # Heat is smooth, so it looks the same at half the size.
        index = overlay_images.heat_index(overlay_images.blurred(heat, look), scale, look.gamma)
        pictures.append(_picture("heat", overlay_images.palette(look.colours)[index[::2, ::2]]))
        pictures.append(_picture("overlay", overlay))
    return Case(row, tuple(pictures), frozenset(drawn), glow, mark)


def mask_case(row: Any, depth: str | None = None) -> Case:
    """The outline of the part on one photograph, yellow where the mask is flagged."""
    small = shrink(read_rgb(row.path, depth))
    part = _small_mask(row.part, small)
    colour = overlay_images.WRONG if is_flagged(row.mask_present, row.mask_doubtful) else overlay_images.PART
    return Case(row, (_picture("part", small if part is None else dimmed(small, part, colour)),))


def shrink(picture: np.ndarray) -> np.ndarray:
    """The picture (uint8 [H, W, 3]), scaled down to at most SIDE pixels."""
    factor = min(1.0, SIDE / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def dimmed(photo: np.ndarray, mask: np.ndarray, colour: overlay_images.Colour) -> np.ndarray:
    """A copy of the photograph, dark outside of the mask, with its outline."""
    picture = np.where(mask[..., None], photo, (photo * 0.35).astype(np.uint8))
    overlay_images.outline(picture, mask, colour, 2)
    return picture


def data_uri(picture: np.ndarray) -> str:
    """A picture (uint8 RGB) as JPEG in a data URI; colours at full resolution, so that outlines stay crisp."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _picture(kind: str, picture: np.ndarray) -> Picture:
    return Picture(kind, data_uri(picture), picture.shape[1], picture.shape[0])


def _small_mask(path: str, like: np.ndarray) -> np.ndarray | None:
    return _shrunk(read_mask(path), like) if path else None


def _shrunk(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    small = cv2.resize(mask.astype(np.float32), like.shape[1::-1], interpolation=cv2.INTER_AREA)
    covered: np.ndarray = small >= 0.25
    # What is much thinner than a pixel of the small picture is kept as well, as one of them.
    covered |= (small > 0) & (cv2.dilate(covered.view(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    return covered
