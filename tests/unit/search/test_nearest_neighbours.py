import pytest
import torch
from defectflow.search import nearest_neighbours
from defectflow.search.nearest_neighbours import Neighbours

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(points, queries, dtype):
    found = Neighbours(points, dtype)
    distances, nearest = found.nearest(queries)
    exact = torch.cdist(queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected = exact.min(dim=1)
    assert torch.equal(nearest, expected.indices)
    torch.testing.assert_close(distances, expected.values.float(), rtol=1e-5, atol=1e-5)
    return found


@DTYPES
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_nearest_across_blocks(dtype, scale, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "_POINTS", 512)
    check((noise(2500, 20) + 30) * scale, (noise(1300, 20, seed=1) + 30) * scale, dtype)


@DTYPES
@pytest.mark.parametrize("points", [1, 31, 33])
def test_few_points(dtype, points):
    check(noise(points, 5), noise(3, 5, seed=1), dtype)


@DTYPES
def test_what_rounding_cannot_tell_apart(dtype):
    points = noise(300, 64).repeat(4, 1) + 1e-3 * noise(1200, 64, seed=1)  # 3 others within the error of bfloat16
    queries = points[:300] + 0.3 * noise(300, 64, seed=2)
    assert "_in_float32" not in vars(check(points, queries, dtype))


@DTYPES
def test_what_only_the_rounding_of_norms_and_results_hides(dtype):
    whole = (60 * noise(500, 4)).clamp(-200, 200).round()  # exact in bfloat16, unlike their squares
    check(torch.cat([whole, -whole]), (60 * noise(300, 4, seed=1)).clamp(-200, 200).round(), dtype)


def test_crowds_are_settled_in_float32():
    points = torch.cat([noise(100, 64), 1 + 1e-2 * noise(2000, 64, seed=1)])
    assert "_in_float32" in vars(check(points, 1 + 1e-2 * noise(50, 64, seed=2), torch.bfloat16))


@DTYPES
def test_the_first_of_equal_points(dtype):
    points = noise(200, 8).repeat(3, 1)[torch.randperm(600, generator=torch.Generator().manual_seed(1))]
    found = check(points, points, dtype)
    assert len(found._points) == 200
    assert found.nearest(points)[0].max() == 0


def test_points_of_equal_sums_are_not_taken_for_equal_ones():
    points = torch.tensor([[1.0, 0, 2, 0], [2.0, 0, 1, 0], [1.0, 0, 2, 0]])  # of the even columns too
    assert torch.equal(Neighbours(points)._points, points[:2])
    assert check(points[:2], points, torch.float32).nearest(points)[1].tolist() == [0, 1, 0]


@DTYPES
def test_varied_points_get_more_axes_and_those_of_one_part_few(dtype):
    part = noise(4000, 8) @ noise(8, 300, seed=3) + 0.05 * noise(4000, 300, seed=1)
    found = check(part, part[:500] + 0.05 * noise(500, 300, seed=2), dtype)
    assert found._step == 0
    varied = check(noise(4000, 300), noise(500, 300, seed=1), dtype)
    assert varied._step >= 2  # a cloud without a subspace
    odd = Neighbours(torch.cat([part, noise(4000, 300, seed=5)]), dtype)
    odd.nearest(noise(300, 300, seed=6))
    assert odd._step > 1
    for _ in range(2 * nearest_neighbours._TRY):
        odd.nearest(part[:300] + 0.05 * noise(300, 300, seed=7))
    assert odd._step < 2


@DTYPES
def test_few_axes_across_blocks(dtype, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "_POINTS", 1024)
    part = noise(3900, 8) @ noise(8, 300, seed=3) + 0.05 * noise(3900, 300, seed=1)  # no whole number of groups
    found = check(part, part[-600:] + 0.05 * noise(600, 300, seed=2), dtype)
    assert found._step == 0 and len(found._columns) > 0


@DTYPES
def test_few_points_are_not_worth_axes(dtype):
    assert Neighbours(noise(50, 300), dtype)._columns == []


@DTYPES
@pytest.mark.parametrize("points, count", [(1, 1), (3, 3), (40, 9), (3000, 9), (3000, 1)])
def test_points_around_others(dtype, points, count):
    cloud = noise(points, 300) @ torch.diag(0.97 ** torch.arange(300)) + 30
    found = Neighbours(cloud, dtype)
    found.nearest(cloud[:50])
    some = torch.randperm(points, generator=torch.Generator().manual_seed(1))[:600]
    exact = torch.cdist(cloud[some].double(), cloud.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(found.around(some, count), exact.topk(count, largest=False).indices)


@DTYPES
def test_equal_points_are_around_each_other(dtype):
    cloud = noise(100, 4)
    cloud[5:8] = cloud[1]
    found = Neighbours(cloud, dtype)
    around = found.around(torch.tensor([6, 1, 2]), 6)
    assert around[0].tolist() == around[1].tolist() and around[0, :4].tolist() == [1, 1, 1, 1]
    exact = torch.cdist(cloud[[6, 1, 2]].double(), cloud.double(), compute_mode="donot_use_mm_for_euclid_dist")
    lengths = torch.linalg.vector_norm(cloud[around] - cloud[[6, 1, 2]][:, None], dim=2)
    torch.testing.assert_close(lengths.double(), exact.sort(dim=1).values[:, :6], rtol=1e-5, atol=1e-6)
    everywhere = Neighbours(torch.ones(40, 3), dtype).around(torch.tensor([7]), 9)
    assert everywhere.tolist() == [[0] * 9]
