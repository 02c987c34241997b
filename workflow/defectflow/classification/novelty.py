"""Open set: how unlike the known kinds a defect is, so that a kind never shown is not called by the nearest name."""

import numpy as np

NEAREST = 3  # photographs of a kind that a defect is compared with


def novelty(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance to the nearest kind: 1 - cosine, mean over the NEAREST photographs of it, float (m,) in [0, 2].

    The distance to the nearest neighbours of deep features tells kinds apart that no probability does: Y. Sun et al.,
    Out-of-distribution detection with deep nearest neighbors, ICML 2022.

    Args:
        features: float (m, d), descriptors of photographs to judge.
        known: float (n, d), descriptors of defects of known kinds.
        labels: int (n,), their kinds.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)

    def unit(values: np.ndarray) -> np.ndarray:
        scaled = (values - mean) / spread
        result: np.ndarray = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
        return result

    cosines = unit(features) @ unit(known).T
    of_each = []
    for kind in np.unique(labels):
        own = np.sort(cosines[:, labels == kind], axis=1)[:, ::-1]
        of_each.append(own[:, :NEAREST].mean(axis=1))
    result: np.ndarray = 1 - np.max(of_each, axis=0)
    return result


def limit_of(values: np.ndarray, rejected: float) -> float:
    """Novelty above which a kind is unknown: at most ``rejected`` of these held-out known defects lie above it."""
    return float(np.quantile(values, 1 - rejected, method="higher"))
