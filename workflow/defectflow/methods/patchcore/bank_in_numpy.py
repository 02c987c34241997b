"""PatchCore's scoring in numpy: what `memory_bank.PatchCore` says, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectflow.methods.numpy_detector import NumpyDetector, Scored, pool, unit
from defectflow.methods.patchcore.scales import UNITS, Combination, grids_of, of_scale
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
        self._settings = settings
        grids = grids_of(metadata)
        self._combination = Combination(grids, tensors[UNITS]) if grids else None
        one = {key: value for key, value in metadata.items() if key != "coarser"}
        self._scales = [PatchCore(of_scale(tensors, k), one, settings) for k in range(len(grids))]
        if grids:
            return
        self._bank = Points(tensors[""].astype(np.float32))
        self._subspace = (tensors["mean"], tensors["axes"]) if "axes" in tensors else None
        self._cosine = metadata["distance"] == "cosine"

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        if self._combination:
            parts = zip(self._scales, self._combination.split(position), strict=True)
            found = [scale.distances(patches[rows]) for scale, (rows, _) in parts]
            distances = self._combination.combined(found, position)
            return pool(distances, self._settings), distances
        patches = self._comparable(patches)
        distances, nearest = self._bank.nearest(patches)
        distances = self._measure(distances)
        if self._settings.score != "max":
            return pool(distances, self._settings), distances
        winner = int(distances.argmax())
        return self._reweighted(patches[winner], float(distances[winner]), int(nearest[winner])), distances

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """Distance of each patch (p, d) of one scale, float32 (p,)."""
        return self._measure(self._bank.nearest(self._comparable(patches))[0])

    def score(self, patches: np.ndarray, position: np.ndarray) -> Scored:
        """See `NumpyDetector.score`: the largest distance is found without most of the others."""
        if self._combination or self._settings.score != "max":
            return super().score(patches, position)
        patches = self._comparable(patches)
        begun = self._bank.begin(patches)
        found = self._bank.farthest(patches, begun)
        distances = self._measure(found.distances)
        winner = int(distances.argmax())
        patch, nearest = patches[found.rows[winner]], int(found.indices[winner])
        score = self._reweighted(patch, float(distances[winner]), nearest)
        return Scored(score, self._measure(found.bounds), lambda: self._measure(self._bank.nearest(patches, begun)[0]))

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
        support = self._bank.around(nearest, min(self._settings.neighbours, len(points)))
        distances = self._measure(np.linalg.norm(points[support] - patch, axis=1))
        weights = np.exp(distances - distances.max())
        return float((1 - weights[0] / weights.sum()) * distance)
