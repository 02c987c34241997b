"""Open-set recognition: distance of a defect from the known kinds, to recognise unknown kinds."""

from typing import NamedTuple

import numpy as np

from defectflow.classification.heads.head_arrays import unit


class KnownKinds(NamedTuple):
    """Where defects of known kinds lie among descriptors.

    Attributes:
        mean, spread: float (d,), what descriptors are standardised by: those of the known kinds.
        directions: float (kinds, d), the mean of each kind after that, at length 1.
    """

    mean: np.ndarray
    spread: np.ndarray
    directions: np.ndarray

    def novelty(self, features: np.ndarray) -> np.ndarray:
        """1 - cosine to the nearest mean, float (m,) in [0, 2], of descriptors, float (m, d)."""
        result: np.ndarray = 1 - (unit((features - self.mean) / self.spread) @ self.directions.T).max(axis=1)
        return result


def known_kinds(known: np.ndarray, labels: np.ndarray) -> KnownKinds:
    """Where the kinds of photographs lie.

    Args:
        known: float (n, d), descriptors of defects of known kinds.
        labels: int (n,), their kinds.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    scaled = unit((known - mean) / spread)
    return KnownKinds(mean, spread, unit(np.stack([scaled[labels == kind].mean(axis=0) for kind in np.unique(labels)])))


def novelty(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance to the nearest kind: 1 - cosine to the mean of its photographs, float (m,) in [0, 2].

    Descriptors are standardised by those of the known kinds. Distances to class means: K. Lee et al., A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS 2018, section 2.1.

    Args:
        features: float (m, d), descriptors of photographs to judge.
        known, labels: see `known_kinds`.
    """
    return known_kinds(known, labels).novelty(features)


def limit_of(values: np.ndarray, rejected: float) -> float:
    """Novelty above which a kind is unknown; at most the share ``rejected`` of held-out known defects is above."""
    return float(np.quantile(values, 1 - rejected, method="higher"))
