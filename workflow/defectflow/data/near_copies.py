"""Photographs that hardly differ: copies that were saved in another format, quality or size.

If such a pair has two labels or is on both sides of a split, the figures are misleading. Candidates are found by their
fingerprints and then compared pixel by pixel, because in a fixture all photographs look alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from defectflow.core.files import UserError
from defectflow.core.records import DataSet
from defectflow.images.fingerprint import SCALE, decoded
from defectflow.images.image_checks import Picture
from defectflow.images.read_write import read_rgb
from defectflow.sources.dataset import Notice

if TYPE_CHECKING:
    from defectflow.core.parallel import Map

# Chosen on copies of photographs from six sets (JPEG of quality 20 to 95, WebP, a third to twice the size), on the most
# similar pairs of those sets, on copies with a drawn scratch, and on second shots simulated by added noise.
ALIKE = 0.05  # root mean square between fingerprints, in standard deviations: copies 0.00 to 0.03
FINE = 0.6  # correlation of detail finer than 2 pixels: copies 0.67 to 1.0, moved by one pixel 0.34 to 0.76
LOCAL = 0.9  # difference of 8x8 pixels in units of their contrast: copies 0.0 to 0.7, with a scratch 0.7 to 5
GRAIN = 0.3  # share of blocks with independent grain: copies 0.0 to 0.24, two shots up to 1.0
NEAR = "hardly differs from"  # how a notice begins
CHECKED = 200  # pairs, the most similar ones, that are decoded
_ROWS, _COLUMNS = 256, 4096  # a tile of distances is 4 MB


class Side(NamedTuple):
    """Label, split and group of photographs, an array (number,) each.

    Attributes:
        label: int8, 0 good, 1 bad, -1 unknown.
        split: int8, 0 for none, the same number for photographs of one side.
        group: int64, the same number for photographs of one group.
    """

    label: np.ndarray
    split: np.ndarray
    group: np.ndarray

    def matters(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether it matters that photographs ``one`` and ``other`` are alike: bool, for index arrays."""
        known = (self.label[one] >= 0) & (self.label[other] >= 0)
        contradict = known & (self.label[one] != self.label[other])
        if self.split.any():
            fixed = (self.split[one] > 0) & (self.split[other] > 0)
            apart: np.ndarray = fixed & (self.split[one] != self.split[other])
        else:
            apart = known & (self.group[one] != self.group[other])
        either: np.ndarray = contradict | apart
        return either


def check_near_copies(
    resolved: DataSet,
    pictures: Mapping[str, Picture],
    row: Callable[[str], Mapping[str, str]],
    left_out: set[str],
    each: Map = map,
) -> list[Notice]:
    """Report pairs of photographs that hardly differ and have different labels, or judge each other.

    Args:
        resolved: the data set: images, and depth if its photographs have one (see `read_write.read_rgb`).
        pictures: measurements of each image.
        row: labels of an image from folders and labels.csv, see `dataset.row_reader`.
        left_out: names to ignore.
        each: maps a function over pairs, such as that of a pool.
    """
    folder, names, rows = str(resolved["images"]), [], []
    for name, picture in pictures.items():
        known = row(name) if picture.fingerprint and name not in left_out else {"label": "", "split": ""}
        if known["label"] or known["split"]:
            names.append(name)
            rows.append((known["label"], known["split"], known["group"]))
    groups: dict[str, int] = {}
    splits, alone = {"": 0}, count(-1, -1)
    side = Side(
        np.array([int(label or -1) for label, _, _ in rows], np.int8),
        np.array([splits.setdefault(split, len(splits)) for _, split, _ in rows], np.int8),
        np.array([groups.setdefault(group, len(groups)) if group else next(alone) for *_, group in rows], np.int64),
    )
    pairs, further = candidates(decoded(pictures[name].fingerprint for name in names), side.matters)
    paths = [(os.path.join(folder, names[one]), os.path.join(folder, names[other])) for one, other in pairs]
    same = list(each(lambda pair: hardly_differ(pair[0], pair[1], depth=resolved.get("depth")), paths))
    found = [
        Notice(names[other], _row_text(names[one], rows[one], rows[other]), "verdicts")
        for (one, other), alike in zip(pairs, same, strict=True)
        if alike
    ]
    if further:
        more = f"up to {further} more pairs of photographs look alike at a glance"
        text = f"{more}; only the {len(pairs)} most similar were compared pixel by pixel for copies"
        found.append(Notice(folder, text))
    return sorted(found)


