import numpy as np
import pytest
from defectflow.finding import patch_maps
from defectflow.parts.patch_finder import Basis
from striped_discs import striped_discs


@pytest.fixture(scope="module")
def parts():
    return striped_discs()


def test_maps_are_high_where_the_part_is_and_low_on_the_table(parts):
    _, features, figure, masks = parts
    rng = np.random.default_rng(0)
    z = Basis.fit(features, rng)(features)
    inside = np.stack([mask[4::8, 4::8] for mask in masks])
    for values in (patch_maps.rarity(z, rng), patch_maps.shared_clusters(z, 0), patch_maps.cluster_mean(z, figure, 0)):
        assert values.shape == inside.shape and values.min() >= 0 and values.max() <= 1.001
        assert values[inside].mean() > 2 * values[~inside].mean()


def test_a_basis_keeps_what_differs(parts):
    _, features, _, _ = parts
    basis = Basis.fit(features, np.random.default_rng(0), 8)
    z = basis(features)
    assert z.shape[-1] == 8
    first = z[..., 0].ravel()
    truth = np.stack([mask[4::8, 4::8] for mask in parts[3]]).ravel()
    assert abs(np.corrcoef(first, truth)[0, 1]) > 0.9
