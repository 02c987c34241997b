import numpy as np
import pytest
import torch
from defectflow.methods import numpy_registry, registry
from defectflow.methods.detector import GoodPatches
from defectflow.methods.method_settings import METHODS
from defectflow.search import nearest_in_numpy
from defectflow.search.nearest_in_numpy import Points


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


def test_patches_too_varied_for_few_axes_get_more_and_the_same_results():
    values = np.random.default_rng(0).normal(size=(4800, 300)).astype(np.float32)
    known, queries = values[:4000], values[4000:]
    points, first = Points(known), nearest_in_numpy._AXES
    distances, indices = points.nearest(queries)
    nearest, expected = torch.cdist(torch.from_numpy(queries).double(), torch.from_numpy(known).double()).min(dim=1)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, nearest, rtol=1e-5)
    assert points._count == 300  # all: a cloud without a subspace
    again, same = points.nearest(queries)
    np.testing.assert_array_equal(again, distances)
    np.testing.assert_array_equal(same, indices)
    # These lie where points do and leave one candidate each: fewer axes again.
    for _ in range(nearest_in_numpy._TRY):
        distances, indices = points.nearest(known[:400])
    assert indices.tolist() == list(range(400)) and distances.max() == 0
    assert points._count < 300
    easy = Points(cloud(1000))
    easy.nearest(cloud(300, seed=1))
    assert easy._count == first


def test_points_among_the_queries_have_distance_0_and_the_lowest_index_of_equals():
    points = np.concatenate([cloud(50), cloud(50)])
    distances, indices = Points(points).nearest(points)
    assert distances.max() == 0
    assert indices.tolist() == [*range(50), *range(50)]


def twins(method, scoring, **how):
    """The torch detector and its numpy twin, fitted on four good images of a grid of 5 x 8."""
    score, neighbours = scoring
    wanted = {"dimensions": 7, "score": score, "neighbours": neighbours, "top_fraction": 0.05, **how}
    cls, kind = METHODS.classes[method], registry.detector_class(method)
    options = cls(**{key: value for key, value in wanted.items() if key in cls.own_keys()})
    good, cells = torch.from_numpy(cloud(160)), 40
    owner, position = torch.arange(4).repeat_interleave(cells), torch.arange(cells).repeat(4)
    kept = [kind.condense(good[owner == i], position[owner == i], cells, options)[0] for i in range(4)]
    means = good.view(4, cells, -1).mean(dim=1)
    images = GoodPatches(torch.cat(kept), position, owner, range(4), 0, len(good), means, (5, 8))
    tensors = kind.fit(images, options)(torch.ones(4, dtype=torch.bool))
    metadata = kind.metadata(options)
    floats = {
        name: tensor if name == "axes" and method == "padim" else tensor.float() for name, tensor in tensors.items()
    }
    return (
        kind(floats, metadata, options),
        numpy_registry.DETECTORS[method]({name: tensor.numpy() for name, tensor in tensors.items()}, metadata, options),
    )


def check(expected, twin):
    patches, position = cloud(30, seed=1), np.arange(5, 35)
    score, distances = expected.judge(torch.from_numpy(patches), torch.from_numpy(position))
    value, others = twin.judge(patches, position)
    np.testing.assert_allclose(others, distances, rtol=1e-4, atol=1e-6)
    assert value == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("scoring", [("max", 9), ("max", 1), ("top_k_mean", 9), ("percentile", 9)])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("bank", ["float32", "float16", "pca_float16"])
def test_patchcore_judges_as_with_torch(scoring, distance, bank):
    check(*twins("patchcore", scoring, distance=distance, bank_dtype=bank, coreset_ratio=0.5))


@pytest.mark.parametrize("scoring", [("max", 9), ("top_k_mean", 9)])
@pytest.mark.parametrize("method", ["padim", "centroid", "spade"])
def test_other_methods_judge_as_with_torch(method, scoring):
    check(*twins(method, scoring))
