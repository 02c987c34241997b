"""Real photographs with object masks: reading, and a split by series that keeps similar pictures on one side.

A folder contains `index.csv` with the columns file, mask, source (its origin), licence and figure ("yes" if the union
of the masks is the main object of the photograph), and the files named in it. A mask is a label map: 0 background, 1 to
n objects, 255 unknown.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from defectflow.core.files import UserError
from defectflow.images.read_write import read_rgb

UNKNOWN = 255  # label of undecided pixels
LONGEST = 512  # px, the network's own size
ALIKE = 0.8  # correlation from which two thumbnails belong to one series; 0.8 joins too much rather than too little
HELD = 10  # one in HELD series is held out


@dataclass(frozen=True)
class Photograph:
    """A photograph and its objects.

    Attributes:
        name: Path of the file in its folder.
        source: First folder of that path, "tools" for example.
        licence, origin: The columns licence and source of the index.
        image: uint8 RGB (height, width, 3), the long side at most LONGEST px.
        labels: uint8 (height, width); see the module.
        figure: Whether the union of the objects is the main object of the photograph.
    """

    name: str
    source: str
    licence: str
    image: np.ndarray
    labels: np.ndarray
    figure: bool
    origin: str = ""


def read_photographs(folder: str | Path) -> list[Photograph]:
    """Read a folder of annotated photographs, shrunk to LONGEST px.

    Raises:
        UserError: There is no index, it lacks a column, or a photograph and its mask differ in size.
    """
    index = Path(folder) / "index.csv"
    if not index.is_file():
        raise UserError(f"{index}: no such file (it lists the photographs and their masks)")
    with open(index, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"file", "mask", "source", "licence", "figure"} <= set(rows[0]):
        raise UserError(f"{index}: needs the columns file, mask, source, licence and figure")
    found = []
    for row in tqdm(rows, desc="photographs", unit="image"):
        image = read_rgb(Path(folder) / row["file"])
        labels = cv2.imread(str(Path(folder) / row["mask"]), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.shape != image.shape[:2]:
            raise UserError(f"{Path(folder) / row['mask']}: no label map of the size of {row['file']}")
        scale = LONGEST / max(labels.shape)
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        source = Path(row["file"]).parts[0]
        figure = row["figure"] == "yes"
        found.append(Photograph(row["file"], source, row["licence"], image, labels, figure, row["source"]))
    return found


def series_of(photographs: Sequence[Photograph]) -> list[int]:
    """Index of the first photograph of each one's series: pictures linked by thumbnails that correlate above ALIKE."""
    thumbs = []
    for one in photographs:
        grey = cv2.resize(cv2.cvtColor(one.image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
        grey = grey.astype(np.float32).ravel()
        grey -= grey.mean()
        thumbs.append(grey / (np.linalg.norm(grey) + 1e-6))
    stacked = np.stack(thumbs)
    first = list(range(len(photographs)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for i, j in np.argwhere(np.triu(stacked @ stacked.T > ALIKE, 1)):
        a, b = sorted((root(int(i)), root(int(j))))
        first[b] = a
    return [root(i) for i in range(len(photographs))]


def split(photographs: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """(training, held out): a tenth of the series, drawn by the hash of its first photograph's name.

    Raises:
        UserError: All are on one side.
    """
    sides: tuple[list[Photograph], list[Photograph]] = ([], [])
    for one, first in zip(photographs, series_of(photographs), strict=True):
        digest = hashlib.sha256(photographs[first].name.encode()).digest()
        sides[int.from_bytes(digest[:4], "big") % HELD == 0].append(one)
    if not all(sides):
        raise UserError(f"{len(photographs)} photographs: too few series to train on some and hold others out")
    return sides
