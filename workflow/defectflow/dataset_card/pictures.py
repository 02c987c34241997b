"""Pictures of a card: examples of each class, the extremes of light and sharpness, and where defects lie."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from defectflow.core.parallel import in_order
from defectflow.dataset_card.defect_places import Places
from defectflow.dataset_card.photographs import GOOD, NO_LABEL, class_order
from defectflow.drawing import overlay_images
from defectflow.drawing.overlay_images import DIM, INK, Cell, contact_sheet
from defectflow.evaluation.scored_images import evenly
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.reporting.galleries import Picture, data_uri

WIDTH = 300  # pixels of a thumbnail
EXAMPLES, CLASSES = 6, 12  # photographs of a class, classes that are shown
AVERAGED = 30  # photographs whose mean lies below the heat
SOFT = 0.1  # of the largest share: from there on heat is as opaque as its colour asks
FRAME = 640  # pixels, longer side of the picture of places


class Thumbnail(NamedTuple):
    """A photograph in small: its row of the table, uint8 RGB, and a word on it."""

    row: Any
    picture: np.ndarray
    word: str = ""

    @property
    def shown(self) -> Picture:
        """For a page."""
        return Picture(self.row.name, data_uri(self.picture), self.picture.shape[1], self.picture.shape[0])


def chosen(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Up to EXAMPLES photographs of each of the first CLASSES classes, spread evenly over their ids."""
    found = {}
    for name in class_order(table)[:CLASSES]:
        rows = table[table["class"] == name]
        found[name] = rows.iloc[evenly(len(rows), EXAMPLES)]
    return found


def extremes(table: pd.DataFrame) -> list[tuple[str, Any]]:
    """The darkest, brightest, least sharp and sharpest photograph, as (word, row); none of a single photograph."""
    if len(table) < 2:
        return []
    ends = [("darkest", table["luminance"].idxmin()), ("brightest", table["luminance"].idxmax())]
    ends += [("least sharp", table["sharpness"].idxmin()), ("sharpest", table["sharpness"].idxmax())]
    return [(word, next(table.loc[[index]].rename(columns={"class": "kind"}).itertuples())) for word, index in ends]


def thumbnails(rows: Iterable[tuple[str, Any]], depth: str | None, threads: int) -> list[Thumbnail]:
    """Photographs in small, (word, row) of each; the ground truth of a bad one is outlined."""

    def small(one: tuple[str, Any]) -> Thumbnail:
        word, row = one
        picture = overlay_images.thumbnail(read_rgb(row.path, depth), WIDTH)
        if row.label == 1 and row.mask:
            mask = read_mask(row.mask).astype(np.float32)
            size = (WIDTH, max(1, round(mask.shape[0] * WIDTH / mask.shape[1])))
            shrunk = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)[: len(picture)] >= 0.25
            picture = np.ascontiguousarray(picture)
            around = cv2.dilate(shrunk.astype(np.uint8), np.ones((7, 7), np.uint8))
            overlay_images.outline(picture, around, overlay_images.TRUTH, 2)
        return Thumbnail(row, picture, word)

    return list(in_order(small, rows, threads))


def examples(table: pd.DataFrame, depth: str | None, threads: int) -> dict[str, list[Thumbnail]]:
    """Thumbnails of the chosen photographs of each class."""
    rows = [
        (name, row)
        for name, those in chosen(table).items()
        for row in those.rename(columns={"class": "kind"}).itertuples()
    ]
    found: dict[str, list[Thumbnail]] = {}
    for one in thumbnails(rows, depth, threads):
        found.setdefault(one.word, []).append(one)
    return found


def sheet(title: str, shown: Mapping[str, Sequence[Thumbnail]], counts: Mapping[str, int]) -> np.ndarray:
    """A contact sheet of the examples, a section for each class: uint8 RGB."""
    colours = {GOOD: overlay_images.GOOD, NO_LABEL: overlay_images.UNKNOWN}
    sections = []
    for name, those in shown.items():
        colour = colours.get(name, overlay_images.BAD)
        cells = [Cell(one.picture, ((one.row.name, INK), (_about(one.row), DIM)), colour) for one in those]
        sections.append((f"{name}: {len(those)} of {counts[name]}", cells))
    return contact_sheet(title, sections, columns=EXAMPLES)


def _about(row: Any) -> str:
    return f"{row.width} x {row.height}" + (f", {row.group}" if row.group else "")


def mean_picture(table: pd.DataFrame, size: tuple[int, int], depth: str | None, threads: int) -> np.ndarray:
    """The mean of some good photographs, of any if none is good, in grey: uint8 (height, width)."""
    good = table[table["label"] == 0]
    rows = good if len(good) else table
    paths = rows["path"].iloc[evenly(len(rows), AVERAGED)].tolist()

    def grey(path: str) -> np.ndarray:
        picture = cv2.cvtColor(read_rgb(path, depth), cv2.COLOR_RGB2GRAY)
        return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)

    total = np.zeros(size, np.float32)
    for picture in in_order(grey, paths, threads):
        total += picture
    return np.round(total / len(paths)).astype(np.uint8)


def frame_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the picture of places for a grid (rows, columns)."""
    factor = FRAME / max(grid)
    return max(1, round(grid[0] * factor)), max(1, round(grid[1] * factor))


def places_picture(frame: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Heat over the mean photograph: the last colour where most defects lie. uint8 RGB of the size of ``ground``.

    Args:
        frame: share of photographs whose defect covers a cell, float (rows, columns); not 0 everywhere.
        ground: uint8 (height, width).
    """
    heat = cv2.resize(frame, ground.shape[::-1], interpolation=cv2.INTER_LINEAR) / frame.max()
    heat = heat.clip(0, 1)
    grey = cv2.cvtColor((60 + ground * 0.45).astype(np.uint8), cv2.COLOR_GRAY2RGB).astype(np.float32)
    colours = overlay_images.palette()[(40 + heat * 215).astype(np.uint8)].astype(np.float32)
    opacity = (np.minimum(heat / SOFT, 1) * (0.35 + 0.55 * heat))[..., None]
    drawn: np.ndarray = np.round(grey * (1 - opacity) + colours * opacity).astype(np.uint8)
    return drawn


def places_pictures(
    table: pd.DataFrame, defects: Places | None, depth: str | None, threads: int
) -> dict[str, np.ndarray]:
    """The picture of places of all defects ("") and, where there are several, of each class."""
    if defects is None:
        return {}
    ground = mean_picture(table, frame_size(defects.frames[""].shape), depth, threads)
    kinds = [name for name in class_order(table) if name in defects.frames][:CLASSES]
    return {name: places_picture(defects.frames[name], ground) for name in ("", *(kinds if len(kinds) > 1 else ()))}
