"""Classifiers on frozen descriptors: a linear one with treatments of rare classes, and nearest neighbours.

All return log-odds up to a constant, one column per class; `calibration` converts them to probabilities.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Logits = Callable[[np.ndarray], np.ndarray]
BETA = 0.999  # of the effective number of photographs
NEAREST_SCALE = 10.0  # from cosines to log-odds, before temperature scaling


def effective_weights(counts: np.ndarray, beta: float = BETA) -> np.ndarray:
    """Weight of a photograph of each class, float (k,), with the mean 1 over all photographs.

    Source: Y. Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019, eq. 5.

    Args:
        counts: photographs of each class, at least 1.
        beta: 0 gives equal weights; towards 1, weights approach the inverse of the counts.
    """
    weights = (1 - beta) / (1 - beta**counts)
    even: np.ndarray = weights * counts.sum() / (weights * counts).sum()
    return even


def fit_head(features: np.ndarray, labels: np.ndarray, k: int, settings: Any, seed: int = 0) -> Logits:
    """Fit the head chosen in the settings.

    Args:
        features: float (n, d).
        labels: int (n,) in 0 ... k - 1.
        k: number of classes; one that does not occur gets the lowest log-odds.
        settings: the keys of a `KindSettings` that the stage classify reads.
        seed: of a head with iterative training.

    Returns:
        A function from float (m, d) to log-odds, float (m, k).
    """
    present = np.unique(labels)
    if len(present) == 1:  # e.g. in an inner fold whose only other class is held out
        return lambda values: _spread_out(np.zeros((len(values), 1)), present, k)
    if settings.head == "nearest":
        return _nearest(features, labels, k, settings.neighbours)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)

    def scaled(values: np.ndarray) -> np.ndarray:
        result: np.ndarray = (values - mean) / spread
        return result

    if settings.head == "linear" and settings.balance == "reslt":
        from defectflow.classification.residual_fusion import fit_residual_fusion

        fused = fit_residual_fusion(scaled(features), labels, k, seed)
        return lambda values: fused(scaled(values))
    if settings.head == "trained":
        from defectflow.classification.trained_head import fit_trained_head

        weights = effective_weights(np.maximum(np.bincount(labels, minlength=k), 1))
        trained = fit_trained_head(scaled(features), labels, weights, settings, seed)
        return lambda values: trained(scaled(values))
    linear = _logistic(scaled(features), labels, k, settings.strength, settings.balance)
    return lambda values: linear(scaled(values))


def _logistic(features: np.ndarray, labels: np.ndarray, k: int, strength: float, balance: str) -> Logits:
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(labels, minlength=k)
    present = np.flatnonzero(counts)
    weights = effective_weights(counts[present]) if balance == "effective_number" else np.ones(len(present))
    of_each = np.zeros(k)
    of_each[present] = weights
    model = LogisticRegression(C=strength, max_iter=1000).fit(features, labels, sample_weight=of_each[labels])
    # Logit adjustment after the fit: A. K. Menon et al., Long-tail learning via logit adjustment, ICLR 2021, eq. 9.
    prior = np.log(counts[present] / counts.sum()) if balance == "logit_adjustment" else 0.0

    def logits(values: np.ndarray) -> np.ndarray:
        scores = model.decision_function(values)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros(len(scores)), scores])
        return _spread_out(scores - prior, present, k)

    return logits


def _nearest(features: np.ndarray, labels: np.ndarray, k: int, neighbours: int) -> Logits:
    """Mean cosine to the nearest photographs of each class, at most ``neighbours``."""
    present = np.flatnonzero(np.bincount(labels, minlength=k))

    def unit(values: np.ndarray) -> np.ndarray:
        result: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
        return result

    known = unit(features)

    def logits(values: np.ndarray) -> np.ndarray:
        cosines = unit(values) @ known.T
        scores = []
        for number in present:
            own = np.sort(cosines[:, labels == number], axis=1)[:, ::-1]
            scores.append(own[:, :neighbours].mean(axis=1))
        return _spread_out(NEAREST_SCALE * np.stack(scores, axis=1), present, k)

    return logits


def _spread_out(scores: np.ndarray, present: np.ndarray, k: int) -> np.ndarray:
    """Scores of the classes that occur as columns among all k; the others get 20 below the lowest."""
    full = np.repeat(scores.min(axis=1, keepdims=True) - 20.0, k, axis=1)
    full[:, present] = scores
    return full
