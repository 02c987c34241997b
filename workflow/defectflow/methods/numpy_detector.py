"""What the methods share that judge in numpy, without torch: the counterpart of `detector.Detector`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from defectflow.methods.method_settings import PooledSettings

TABLES = "tables."  # in the names of the tensors of a detector: those of `NumpyDetector.tables`


class Scored(NamedTuple):
    """An image with its score; the distances of its patches are computed when they are asked for.

    Attributes:
        score: anomaly score.
        bounds: float32 (p,), no patch is farther from what is normal than this; the largest is a distance.
        distances: function that gives them, float32 (p,). Of several scales both are those of the finest.
    """

    score: float
    bounds: np.ndarray
    distances: Callable[[], np.ndarray]


class NumpyDetector(ABC):
    """A fitted detector of a bundle; see `detector.Detector`, whose arguments it has.

    Attributes of a class:
        name: of the method.

    Attributes:
        workers: threads that may search the patches of one large picture.
    """

    name: ClassVar[str]
    workers = 1

    @abstractmethod
    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: Any) -> None: ...

    @abstractmethod
    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Score of an image and float32 (p,), the distance of each of its patches (p, d); see `detector.Detector`."""

    def score(self, patches: np.ndarray, position: np.ndarray) -> Scored:
        """What `judge` says, with no more distances than the score needs, where the method can tell."""
        score, distances = self.judge(patches, position)
        return Scored(score, distances, lambda: distances)

    def tables(self) -> dict[str, np.ndarray]:
        """What is computed before the first image, to be kept in a bundle; `TABLES` and a name of each."""
        return {}


def pool(distances: np.ndarray, settings: PooledSettings) -> float:
    """`detector.pool` in numpy: the image score of distances float32 (p,), without re-weighting."""
    if settings.score == "top_k_mean":
        count = max(1, round(settings.top_fraction * len(distances)))
        return float(np.partition(distances, -count)[-count:].mean())
    if settings.score == "percentile":
        return float(np.quantile(distances, 1 - settings.top_fraction))
    return float(distances.max())


def unit(patches: np.ndarray) -> np.ndarray:
    """Patches (n, d) scaled to unit length."""
    scaled: np.ndarray = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
    return scaled
