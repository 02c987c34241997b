"""The part from clicks on it and on the background: proposals of SAM, made to fit the clicks by a random walker.

Three steps, all fast enough for clicks. A random walker starts from what `part-nano` predicts and keeps every click;
its result and the clicks prompt SAM; SAM's best proposal is then the prior of a second walk. The walk sets the outline
on edges near the clicks, where sam2.1-nano is too weak alone, and the proposal decides far from them.

Source: L. Grady, Multilabel random walker image segmentation using prior models, CVPR 2005. How it was chosen:
`benchmarks/clicks.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import cg

from defectflow.parts.training_cases import to_square
from defectflow.segmentation.outline import Clicks as OutlineClicks
from defectflow.segmentation.outline import tidy
from defectflow.segmentation.promptable_network import Network, Point
from defectflow.segmentation.promptable_network import load_network as load_promptable

SIDE = 256  # pixels, longer side of the walker's picture
EDGE = 6.0  # how strongly a colour difference, in units of the mean, blocks the walker
WEAKEST = 1e-3  # weight between any two neighbours
PRIOR, CLICK = 0.0005, 1e3  # weights of part-nano's foreground, and of a click
RADIUS = 2  # pixels of the walker's picture: the disc of a click
PROPOSED = 0.3  # weight of the second walk's prior ...
SHARE = 0.7  # ... and the share of SAM's logits in it; the rest is part-nano's
CERTAIN, DOUBTED = 4.0, 0.02  # bounds of SAM's logits, and of part-nano's probabilities, in the mixture
EXACT = 1e-7  # relative residual of a walk, dominated by the clicks: probabilities are right to about 0.002


@dataclass(frozen=True)
class ClickNetworks:
    """The networks that clicks need: `part-nano`, and one that is prompted with clicks, or None."""

    figure: Any
    promptable: Network | None

    @classmethod
    def load(cls, files: Mapping[str, str | Path] | None = None, model: str | None = "nano") -> ClickNetworks:
        """Load both; ``files`` and ``model`` as in `promptable_network.load_network`; sam2.1-nano if none are given.

        Raises:
            UserError: as `promptable_network.load_network`.
        """
        from defectflow.parts.figure_ground import FigureGround

        return cls(FigureGround.load(), load_promptable(files or {}, model))


class Clickable:
    """A photograph prepared for any number of clicks."""

    def __init__(self, image: np.ndarray, figure: np.ndarray, network: Network | None = None) -> None:
        """Prepare a photograph; ``network`` encodes it.

        Args:
            image: uint8 RGB (height, width, 3).
            figure: float in [0, 1] (h, w), probability of the part at each place; see `figure_of`.
            network: prompted with the clicks; None: the walker alone decides.
        """
        self.shape: tuple[int, int] = image.shape[:2]
        self._network, self._seen = network, network.look(image) if network else None
        scale = SIDE / max(self.shape)
        width, height = (max(8, round(side * scale)) for side in self.shape[::-1])
        self._size = height, width
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.8), cv2.COLOR_RGB2LAB).astype(np.float64)
        self._laplacian = _laplacian(lab)
        self._figure = cv2.resize(figure.astype(np.float64), (width, height)).clip(0, 1)

    @classmethod
    def of(cls, image: np.ndarray, networks: ClickNetworks) -> Clickable:
        """A photograph, uint8 RGB (height, width, 3), prepared with both networks."""
        return cls(image, figure_of(networks.figure, image), networks.promptable)

    def mask(self, inside: Sequence[Point], outside: Sequence[Point]) -> np.ndarray:
        """The part, bool of the photograph's size, from points (x, y) on it and on the background; may be empty."""
        clicks = OutlineClicks(None, inside, outside)
        soft = self._walk(clicks, self._figure, PRIOR)
        if self._network is not None and (inside or outside):
            shares = clicks.shares(self.shape)
            found = self._network.clicked(self._seen, shares.inside, shares.outside, soft.clip(0, 1))
            logits = cv2.resize(
                found.best(shares.inside, shares.outside), self._size[::-1], interpolation=cv2.INTER_AREA
            )
            known = self._figure.clip(DOUBTED, 1 - DOUBTED)
            mixed = SHARE * logits.clip(-CERTAIN, CERTAIN) + (1 - SHARE) * np.log(known / (1 - known))
            soft = self._walk(clicks, 1 / (1 + np.exp(-mixed)), PROPOSED)
        whole = cv2.resize(soft.astype(np.float32), self.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return tidy(whole >= 0.5, clicks)

    def _walk(self, clicks: OutlineClicks, prior: np.ndarray, weight: float) -> np.ndarray:
        """Probability of the part, float64 (h, w), from the clicks and a prior of the same shape."""
        weights = np.full(prior.size, weight)
        pull = weight * prior.ravel()
        for value, points in ((1.0, clicks.inside), (0.0, clicks.outside)):
            for point in points:
                disc = self._disc(point)
                weights[disc], pull[disc] = CLICK, CLICK * value
        system = (self._laplacian + scipy.sparse.diags(weights)).tocsr()
        scaling = scipy.sparse.diags(1 / system.diagonal())
        soft, _ = cg(system, pull, x0=prior.ravel(), rtol=EXACT, M=scaling, maxiter=2000)
        found: np.ndarray = soft.reshape(self._size)
        return found

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


def figure_of(network: Any, image: np.ndarray) -> np.ndarray:
    """The foreground of a photograph by `part-nano` (a `FigureGround`), float32 (h, w) in [0, 1]."""
    from defectflow.parts.figure_ground import SIDE as SQUARE

    found: np.ndarray = network.predict([to_square(image, SQUARE)])[0].probability
    return found
