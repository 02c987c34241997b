"""The centroid's scoring in numpy: what `centroid.Centroid` says, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectflow.methods.centroid.settings import CentroidSettings
from defectflow.methods.numpy_detector import NumpyDetector, unit


class Centroid(NumpyDetector):
    """`centroid.Centroid` in numpy; arguments as for :class:`PatchCore`."""

    name = "centroid"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: CentroidSettings):
        self._centroid, self._places = tensors[""][0], tensors["places"]

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        score = 1 - float(unit(patches.mean(axis=0, keepdims=True))[0] @ self._centroid)
        return score, 1 - np.einsum("ij,ij->i", unit(patches), self._places[position])
