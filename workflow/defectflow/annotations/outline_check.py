"""Check that an outline matches its photograph: compare it with itself moved, and with outlines of other photographs.

The masks of a set may agree with each other and still miss the part. A correct outline follows edges of its photograph
(`outline_edges`), a wrong one follows fewer. An outline is suspicious if a shifted, turned, mirrored or scaled version
of it, or the outline of another photograph, follows clearly more edges. Photographs without edges cannot be checked.
Limits were chosen on one half of 970 correct outlines and wrong ones made from them, and measured on others
(benchmarks/README.md, by benchmarks/outlines.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defectflow.annotations.outline_edges import Outline, moved, score

SLACK = 2  # pixels of the reduced picture: an outline may miss its edges by this much
NEAREST, FARTHEST, STEP = 0.05, 0.20, 5  # shifts: shares of the longer side; pixels of the reduced picture
SCALES = (0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.8, 1.25, 4 / 3, 1.5, 5 / 3, 2.0, 2.5, 3.0, 4.0)
FEWEST = 40  # points: shorter outlines are too short to compare
ALIKE = 0.02  # share of the longer side: an outline of another photograph that is this close is not an alternative
# An outline is wrong if an alternative is better by this much (mean strength, spreads) and its own strength is hardly
# above that of shifted outlines (spreads); the second line of limits makes it suspicious.
WRONG, SUSPICIOUS = (0.10, 3.0, 3.5), (0.07, 2.0, 4.0)
AS_GOOD = 0.03  # mean strength
LEAST_SPREAD = 0.02  # of the mean strengths, as far as the spread of the shifted outlines goes


@dataclass(frozen=True)
class Fit:
    """How well an outline fits a photograph.

    Attributes:
        own: mean strength of the edges along it, 0 to 1.
        usual: median over the shifted outlines, i.e. of a random position.
        spread: of these, as a standard deviation.
        best: the largest mean strength of an alternative.
        change: what that is: "turned by 90 degrees", "shifted", "scaled by 0.67", "mirrored", or "other <k>", the
            k-th of the other outlines.
        matrix: float (2, 3), moves the outline (for "other": that one) to the better position, in pixels of the
            reduced picture.
        other: the largest mean strength of another outline as it is, 0 without any.
        other_index: which one that is.
    """

    own: float
    usual: float
    spread: float
    best: float
    change: str
    matrix: np.ndarray
    other: float = 0.0
    other_index: int = -1

    @property
    def gain(self) -> float:
        """By how much the alternative is better, in mean strength."""
        return self.best - self.own

    @property
    def lead(self) -> float:
        """How far the outline's strength is above that of shifted outlines, in spreads."""
        return (self.own - self.usual) / self.spread

    def within(self, limits: tuple[float, float, float]) -> bool:
        """Whether the alternative wins by these limits: WRONG or SUSPICIOUS."""
        gain, spreads, lead = limits
        return self.gain >= gain and self.gain >= spreads * self.spread and self.lead < lead


def fit(maps: np.ndarray, outline: Outline, others: Sequence[Outline] = ()) -> Fit | None:
    """Compare an outline with its alternatives on one photograph.

    Args:
        maps: of the photograph, see `outline_edges.edge_maps`.
        outline: in pixels of these maps.
        others: outlines of other photographs, in pixels of maps of the same size.

    Returns:
        None if the outline is too short or runs along the rim of the picture.
    """
    if len(outline.points) < FEWEST:
        return None
    side = max(outline.size)
    far = _far(side)
    near = _grid(SLACK, 1)
    beside = score(maps, outline, far)
    if np.isnan(beside).all():
        return None
    usual, spread = _usual(beside)
    own = float(np.nanmax(score(maps, outline, near)))
    found = [(float(np.nanmax(beside)), "shifted", _shift(far[int(np.nanargmax(beside))]))]
    window = _grid(6, 3)
    for change, matrix in changes(outline.size):
        found.append(_best(maps, moved(outline, matrix), window, change, matrix))
    rival, index = 0.0, -1
    for k, other in enumerate(others):
        if len(other.points) >= FEWEST and not _alike(outline, other):
            found.append(_best(maps, other, _grid(round(0.03 * side), STEP), f"other {k}", _shift(np.zeros(2))))
            strength = np.nanmax(score(maps, other, near), initial=0.0)
            rival, index = max((rival, index), (float(strength), k))
    most = max(strength for strength, *_ in found)
    # Among changes of about the same quality, prefer the one that explains the cause best.
    best, change, matrix = min((one for one in found if one[0] >= most - AS_GOOD), key=_order)
    return Fit(own, usual, spread, best, change, matrix, rival, index)


