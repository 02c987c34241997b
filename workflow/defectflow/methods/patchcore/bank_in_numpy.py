"""PatchCore's scoring in numpy: what `memory_bank.PatchCore` says, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectflow.methods.numpy_detector import NumpyDetector, Scored, pool, unit
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.search.nearest_in_numpy import Points


class PatchCore(NumpyDetector):
    """`memory_bank.PatchCore` in numpy.

    Args:
        tensors: "" the bank, float (n, d); with "mean" and "axes" where it is stored along principal axes.
        metadata: "distance".
        settings: score, neighbours, top_fraction.
    """

    name = "patchcore"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: PatchCoreSettings):
        self._bank = Points(tensors[""].astype(np.float32))
        self._subspace = (tensors["mean"], tensors["axes"]) if "axes" in tensors else None
        self._cosine = metadata["distance"] == "cosine"
        self._settings = settings

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        patches = self._comparable(patches)
        distances, nearest = self._bank.nearest(patches)
        distances = self._measure(distances)
        if self._settings.score != "max":
            return pool(distances, self._settings), distances
        winner = int(distances.argmax())
        return self._reweighted(patches[winner], float(distances[winner]), int(nearest[winner])), distances

    def score(self, patches: np.ndarray, position: np.ndarray) -> Scored:
        """See `NumpyDetector.score`: the largest distance is found without most of the others."""
        if self._settings.score != "max":
            return super().score(patches, position)
        patches = self._comparable(patches)
        found = self._bank.farthest(patches)
        distances = self._measure(found.distances)
        winner = int(distances.argmax())
        patch, nearest = patches[found.rows[winner]], int(found.indices[winner])
        score = self._reweighted(patch, float(distances[winner]), nearest)
        return Scored(score, self._measure(found.bounds), lambda: self._measure(self._bank.nearest(patches)[0]))

    def _comparable(self, patches: np.ndarray) -> np.ndarray:
        if self._cosine:
            patches = unit(patches)
        if self._subspace:
            mean, axes = self._subspace
            patches = (patches - mean) @ axes
        return patches

    def _measure(self, euclidean: np.ndarray) -> np.ndarray:
        return np.square(euclidean) / 2 if self._cosine else euclidean

    def _reweighted(self, patch: np.ndarray, distance: float, nearest: int) -> float:
        """Equation 7 of the paper; see `memory_bank.Bank.reweighted`."""
        points = self._bank.points
        if min(self._settings.neighbours, len(points)) == 1:
            return distance
        count = min(self._settings.neighbours, len(points))
        rough = self._bank.squares - 2 * (points @ points[nearest])
        few = np.sort(np.argpartition(rough, min(8 * count, len(points)) - 1)[: 8 * count])
        support = few[np.argsort(np.square(points[few] - points[nearest]).sum(axis=1), kind="stable")[:count]]
        distances = self._measure(np.linalg.norm(points[support] - patch, axis=1))
        weights = np.exp(distances - distances.max())
        return float((1 - weights[0] / weights.sum()) * distance)
