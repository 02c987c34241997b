"""The trained head: repeatable, and its settings matter."""

import numpy as np
from defectflow.classification.heads.trained_head import fit_trained_head
from defectflow.classification.settings import KindSettings


def fit(x, y, seed=0, **given):
    settings = KindSettings.from_dict({"head": "trained", **given}, "kinds").only_for("classify")
    weights, bias = fit_trained_head(x, y, np.ones(2), settings, seed)
    return x @ weights.T + bias


def test_epochs_optimizer_and_rate_matter_and_the_seed_repeats():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 80)
    x = rng.normal(0, 1, (160, 6)) + 1.5 * y[:, None]
    default = fit(x, y)
    assert (default.argmax(axis=1) == y).mean() > 0.9
    assert np.array_equal(default, fit(x, y))
    others = [{"epochs": 5}, {"optimizer": "sgd"}, {"learning_rate": 0.01}, {"seed": 1}]
    assert not any(np.allclose(default, fit(x, y, **other), atol=1e-6) for other in others)
