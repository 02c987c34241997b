"""A contact sheet of outlines that seem to miss the part, each next to a better fit."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from defectflow.annotations.outline_edges import Outline
from defectflow.annotations.outline_looker import Suspect, read_small
from defectflow.core.files import UserError, atomic
from defectflow.drawing.overlay_images import BAD, DIM, GOOD, INK, UNKNOWN, Cell, contact_sheet

SIDE = 320  # pixels, width of a picture
QUALITY = 88


def write_sheet(suspects: Sequence[Suspect], path: str | Path, depth: str | None = None) -> bool:
    """Draw suspicious outlines, two pictures for each; without any, remove an earlier sheet.

    Args:
        suspects: what to draw.
        path: JPEG to write. Not a declared output, because it must remain if the job fails because of these outlines.
        depth: of the photographs, see `read_write.read_rgb`.

    Returns:
        Whether a sheet was written.
    """
    if not suspects:
        Path(path).unlink(missing_ok=True)
        return False
    cells = []
    for suspect in suspects:
        try:
            photograph = read_small(suspect.path, depth)
        except UserError:
            continue
        first, _, second = suspect.text.partition(", and ")
        cells.append(Cell(_drawn(photograph, suspect.outline, BAD), ((suspect.name, INK), ("as annotated", DIM)), BAD))
        beside = _drawn(photograph, suspect.better, GOOD)
        cells.append(Cell(beside, ((first, INK), (second, INK)), GOOD if suspect.better else UNKNOWN))
    sections = [("red: as annotated; green: a better fit", cells)]
    sheet = contact_sheet("Outlines that do not seem to match the part", sections)
    with atomic(path) as temporary:
        quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        temporary.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), quality)[1].data)
    return True


def _drawn(photograph: np.ndarray, outline: Outline | None, colour: tuple[int, int, int]) -> np.ndarray:
    """The photograph at the width of the sheet with the points of an outline, if there is one."""
    height, width = photograph.shape[:2]
    picture = cv2.resize(photograph, (SIDE, max(1, round(height * SIDE / width))), interpolation=cv2.INTER_AREA)
    if outline is None:
        return picture
    scale = SIDE / outline.size[0]
    for x, y in (outline.points * scale).round().astype(int).tolist():
        cv2.circle(picture, (x, y), 2, (0, 0, 0), -1)
        cv2.circle(picture, (x, y), 1, colour, -1)
    return picture