def lead_of(maps: np.ndarray, outline: Outline) -> tuple[float, float]:
    """How far an outline's strength is above that of shifted outlines: in mean strength, and in spreads.

    (0, 0) if it is too short; `fit` compares it with more alternatives.
    """
    if len(outline.points) < FEWEST:
        return 0.0, 0.0
    beside = score(maps, outline, _far(max(outline.size)))
    if np.isnan(beside).all():
        return 0.0, 0.0
    usual, spread = _usual(beside)
    above = float(np.nanmax(score(maps, outline, _grid(SLACK, 1)))) - usual
    return above, above / spread


def changes(size: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Turns, mirrors and scales of an outline as (what it is, affine 2x3) for a picture of ``size`` (width, height).

    A quarter turn treats the outline as drawn in the other frame, with width and height exchanged.
    """
    w, h = size[0] - 1.0, size[1] - 1.0
    turned = [
        ("turned by 90 degrees", [[0, -1, w], [1, 0, 0]]),
        ("turned by 180 degrees", [[-1, 0, w], [0, -1, h]]),
        ("turned by 270 degrees", [[0, 1, 0], [-1, 0, h]]),
        ("mirrored left to right", [[-1, 0, w], [0, 1, 0]]),
        ("mirrored top to bottom", [[1, 0, 0], [0, -1, h]]),
        ("with x and y exchanged", [[0, 1, 0], [1, 0, 0]]),
        ("turned by 90 degrees and mirrored", [[0, -1, w], [-1, 0, h]]),
    ]
    scaled = [(f"scaled by {s:.2f}", [[s, 0, 0], [0, s, 0]]) for s in SCALES]
    return [(name, np.array(matrix, np.float64)) for name, matrix in turned + scaled]


def _order(found: tuple[float, str, np.ndarray]) -> tuple[int, float]:
    strength, change, _ = found
    kinds = ("turned", "mirrored", "with", "scaled", "shifted", "other")
    return (0 if change.split()[0] in kinds[:3] else kinds.index(change.split()[0])), -strength


def _alike(one: Outline, other: Outline) -> bool:
    """Whether one outline follows the other closely, so that both describe the same place."""
    distances = np.hypot(*(one.points[::4, None] - other.points[None]).transpose(2, 0, 1)).min(1)
    return bool(np.median(distances) < ALIKE * max(one.size))


def _best(
    maps: np.ndarray, outline: Outline, shifts: np.ndarray, change: str, matrix: np.ndarray
) -> tuple[float, str, np.ndarray]:
    values = score(maps, outline, shifts)
    if np.isnan(values).all():
        return 0.0, change, matrix
    k = int(np.nanargmax(values))
    matrix = matrix.copy()
    matrix[:, 2] += shifts[k]
    return float(values[k]), change, matrix


def _far(side: int) -> np.ndarray:
    """Shifts (m, 2) in pixels that move a correct outline off its part."""
    grid = _grid(round(FARTHEST * side), STEP)
    far: np.ndarray = grid[np.hypot(*grid.T) >= NEAREST * side]
    return far


def _usual(beside: np.ndarray) -> tuple[float, float]:
    """Median and spread (as a standard deviation) of the mean strengths of shifted outlines."""
    usual = float(np.nanmedian(beside))
    return usual, max(float(1.4826 * np.nanmedian(abs(beside - usual))), LEAST_SPREAD)


def _shift(by: np.ndarray) -> np.ndarray:
    return np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float64)


def _grid(radius: int, step: int) -> np.ndarray:
    """Shifts (m, 2) in steps from -radius to radius both ways, the middle first among equals."""
    line = np.arange(0, radius + 1, step)
    line = np.concatenate([-line[:0:-1], line])
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    return grid[np.argsort(np.hypot(*grid.T), kind="stable")]
