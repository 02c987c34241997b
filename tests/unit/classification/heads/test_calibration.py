"""Probabilities and temperatures."""

import numpy as np
import pytest
from defectflow.classification.heads.calibration import calibration_error, log_loss, probabilities, temperature_of


def test_rows_sum_to_one_and_a_temperature_flattens():
    logits = np.array([[1000.0, 0, 0], [1, 2, 3]])
    chance = probabilities(logits)
    assert chance.sum(axis=1) == pytest.approx(1) and chance[0, 0] == 1
    assert probabilities(logits, 10)[1].max() < chance[1].max()


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_the_temperature_is_what_log_odds_were_multiplied_by(scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 3))
    labels = np.array([rng.choice(3, p=p) for p in probabilities(logits)])
    found = temperature_of(scale * logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    assert log_loss(scale * logits, labels, found) < log_loss(scale * logits, labels)


def test_the_error_is_the_gap_between_promise_and_truth():
    right = np.array([True, False] * 50)
    assert calibration_error(np.full(100, 0.5), right) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.9), right) == pytest.approx(0.4)
