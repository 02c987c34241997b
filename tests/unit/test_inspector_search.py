import numpy as np
import pytest
import torch
from defectflow import detectors, inspector_search
from defectflow.detector import FitOptions, GoodPatches, ScoreOptions
from defectflow.inspector_search import Points


def cloud(count, seed=0, dimensions=70):
    """Points near a subspace, as patches are, far from the origin."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(9).normal(size=(20, dimensions))
    return (rng.normal(size=(count, 20)) @ basis + rng.normal(0, 0.3, (count, dimensions)) + 7).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5, 32, 1000])
def test_the_nearest_is_that_of_all_distances(count):
    points, queries = cloud(count), cloud(300, seed=1)
    distances, indices = Points(points).nearest(queries)
    table = np.linalg.norm(queries[:, None].astype(float) - points[None].astype(float), axis=2)
    np.testing.assert_allclose(distances, table.min(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(indices, table.argmin(axis=1))


def test_points_among_the_queries_have_distance_0_and_the_lowest_index_of_equals():
    points = np.concatenate([cloud(50), cloud(50)])
    distances, indices = Points(points).nearest(points)
    assert distances.max() == 0
    assert indices.tolist() == [*range(50), *range(50)]


@pytest.mark.parametrize("score", ["max", "top_k_mean", "percentile"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("bank", ["float32", "float16", "pca_float16"])
@pytest.mark.parametrize("neighbours", [9, 1])
def test_verdicts_are_those_of_the_torch_detector(score, distance, bank, neighbours):
    good, patches = torch.from_numpy(cloud(400)), cloud(90, seed=1)
    options = FitOptions(distance=distance, bank=bank, coreset_ratio=0.5)
    kind = detectors.METHODS["patchcore"]
    position = torch.arange(len(good))
    kept, _ = kind.condense(good, position, len(good), options)
    tensors = kind.fit(GoodPatches(kept, position, None, None, 0, len(good), (20, 20)), options)(position, 0)
    settings = kind.settings(options)
    expected, expected_distances = kind(
        {name: tensor.float() for name, tensor in tensors.items()}, settings, ScoreOptions(score, neighbours, 0.05)
    ).judge(torch.from_numpy(patches), torch.arange(90))
    twin = inspector_search.METHODS["patchcore"](
        {name: tensor.numpy() for name, tensor in tensors.items()},
        settings,
        {"score": score, "neighbours": neighbours, "top_share": 0.05},
    )
    value, distances = twin.judge(patches, np.arange(90))
    np.testing.assert_allclose(distances, expected_distances, rtol=2e-5, atol=1e-6)
    assert value == pytest.approx(expected, rel=2e-5)
