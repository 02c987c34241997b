"""The part from clicks on it and on the background, by a random walker with part-nano as prior: fast enough for clicks.

Each click moves the outline near it, up to the next edges; elsewhere the foreground predicted by `part-nano` decides.
Official SAM 2.1 checkpoints take clicks too (`outline.by_sam`); sam2.1-nano is too weak for clicks alone.

Source: L. Grady, Multilabel random walker image segmentation using prior models, CVPR 2005.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve

from defectflow.parts.training_cases import to_square
from defectflow.segmentation.outline import Clicks as OutlineClicks
from defectflow.segmentation.outline import Point, tidy

SIDE = 128  # pixels, longer side of the walker's picture
EDGE = 6.0  # how strongly a colour difference, in units of the mean, blocks the walker
WEAKEST = 1e-3  # weight between any two neighbours
PRIOR, CLICK = 0.002, 1e3  # weights of part-nano's foreground, and of a click
RADIUS = 2  # pixels of the walker's picture: the disc of a click


class Clickable:
    """A photograph prepared for any number of clicks."""

    def __init__(self, image: np.ndarray, figure: np.ndarray) -> None:
        """Prepare a photograph.

        Args:
            image: uint8 RGB (height, width, 3).
            figure: float in [0, 1] (h, w), probability of the part at each place; see `figure_of`.
        """
        self.shape: tuple[int, int] = image.shape[:2]
        scale = SIDE / max(self.shape)
        width, height = (max(8, round(side * scale)) for side in self.shape[::-1])
        self._size = height, width
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.8), cv2.COLOR_RGB2LAB).astype(np.float64)
        self._walk = _laplacian(lab)
        self._figure = cv2.resize(figure.astype(np.float64), (width, height)).clip(0, 1).ravel()

    def mask(self, inside: Sequence[Point], outside: Sequence[Point]) -> np.ndarray:
        """The part, bool of the photograph's size, from points (x, y) on it and on the background; may be empty."""
        weight, pull = np.full(self._figure.size, PRIOR), PRIOR * self._figure
        for value, points in ((1.0, inside), (0.0, outside)):
            for point in points:
                disc = self._disc(point)
                weight[disc], pull[disc] = CLICK, CLICK * value
        soft = spsolve((self._walk + scipy.sparse.diags(weight)).tocsc(), pull).reshape(self._size)
        whole = cv2.resize(soft.astype(np.float32), self.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return tidy(whole >= 0.5, OutlineClicks(None, inside, outside))

    def _disc(self, point: Point) -> np.ndarray:
        drawn = np.zeros(self._size, np.uint8)
        place = (int(a * small / own) for a, small, own in zip(point, self._size[::-1], self.shape[::-1], strict=True))
        cv2.circle(drawn, tuple(place), RADIUS, 1, -1)
        return drawn.ravel() > 0


def _laplacian(lab: np.ndarray) -> scipy.sparse.csr_matrix:
    """Laplacian of the grid of a picture (h, w, 3): the weight of neighbours grows with their similarity."""
    height, width = lab.shape[:2]
    places = np.arange(height * width).reshape(height, width)
    pairs = (
        (places[:, :-1], places[:, 1:], lab[:, :-1] - lab[:, 1:]),
        (places[:-1], places[1:], lab[:-1] - lab[1:]),
    )
    first, second, weight = [], [], []
    for a, b, difference in pairs:
        squared = (difference**2).sum(axis=-1)
        first.append(a.ravel())
        second.append(b.ravel())
        weight.append((np.exp(-EDGE * squared / (squared.mean() + 1e-9)) + WEAKEST).ravel())
    i, j, w = np.concatenate(first), np.concatenate(second), np.concatenate(weight)
    joined = scipy.sparse.coo_matrix((np.r_[w, w], (np.r_[i, j], np.r_[j, i])), shape=(places.size, places.size))
    matrix = joined.tocsr()
    return (scipy.sparse.diags(np.asarray(matrix.sum(axis=1)).ravel()) - matrix).tocsr()


def figure_of(network: object, image: np.ndarray) -> np.ndarray:
    """The foreground of a photograph by `part-nano`, float32 (h, w) in [0, 1]; ``network``: from `load_network`."""
    from defectflow.parts.figure_ground import SIDE as SQUARE

    figures = network.predict([to_square(image, SQUARE)])  # type: ignore[attr-defined]
    found: np.ndarray = figures[0].probability
    return found


def load_network() -> object:
    """`part-nano`, for `figure_of`; it imports torch."""
    from defectflow.parts.figure_ground import FigureGround

    return FigureGround.load()
