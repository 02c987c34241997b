"""SPADE's scoring in numpy: what `spade.Spade` says, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectflow.methods.numpy_detector import NumpyDetector, pool
from defectflow.methods.spade.settings import SpadeSettings

_ROWS = 512  # patches that are compared at a time: with 10,000 others a block of 20 MB


class Spade(NumpyDetector):
    """`spade.Spade` in numpy; arguments as for :class:`PatchCore`."""

    name = "spade"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: SpadeSettings):
        self._patches, self._owner, self._images = tensors[""], tensors["owner"], tensors["images"]
        self._settings = settings

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        apart = np.linalg.norm(self._images - patches.mean(axis=0), axis=1)
        likeness = apart.argsort(kind="stable")[: self._settings.nearest_images]
        others = self._patches[np.isin(self._owner, likeness)]
        norms = np.einsum("ij,ij->i", others, others)
        blocks = (patches[begin : begin + _ROWS] for begin in range(0, len(patches), _ROWS))
        nearest = np.concatenate([(norms - 2 * (block @ others.T)).argmin(axis=1) for block in blocks])
        distances = np.linalg.norm(patches - others[nearest], axis=1)
        if self._settings.score == "retrieval":
            return float(apart[likeness].mean()), distances
        return pool(distances, self._settings), distances
