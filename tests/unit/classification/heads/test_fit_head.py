"""Heads on frozen descriptors, and what they do about rare classes."""

import numpy as np
import pytest
from defectflow.classification.heads.fit_head import effective_weights, fit_head
from defectflow.classification.settings import KindSettings


def blobs(counts, seed=0, spread=1.0):
    """Points around a centre for each class, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (len(counts), 8))
    labels = np.repeat(np.arange(len(counts)), counts)
    return centres[labels] + rng.normal(0, spread, (len(labels), 8)), labels


def settings(**given):
    return KindSettings.from_dict(given, "kinds").only_for("classify")


@pytest.mark.parametrize("given", [{}, {"head": "nearest"}, {"head": "trained"}, {"balance": "reslt"}])
def test_heads_tell_blobs_apart(given):
    x, y = blobs([30, 30, 30], spread=0.5)
    new, truth = blobs([20, 20, 20], seed=1, spread=0.5)
    logits = fit_head(x, y, 3, settings(**given))(new)
    assert logits.shape == (60, 3) and (logits.argmax(axis=1) == truth).mean() > 0.95


@pytest.mark.parametrize("given", [{}, {"head": "nearest"}])
def test_a_class_that_is_not_there_comes_last(given):
    x, y = blobs([20, 20])
    logits = fit_head(x, y * 2, 3, settings(**given))(x)
    assert (logits[:, 1] < logits[:, [0, 2]].min(axis=1)).all()


@pytest.mark.parametrize("given", [{}, {"head": "nearest"}, {"head": "trained"}, {"balance": "reslt"}])
def test_where_one_class_is_left_it_is_named(given):
    x, _ = blobs([10])
    logits = fit_head(x, np.ones(10, int), 3, settings(**given))(x)
    assert (logits.argmax(axis=1) == 1).all()


@pytest.mark.parametrize("balance", ["effective_number", "logit_adjustment", "reslt"])
def test_a_rare_class_is_found_more_often(balance):
    x, y = blobs([300, 6], spread=1.6)
    new, truth = blobs([300, 300], seed=2, spread=1.6)

    def recall(**given):
        called = fit_head(x, y, 2, settings(strength=0.1, **given))(new).argmax(axis=1)
        return (called == 1)[truth == 1].mean()

    assert recall(balance=balance) > recall(balance="none") + 0.1


def test_effective_weights_are_those_of_the_paper():
    counts = np.array([1000, 10])
    weights = effective_weights(counts, 0.999)
    assert weights[1] / weights[0] == pytest.approx((1 - 0.999**1000) / (1 - 0.999**10))
    assert (weights * counts).sum() == pytest.approx(counts.sum())
    assert effective_weights(counts, 0.0) == pytest.approx([1, 1])
