"""Lorenz curve and Gini coefficient."""

import numpy as np
import pytest
from defectflow.dataset_card.balance import gini, lorenz


def test_the_curve_adds_the_smallest_classes_first():
    x, y = lorenz([6, 1, 3])
    assert x.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1]) and y.tolist() == pytest.approx([0, 0.1, 0.4, 1])


def test_the_coefficient_is_the_mean_difference_of_two_classes():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        counts = rng.integers(1, 500, n)
        differences = np.abs(counts[:, None] - counts).mean()  # the definition, without the curve
        assert gini(counts) == pytest.approx(differences / (2 * counts.mean()), abs=1e-12)
    assert gini([5, 5, 5]) == 0 and gini([0, 0, 0, 8]) == pytest.approx(0.75)
