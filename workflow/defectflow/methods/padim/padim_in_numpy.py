"""PaDiM's scoring in numpy: what `padim.Padim` says, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectflow.methods.numpy_detector import NumpyDetector, pool
from defectflow.methods.padim.settings import PadimSettings


class Padim(NumpyDetector):
    """`padim.Padim` in numpy; arguments as for :class:`PatchCore`."""

    name = "padim"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: PadimSettings):
        self._means, self._precision, self._axes = tensors[""], tensors["precision"], tensors["axes"]
        self._settings = settings

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        delta = (patches[:, self._axes] - self._means[position])[:, None]
        squares = delta @ self._precision[position] @ delta.swapaxes(1, 2)
        distances = np.sqrt(np.maximum(squares.ravel(), 0))
        return pool(distances, self._settings), distances
