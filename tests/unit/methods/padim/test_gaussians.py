import numpy as np
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.methods.detector import FitOptions, GoodPatches, ScoreOptions
from defectflow.methods.padim.gaussians import Padim

GRID, IMAGES, DIMENSIONS = (2, 3), 12, 7


def good_patches(images=IMAGES):
    patches = torch.randn(images * 6, DIMENSIONS, generator=torch.Generator().manual_seed(0)) + 3
    position, owner = torch.arange(6).repeat(images), torch.arange(images).repeat_interleave(6)
    return GoodPatches(patches, position, owner, range(images), 0, images * 6, None, GRID)


ALL = torch.ones(IMAGES, dtype=torch.bool)


def test_distances_are_mahalanobis_in_each_place():
    good = good_patches()
    tensors = Padim.fit(good, FitOptions(dimensions=4))(ALL)
    patches = torch.randn(6, DIMENSIONS, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([4, 0, 5])  # any part of the grid may be judged
    score, distances = Padim(tensors, {}, ScoreOptions()).judge(patches[order], order)
    axes = tensors["axes"].tolist()
    assert len(set(axes)) == 4
    for place, distance in zip(order.tolist(), distances.tolist(), strict=True):
        here = good.patches[good.position == place][:, axes].double().numpy()
        delta = patches[place, axes].double().numpy() - here.mean(axis=0)
        covariance = np.cov(here, rowvar=False) + 0.01001 * np.eye(4)
        assert distance == pytest.approx(np.sqrt(delta @ np.linalg.inv(covariance) @ delta), rel=1e-3)
    assert score == distances.max()


def test_map_is_that_of_anomalib():
    from anomalib.models.components import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    good, patches = good_patches(), torch.randn(6, DIMENSIONS)
    tensors = Padim.fit(good, FitOptions(dimensions=100))(ALL)
    _, distances = Padim(tensors, {}, ScoreOptions()).judge(patches, torch.arange(6))
    stats = MultiVariateGaussian().fit(good.patches.view(IMAGES, *GRID, DIMENSIONS).permute(0, 3, 1, 2).contiguous())
    expected = AnomalyMapGenerator.compute_distance(patches.view(1, *GRID, DIMENSIONS).permute(0, 3, 1, 2), stats)
    torch.testing.assert_close(distances, expected.flatten())


def test_banks_share_the_drawn_dimensions_and_the_seed_draws_others():
    good = good_patches()
    fit = Padim.fit(good, FitOptions(dimensions=3, seed=1))
    assert torch.equal(fit(ALL)["axes"], fit(torch.arange(IMAGES) < 4)["axes"])
    others = [Padim.fit(good, FitOptions(dimensions=3, seed=seed))(ALL)["axes"].tolist() for seed in range(8)]
    assert len(set(map(tuple, others))) > 1


def test_what_it_cannot_learn_from_is_told():
    good = good_patches()
    with pytest.raises(UserError, match="two good images"):
        Padim.fit(good, FitOptions())(torch.arange(IMAGES) == 3)
    holes = GoodPatches(good.patches[1:], good.position[1:], good.owner[1:], range(IMAGES), 0, 71, None, GRID)
    with pytest.raises(UserError, match="all places"):
        Padim.fit(holes, FitOptions())
