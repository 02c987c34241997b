"""Residual fusion: tiers of classes, and that training is repeatable."""

import numpy as np
from defectflow.classification.heads.head_arrays import Head
from defectflow.classification.heads.residual_fusion import fit_residual_fusion, tiers


def test_tiers_follow_the_number_of_photographs():
    assert tiers(np.array([100, 51, 49, 20, 19, 1])).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_seed_makes_it_repeatable():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (40, 5)), np.repeat([0, 1], [30, 10])
    x[y == 1] += 2
    heads = (fit_residual_fusion(x, y, 2, seed) for seed in (0, 0, 1))
    one, again, other = (Head(2, np.arange(2), np.zeros(5), np.ones(5), layers)(x) for layers in heads)
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert (one.argmax(axis=1) == y).mean() > 0.9
