"""Defects that a person marks on a photograph: ground-truth masks, named in the column `mask` of labels.csv.

A mask is FOLDER/defects/NAME.png, 255 on the defect and 0 elsewhere, of the size of the upright photograph. A mask that
came along with the photographs is shown, and stays as it is: what is drawn on top of it becomes a new file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from defectflow.annotations.ground_truth import Ambiguous, choose, profile, read
from defectflow.core.files import UserError
from defectflow.desk.pictures.label_store import DRAWN
from defectflow.desk.project import Project
from defectflow.desk.records.outlines import drawn_mask, photograph_path, reduced
from defectflow.images.read_write import read_mask, read_photograph, write_png

LONGEST = 200  # bytes of a name of a file that is kept as it is
LARGEST = 0.8  # share of the picture; the workflow takes what covers more for inverted
TINT = (200, 0, 255)  # BGR


def save(project: Project, name: str, body: bytes) -> str:
    """Write what a person has marked on a photograph.

    Args:
        project: the folder.
        name: of the photograph.
        body: a PNG of the size of the reduced picture, see `outlines.drawn_mask`.

    Returns:
        What labels.csv has to name; "": nothing is marked, and nothing is written.

    Raises:
        UserError: there is no such photograph, it is no such PNG, or nearly the whole picture is marked.
    """
    full = drawn_mask(photograph_path(project, name), body)
    if not full.any():
        return ""
    if full.mean() > LARGEST:
        raise UserError(f"more than {LARGEST:.0%} of the photograph is marked (mark the defect, not the part)")
    named = file_name(name)
    path = project.path_inside(named)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, full)
    return named


def file_name(name: str) -> str:
    """The file of the mask of a photograph, relative to the folder."""
    folder, _, base = name.rpartition("/")
    if len(base.encode()) > LONGEST:
        base = hashlib.sha256(base.encode()).hexdigest()
    return f"{DRAWN}{folder}/{base}.png".replace("//", "/")


def mask_of(project: Project, name: str, named: str) -> np.ndarray:
    """What is marked on a photograph, bool, of the size of its reduced picture.

    Args:
        project: the folder.
        name: of the photograph.
        named: its cell in the column `mask` of labels.csv; "": none.

    Raises:
        UserError: there is no such photograph, or its mask is outside of the folder, cannot be read, or may mean two
            things.
    """
    size = reduced(read_photograph(photograph_path(project, name))).shape[:2]
    if not named:
        return np.zeros(size, bool)
    path: Path = project.path_inside(named)
    own = named.startswith(DRAWN)
    try:
        found = read_mask(path) if own else read(path, choose([profile(path)]))
    except Ambiguous as error:
        raise UserError(f"{named}: {error}") from None
    shown: np.ndarray = cv2.resize(found.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return shown > (0.5 if own else 0.25)  # what others have drawn may be thinner than a pixel here


def as_png(mask: np.ndarray, look: bool) -> bytes:
    """A mask as PNG: white on black, or with ``look`` tinted on nothing, to lie over the photograph."""
    if not look:
        return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
    shown = np.zeros((*mask.shape, 4), np.uint8)
    shown[mask] = (*TINT, 110)
    kernel = np.ones((3, 3), np.uint8)
    shown[mask & (cv2.erode(mask.astype(np.uint8), kernel) == 0)] = (*TINT, 255)
    return cv2.imencode(".png", shown)[1].tobytes()
