"""How evenly photographs are spread over classes or sessions: the Lorenz curve and the Gini coefficient."""

from collections.abc import Sequence

import numpy as np


def lorenz(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The Lorenz curve of numbers of photographs.

    Source: M. O. Lorenz, Methods of measuring the concentration of wealth, Publ. Am. Statistical Association (1905).

    Args:
        counts: photographs of each class; at least one is above 0.

    Returns:
        Share of the classes, the smallest first, and the share of the photographs that these hold: float [n + 1] each,
        both from 0 to 1.
    """
    ordered = np.sort(np.asarray(counts, float))
    shares = np.concatenate([[0.0], ordered.cumsum() / ordered.sum()])
    return np.linspace(0, 1, len(shares)), shares


def gini(counts: Sequence[int]) -> float:
    """The Gini coefficient: 0 where all classes have as many, (n - 1) / n where one of n has all.

    Twice the area between the Lorenz curve and the diagonal; C. Gini, Variabilità e mutabilità (1912).

    >>> gini([10, 10, 10]), round(gini([0, 0, 30]), 3)
    (0.0, 0.667)
    """
    x, y = lorenz(counts)
    return float(max(0.0, 1 - np.sum(np.diff(x) * (y[1:] + y[:-1]))))
