import pytest
import torch
from defectflow.methods.detector import ScoreOptions, pool


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ScoreOptions(), 100),
        (ScoreOptions("top_k_mean", top_fraction=0.04), 98.5),
        (ScoreOptions("top_k_mean", top_fraction=0.001), 100),  # one at least
        (ScoreOptions("percentile", top_fraction=0.5), 50.5),
    ],
)
def test_image_scores(options, expected):
    assert pool(torch.arange(1.0, 101), options) == expected
