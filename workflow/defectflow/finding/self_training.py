"""A classifier of patches that learns the confident ends of a seed over a whole set, again and again (self-training).

Logistic regression, quadratic in place. Source of the scheme: D. Yarowsky, Unsupervised word sense disambiguation
rivaling supervised methods, 1995.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from defectflow.parts.patch_finder import PLACE, PatchClassifier, places

ROUNDS = 3  # of learning
LEARNT = 15000  # patches that one round learns from
DECAY = 1e-3


def self_train(
    z: np.ndarray, seed: np.ndarray, rng: np.random.Generator, place: float = PLACE, rounds: int = ROUNDS
) -> PatchClassifier:
    """Learn what the confident ends of ``seed`` have in common.

    Args:
        z: patches (n, h, w, DIMS).
        seed: how far each may belong to the part, (n, h, w) in [0, 1].
        rng: chooses the patches to learn from.
        place: see PLACE; 0 does not look at it.
        rounds: how often.
    """
    n, height, width, dims = z.shape
    unit = z.std((0, 1, 2)) + 1e-6
    where = np.broadcast_to(places(height, width) * place, (n, height, width, 5)).reshape(-1, 5)
    flat, told = z.reshape(-1, dims), seed.reshape(-1)
    soft, classifier = told, None
    for _ in range(rounds):
        area = float(np.clip((soft > 0.5).mean(), 0.02, 0.6))
        high, low = np.quantile(soft, 1 - 0.6 * area), np.quantile(soft, 1 - min(0.95, 1.6 * area + 0.1))
        pick = np.flatnonzero((soft >= high) | (soft <= low))
        pick = pick[rng.permutation(len(pick))[:LEARNT]]
        x = np.concatenate([flat[pick] / unit, where[pick], np.ones((len(pick), 1))], 1)
        classifier = PatchClassifier(unit, _logistic(x, soft[pick] >= high), place)
        soft = 0.5 * classifier(z).reshape(-1) + 0.5 * told
    assert classifier is not None
    return classifier


def _logistic(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (k,) of a logistic regression of rows x (n, k), both classes weighing alike; the last one is constant."""
    share = np.clip(truth.mean(), 0.05, 0.95)
    weight, sign = np.where(truth, 0.5 / share, 0.5 / (1 - share)) / len(x), np.where(truth, 1.0, -1.0)
    decay = np.full(x.shape[1], DECAY)
    decay[-1] = 0

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w)
        value = weight @ np.logaddexp(0, -margin) + decay @ w**2
        return value, x.T @ (-weight * sign * expit(-margin)) + 2 * decay * w

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 30})
    return np.asarray(found.x, np.float32)
