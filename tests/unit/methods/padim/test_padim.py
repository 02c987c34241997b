import subprocess
import sys

import numpy as np
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.methods.detector import GoodPatches
from defectflow.methods.padim.padim import Padim, place_gaussians
from defectflow.methods.padim.padim_in_numpy import Padim as InNumpy
from defectflow.methods.padim.settings import PadimSettings

GRID, IMAGES, DIMENSIONS = (2, 3), 12, 7


def good_patches(images=IMAGES):
    patches = torch.randn(images * 6, DIMENSIONS, generator=torch.Generator().manual_seed(0)) + 3
    position, owner = torch.arange(6).repeat(images), torch.arange(images).repeat_interleave(6)
    return GoodPatches(patches, position, owner, range(images), 0, images * 6, None, GRID)


ALL = torch.ones(IMAGES, dtype=torch.bool)


def test_distances_are_mahalanobis_in_each_place():
    good = good_patches()
    tensors = Padim.fit(good, PadimSettings(dimensions=4))(ALL)
    patches = torch.randn(6, DIMENSIONS, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([4, 0, 5])  # any part of the grid may be judged
    score, distances = Padim(tensors, {}, PadimSettings()).judge(patches[order], order)
    axes = tensors["axes"].tolist()
    assert len(set(axes)) == 4
    for place, distance in zip(order.tolist(), distances.tolist(), strict=True):
        here = good.patches[good.position == place][:, axes].double().numpy()
        delta = patches[place, axes].double().numpy() - here.mean(axis=0)
        covariance = np.cov(here, rowvar=False) + 0.01001 * np.eye(4)
        assert distance == pytest.approx(np.sqrt(delta @ np.linalg.inv(covariance) @ delta), rel=1e-3)
    assert score == distances.max()


@pytest.mark.parametrize("images, grid, dimensions", [(2, (2, 3), 5), (12, (2, 3), 7), (40, (20, 15), 24)])
def test_gaussians_and_map_are_those_of_anomalib(images, grid, dimensions):
    from anomalib.models.components import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    draw = torch.Generator().manual_seed(images)
    cells = grid[0] * grid[1]
    patches = torch.randn(images, cells, dimensions, generator=draw) + 3
    means, precision = place_gaussians(patches)
    as_pictures = patches.view(images, *grid, dimensions).permute(0, 3, 1, 2).contiguous()
    stats = MultiVariateGaussian().fit(as_pictures)
    torch.testing.assert_close(means, stats[0].T)
    torch.testing.assert_close(precision, stats[1], rtol=2e-4, atol=2e-4 * float(stats[1].abs().max()))
    new = torch.randn(cells, dimensions, generator=draw) * 2
    tensors = {"": means, "precision": precision, "axes": torch.arange(dimensions)}
    _, distances = Padim(tensors, {}, PadimSettings()).judge(new, torch.arange(cells))
    expected = AnomalyMapGenerator.compute_distance(new.view(1, *grid, dimensions).permute(0, 3, 1, 2), stats)
    torch.testing.assert_close(distances, expected.flatten(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("score", ["max", "top_k_mean", "percentile"])
def test_numpy_scores_as_torch_does(score):
    good = good_patches()
    tensors = Padim.fit(good, PadimSettings(dimensions=4))(ALL)
    patches, order = good.patches[:6] + 1, torch.tensor([5, 0, 3, 1, 2, 4])
    options = PadimSettings(score=score, top_fraction=0.3)
    expected, distances = Padim(tensors, {}, options).judge(patches, order)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    found, of_each = InNumpy(arrays, {}, options).judge(patches.numpy(), order.numpy())
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(of_each, distances.numpy(), rtol=1e-5)


def test_learning_imports_no_anomalib():
    code = "import sys, defectflow.methods.padim.padim; assert not {'anomalib', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_banks_share_the_drawn_dimensions_and_the_seed_draws_others():
    good = good_patches()
    fit = Padim.fit(good, PadimSettings(dimensions=3), seed=1)
    assert torch.equal(fit(ALL)["axes"], fit(torch.arange(IMAGES) < 4)["axes"])
    others = [Padim.fit(good, PadimSettings(dimensions=3), seed=seed)(ALL)["axes"].tolist() for seed in range(8)]
    assert len(set(map(tuple, others))) > 1


def test_what_it_cannot_learn_from_is_told():
    good = good_patches()
    with pytest.raises(UserError, match="two good images"):
        Padim.fit(good, PadimSettings())(torch.arange(IMAGES) == 3)


def test_pictures_of_another_shape_leave_out_what_they_do_not_show():
    good, few = good_patches(), good_patches()
    shown = (few.owner != 3) | (few.position < 4)  # the fourth picture has but four of six places
    shown &= few.position != 5  # which none shows
    few = GoodPatches(few.patches[shown], few.position[shown], few.owner[shown], range(IMAGES), 0, 71, None, GRID)
    expected = Padim.fit(good, PadimSettings(dimensions=4))
    whole, found = expected(ALL), Padim.fit(few, PadimSettings(dimensions=4))(ALL)
    without = expected(torch.arange(IMAGES) != 3)
    for name in ("", "precision"):
        torch.testing.assert_close(found[name][:4], whole[name][:4])
        torch.testing.assert_close(found[name][4], without[name][4])
        torch.testing.assert_close(found[name][5], found[name][2])  # the first of the nearest that were seen
