import pytest
import torch
from defectflow.methods.detector import pool
from defectflow.methods.method_settings import PooledSettings


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PooledSettings(), 100),
        (PooledSettings(score="top_k_mean", top_fraction=0.04), 98.5),
        (PooledSettings(score="top_k_mean", top_fraction=0.001), 100),  # one at least
        (PooledSettings(score="percentile", top_fraction=0.5), 50.5),
    ],
)
def test_image_scores(options, expected):
    assert pool(torch.arange(1.0, 101), options) == expected
