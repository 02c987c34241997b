"""What the methods share that judge in numpy, without torch: the counterpart of `detector.Detector`."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Judge(Protocol):
    """A fitted detector; see `detector.Detector.judge`."""

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Score of an image and float32 (p,), the distance of each of its patches (p, d)."""


def pool(distances: np.ndarray, options: Mapping[str, Any]) -> float:
    """`detector.pool` in numpy: the image score of distances float32 (p,), without re-weighting."""
    if options["score"] == "top_k_mean":
        count = max(1, round(options["top_fraction"] * len(distances)))
        return float(np.partition(distances, -count)[-count:].mean())
    if options["score"] == "percentile":
        return float(np.quantile(distances, 1 - options["top_fraction"]))
    return float(distances.max())


def unit(patches: np.ndarray) -> np.ndarray:
    """Patches (n, d) scaled to unit length."""
    scaled: np.ndarray = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
    return scaled
