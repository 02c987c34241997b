import pytest
import torch
from defectflow.search.distance_bounds import Bound, axes_within, principal_axes

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
SCALES = pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bound_of(points, columns, dtype):
    origin, count = points.mean(dim=0), axes_within(columns, dtype)
    return Bound(origin, principal_axes(points - origin)[:, :count] if count < points.shape[1] else None, dtype)


@DTYPES
@SCALES
@pytest.mark.parametrize("columns", [16, 1024])
def test_error_bound_holds_and_is_not_idle(dtype, scale, columns):
    points, queries = noise(300, 96) * scale, noise(400, 96, seed=1) * noise(400, 1, seed=2) * scale
    queries[:300] = points * 1.001  # near ones, where the error weighs most
    bound = bound_of(points, columns, dtype)
    sources, targets = bound.sources(queries), bound.targets(points)
    exact = torch.cdist(bound.reduce(queries)[0].double(), bound.reduce(points)[0].double()).square()
    if columns == 16:  # its coordinates are rounded up off the axes, its squared norms are those of all axes
        (near, own), (far, others) = bound.reduce(queries), bound.reduce(points)
        exact = own[:, None].double() + others.double() - 2 * near.double() @ far.double().T
    products = (sources.matrix.double() @ targets.matrix.double().T)[:, :300]  # without the rounding of the result
    ratio = (products - exact).abs().amax(dim=1) / bound.error(sources, targets)
    assert ratio.max() <= 1
    assert dtype == torch.float32 or ratio.max() > 0.1


@DTYPES
@SCALES
@pytest.mark.parametrize("off", [0.0, 1e-4, 1.0])
def test_along_axes_nothing_is_farther_than_it_is(dtype, scale, off):
    """Points in a subspace or just off it: the length off it is then a difference of nearly equal numbers."""
    plane = torch.linalg.qr(noise(96, 9))[0].T
    points, queries = ((noise(n, 9, seed=n) @ plane + off * noise(n, 96, seed=n + 1)) * scale for n in (500, 400))
    bound = bound_of(points, 16, dtype)
    origin = points.mean(dim=0)
    near, far = bound.reduce(queries)[0].double(), bound.reduce(points)[0].double()
    products = (queries - origin).double() @ (points - origin).double().T
    slack = (96 + 6) * 2**-23 * (queries.norm(dim=1).max() + points.norm(dim=1).max()) ** 2
    assert (near @ far.T - products >= -slack).all()


@DTYPES
@pytest.mark.parametrize("columns", [16, 1024])
def test_pairs_hold_all_that_are_nearer_than_is_known(dtype, columns):
    points, queries = noise(300, 20), noise(200, 20, seed=1)
    bound = bound_of(points, columns, dtype)
    distances = torch.cdist(queries.double(), points.double()).square()
    known = distances.kthvalue(4, dim=1).values.float() * 1.00001
    sources, targets = bound.sources(queries), bound.targets(points)
    groups = bound.product(targets.matrix, sources.matrix)
    pairs = bound.pairs(groups, groups.amin(dim=1), known, bound.error(sources, targets))
    found = torch.zeros_like(distances, dtype=torch.bool)
    found[pairs] = True  # none of what fills up the last group: that would be an index out of range
    assert found[distances < known[:, None]].all()
    assert found.sum() < found.numel() / 2
