"""From log-odds to probabilities by temperature scaling, with the temperature chosen on held-out photographs."""

import numpy as np


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of ``logits`` (n, k) over ``temperature``: float (n, k), each row with the sum 1.

    >>> probabilities(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    scaled = logits / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: np.ndarray = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-probability of the right class."""
    right = probabilities(logits, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest log-loss, in 0.05 to 20.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.

    Args:
        logits: float (n, k), held out.
        labels: int (n,).
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: log_loss(logits, labels, float(np.exp(log))), bounds=(np.log(0.05), np.log(20)), method="bounded"
    )
    return float(np.exp(found.x))


def calibration_error(chance: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of share right and mean probability, over equal bins of probability.

    Args:
        chance: float (n,), probability of the class that was chosen.
        right: bool (n,), whether it was right.
    """
    place = np.minimum((chance * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - chance[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))