def candidates(
    marks: np.ndarray, matters: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[list[tuple[int, int]], int]:
    """Pairs of similar fingerprints.

    Args:
        marks: int8 (number, 256).
        matters: takes two index arrays and returns which pairs to check, bool.

    Returns:
        The most similar pairs (smaller index, larger index), CHECKED at most, most similar first; an upper limit on
        the number of further pairs.
    """
    limit = marks.shape[1] * (ALIKE * SCALE) ** 2
    squares = np.einsum("ij,ij->i", marks, marks, dtype=np.int64).astype(np.float32)
    best, passed = np.zeros((0, 3), np.int64), 0
    for start in range(0, len(marks), _ROWS):
        rows, own = marks[start : start + _ROWS].astype(np.float32), squares[start : start + _ROWS, None]
        for first in range(start, len(marks), _COLUMNS):
            columns = marks[first : first + _COLUMNS].astype(np.float32)
            distance = rows @ columns.T  # whole numbers below 2**24: exact in float32
            distance *= -2
            distance += own
            distance += squares[first : first + _COLUMNS]
            alike = distance <= limit
            if first == start:
                alike = np.triu(alike, 1)  # every pair once
            passed += int(np.count_nonzero(alike))
            if len(best) == CHECKED:
                alike &= distance < best[-1, 0]
            one, other = np.nonzero(alike)
            passed -= len(one)
            distance = distance[one, other].astype(np.int64)
            one, other = one + start, other + first
            keep = matters(one, other)
            best = np.concatenate([best, np.stack([distance, one, other], axis=1)[keep]])
            passed += max(0, len(best) - CHECKED)
            best = best[np.lexsort(best.T[::-1])][:CHECKED]
    return [(one, other) for _, one, other in best.tolist()], passed


def hardly_differ(one: str, other: str, depth: str | None = None) -> bool:
    """Whether two pictures are the same photograph apart from recompression and scaling."""
    try:
        pair = [cv2.cvtColor(read_rgb(path, depth), cv2.COLOR_RGB2GRAY) for path in (one, other)]
    except UserError:
        return False
    height, width = (min(sides) for sides in zip(*(picture.shape for picture in pair), strict=True))
    resized = (cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pair)
    looks = [(picture, float(picture.mean()), max(float(picture.std()), 0.1)) for picture in resized]
    products, own, blocks = np.zeros(3), 0, 0
    for tile in _tiles(height, width):
        x, y = ((picture[tile].astype(np.float32) - mean) / spread for picture, mean, spread in looks)
        contrast = np.minimum(_contrast(x), _contrast(y))
        if (np.abs(cv2.blur(x - y, (8, 8))) / (contrast + 0.1)).max() > LOCAL:
            return False
        fine_x, fine_y = (picture - cv2.GaussianBlur(picture, (0, 0), 2) for picture in (x, y))
        products += [float((fine_x * fine_y).sum()), float((fine_x**2).sum()), float((fine_y**2).sum())]
        differ = _own_grain(x, y, 0.5 / looks[0][2])
        own, blocks = own + int(differ.sum()), blocks + differ.size
    return products[0] >= FINE * np.sqrt(products[1] * products[2]) and own <= GRAIN * blocks


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Parts of a picture of about 1024 pixels a side: a large one takes no more memory than decoding it."""
    ys, xs = (np.linspace(0, side, side // 1024 + 2).round().astype(int).tolist() for side in (height, width))
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            yield slice(top, bottom), slice(left, right)


def _contrast(picture: np.ndarray) -> np.ndarray:
    """Standard deviation around each pixel, within 8x8."""
    mean = cv2.blur(picture, (8, 8))
    deviation: np.ndarray = np.sqrt(np.maximum(cv2.blur(picture * picture, (8, 8)) - mean * mean, 0))
    return deviation


def _own_grain(a: np.ndarray, b: np.ndarray, faint: float) -> np.ndarray:
    """For blocks of 16x16 pixels: whether both have the same amount of grain but not the same grain (two exposures).

    A copy that has lost its grain has less of it. ``faint``: grain below this comes from rounded grey levels.
    """
    block = 16
    height, width = (side // block * block for side in a.shape)

    def blocks(picture: np.ndarray) -> np.ndarray:
        grain = (picture - cv2.GaussianBlur(picture, (0, 0), 1))[:height, :width]
        return grain.reshape(height // block, block, width // block, block).swapaxes(1, 2).reshape(-1, block * block)

    x, y = blocks(a), blocks(b)
    power_x, power_y = (x * x).mean(1), (y * y).mean(1)
    least, most = np.minimum(power_x, power_y), np.maximum(power_x, power_y)
    differ = (x * y).mean(1) < 0.3 * np.sqrt(power_x * power_y)
    grainy: np.ndarray = differ & (least > faint**2) & (least > most / 2)
    return grainy


def _row_text(name: str, row: tuple[str, str, str], of_other: tuple[str, str, str]) -> str:
    """The notice on a photograph that hardly differs from ``name``; rows are (label, split, group)."""
    text = f"{NEAR} {name}: saved again, or taken again of an unmoved part?"
    (label, split, _), (other_label, other_split, _) = row, of_other
    if label and other_label and label != other_label:
        words = {"0": "good", "1": "bad"}
        return f"{text} This one is labelled {words[other_label]}, that one {words[label]} (correct one, or delete one)"
    if split != other_split:
        return f"{text} One is in {split}, one in {other_split}: it is judged by itself (delete one)"
    return f"{text} One may be judged by the other (delete one, or give both the same group in labels.csv)"
