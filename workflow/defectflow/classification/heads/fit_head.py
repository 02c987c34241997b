"""Classifiers on frozen descriptors: a linear one with treatments of rare classes, and nearest neighbours.

All return log-odds up to a constant, one column per class; `calibration` converts them to probabilities.
"""

from typing import Any

import numpy as np

from defectflow.classification.heads.head_arrays import Head, unit

BETA = 0.999  # of the effective number of photographs


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


def fit_head(features: np.ndarray, labels: np.ndarray, k: int, settings: Any, seed: int = 0) -> Head:
    """Fit the head that the settings ask for.

    Args:
        features: float (n, d).
        labels: int (n,) in 0 ... k - 1.
        k: number of classes; one that does not occur gets the lowest log-odds.
        settings: a `KindSettings`, as far as the stage classify reads it.
        seed: of a head that is trained by steps.
    """
    present = np.unique(labels)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    if len(present) == 1:  # as in a fold within others, where the only other class is held out
        return Head(k, present, mean, spread, ((np.zeros((1, features.shape[1])), np.zeros(1)),))
    if settings.head == "nearest":
        return Head(k, present, mean, spread, known=unit(features), labels=labels, neighbours=settings.neighbours)
    scaled = (features - mean) / spread
    if settings.head == "linear" and settings.balance == "reslt":
        from defectflow.classification.heads.residual_fusion import fit_residual_fusion

        return Head(k, np.arange(k), mean, spread, fit_residual_fusion(scaled, labels, k, seed))
    if settings.head == "trained":
        from defectflow.classification.heads.trained_head import fit_trained_head

        weights = effective_weights(np.maximum(np.bincount(labels, minlength=k), 1))
        return Head(k, np.arange(k), mean, spread, (fit_trained_head(scaled, labels, weights, settings, seed),))
    return Head(k, present, mean, spread, (_logistic(scaled, labels, k, settings.strength, settings.balance),))


def _logistic(
    features: np.ndarray, labels: np.ndarray, k: int, strength: float, balance: str
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (c, d) and biases (c,) of the classes that occur."""
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(labels, minlength=k)
    present = np.flatnonzero(counts)
    weights = effective_weights(counts[present]) if balance == "effective_number" else np.ones(len(present))
    of_each = np.zeros(k)
    of_each[present] = weights
    model = LogisticRegression(C=strength, max_iter=1000).fit(features, labels, sample_weight=of_each[labels])
    slopes, bias = model.coef_, model.intercept_
    if len(slopes) == 1:  # of two classes the second alone has weights
        slopes, bias = np.concatenate([np.zeros_like(slopes), slopes]), np.concatenate([np.zeros(1), bias])
    # Logit adjustment after the fit: A. K. Menon et al., Long-tail learning via logit adjustment, ICLR 2021, eq. 9.
    prior = np.log(counts[present] / counts.sum()) if balance == "logit_adjustment" else 0.0
    return slopes, bias - prior
