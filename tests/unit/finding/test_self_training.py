import numpy as np
import pytest
from defectflow.finding.self_training import self_train
from defectflow.parts.patch_finder import Basis
from striped_discs import striped_discs


@pytest.fixture(scope="module")
def parts():
    return striped_discs()


def test_it_learns_the_part_from_a_seed_that_shows_half_of_it(parts):
    _, features, figure, masks = parts
    rng = np.random.default_rng(1)
    z = Basis.fit(features, rng)(features)
    inside = np.stack([mask[4::8, 4::8] for mask in masks])
    seed = figure * (rng.random(figure.shape) > 0.4)
    found = self_train(z, seed, rng)(z)
    assert (found > 0.5)[inside].mean() > 0.95
    assert (found > 0.5)[~inside].mean() < 0.05


def test_the_same_seed_gives_the_same_classifier(parts):
    _, features, figure, _ = parts
    z = Basis.fit(features, np.random.default_rng(1))(features)
    one, two = (self_train(z, figure, np.random.default_rng(4)).weights for _ in range(2))
    assert (one == two).all()
