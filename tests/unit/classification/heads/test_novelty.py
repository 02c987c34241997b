"""Novelty: far from every kind, also where there is one kind, or one photograph of it."""

import numpy as np
import pytest
from defectflow.classification.heads.novelty import limit_of, novelty


def test_a_kind_never_shown_is_further_than_known_ones():
    rng = np.random.default_rng(0)
    known = np.repeat(np.eye(3, 6), 10, axis=0) + rng.normal(0, 0.1, (30, 6))
    labels = np.repeat([1, 2, 3], 10)
    new = np.eye(3, 6) + rng.normal(0, 0.1, (3, 6))
    strange = np.array([[0, 0, 0, 0, 0, 1.0]])
    assert novelty(strange, known, labels)[0] > novelty(new, known, labels).max() + 0.1


def test_one_photograph_is_enough_to_compare_with():
    values = novelty(np.ones((2, 3)), np.ones((1, 3)), np.array([1]))
    assert values.shape == (2,) and np.isfinite(values).all()


@pytest.mark.parametrize("rejected", [0.0, 0.05, 0.2])
def test_the_limit_rejects_no_more_than_it_may(rejected):
    values = np.arange(40.0)
    share = (values > limit_of(values, rejected)).mean()
    assert share <= rejected and share >= rejected - 1.5 / 40
