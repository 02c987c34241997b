"""Open-set recognition: distance of a defect from the known kinds, to recognise unknown kinds."""

import numpy as np


def novelty(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance to the nearest kind: 1 - cosine to the mean of its photographs, float (m,) in [0, 2].

    Descriptors are standardised by those of the known kinds. Distances to class means: K. Lee et al., A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS 2018, section 2.1.

    Args:
        features: float (m, d), descriptors of photographs to classify.
        known: float (n, d), descriptors of defects of known kinds.
        labels: int (n,), their kinds.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)

    def unit(values: np.ndarray) -> np.ndarray:
        even = (values - mean) / spread
        result: np.ndarray = even / np.maximum(np.linalg.norm(even, axis=1, keepdims=True), 1e-9)
        return result

    scaled = unit(known)
    means = np.stack([scaled[labels == kind].mean(axis=0) for kind in np.unique(labels)])
    cosines = unit(features) @ (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)).T
    result: np.ndarray = 1 - cosines.max(axis=1)
    return result


def limit_of(values: np.ndarray, rejected: float) -> float:
    """Novelty above which a kind is unknown; at most the share ``rejected`` of held-out known defects is above."""
    return float(np.quantile(values, 1 - rejected, method="higher"))
