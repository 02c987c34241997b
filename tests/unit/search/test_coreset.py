import numpy as np
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.search import coreset
from defectflow.search.coreset import coreset_size, k_center_greedy, project


def sequential(features: torch.Tensor, n: int, start: int) -> list[int]:
    """Greedy k-center one center at a time, in float64."""
    x = features.double().numpy()
    distances = np.linalg.norm(x - x[start], axis=1)
    selected = [start]
    distances[start] = -1
    while len(selected) < n:
        farthest = int(distances.argmax())
        selected.append(farthest)
        distances = np.minimum(distances, np.linalg.norm(x - x[farthest], axis=1))
        distances[selected] = -1
    return selected


def anomalib_selection(features: torch.Tensor, n: int, start: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from anomalib.models.components import KCenterGreedy

    sampler = KCenterGreedy(features[:, :, None], sampling_ratio=n / len(features))  # 3 axes: no random projection
    sampler.coreset_size = n
    monkeypatch.setattr(torch, "randint", lambda **_: torch.tensor([start]))
    selected = sampler.select_coreset_idxs()
    monkeypatch.undo()
    return selected


def clusters(rows: int, dimensions: int, seed: int) -> torch.Tensor:
    """Points of uneven density far from the origin, like features after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(20, dimensions, generator=generator) * 3
    kind = torch.randint(20, (rows,), generator=generator)
    spread = torch.rand(20, generator=generator)[kind, None]
    return centers[kind] + spread * torch.randn(rows, dimensions, generator=generator) + 5


@pytest.mark.parametrize(("rows", "dimensions", "n"), [(3000, 16, 300), (2500, 303, 200), (700, 3, 650), (5, 4, 5)])
def test_selects_what_anomalib_selects(rows, dimensions, n, monkeypatch):
    features = clusters(rows, dimensions, seed=rows)
    expected = anomalib_selection(features, n, 3, monkeypatch)
    assert k_center_greedy(features, n, start=3, progress=False).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 7, 100, 5000])
def test_neither_batch_nor_kind_of_product_change_the_selection(batch, dtype, monkeypatch):
    monkeypatch.setattr(coreset, "product_dtype", lambda _: dtype)
    features = clusters(1500, 24, seed=1)
    assert k_center_greedy(features, 150, start=0, batch=batch, progress=False).tolist() == sequential(features, 150, 0)


def test_many_centers_and_rows_span_several_tiles():
    features = clusters(4 * coreset._ROWS + 17, 8, seed=10)  # without a tie in float32
    n = coreset._CENTERS + 300
    assert k_center_greedy(features, n, start=9, progress=False).tolist() == sequential(features, n, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_bfloat16_cannot_tell_apart(dtype, monkeypatch):
    monkeypatch.setattr(coreset, "_EIGEN", 0)
    monkeypatch.setattr(coreset, "product_dtype", lambda _: dtype)
    background = 1e-3 * torch.randn(3000, 24, generator=torch.Generator().manual_seed(2))
    others = clusters(500, 24, seed=12)
    features = torch.cat([others - others.mean(dim=0), background])
    selected = k_center_greedy(features, 900, start=0, progress=False)
    assert selected.tolist() == sequential(features, 900, 0)


def test_varied_rows_get_more_axes_and_the_same_selection(monkeypatch):
    monkeypatch.setattr(coreset, "_EIGEN", 0)  # few axes, however few the rows
    widths, along = [], coreset._Points._along
    monkeypatch.setattr(coreset._Points, "_along", lambda self, columns: (widths.append(columns), along(self, columns)))
    features = torch.randn(3000, 300, generator=torch.Generator().manual_seed(4))
    assert k_center_greedy(features, 700, start=0, progress=False).tolist() == sequential(features, 700, 0)
    assert len(widths) > 1 and widths == sorted(widths)


def test_duplicates_come_last_and_no_row_twice():
    distinct = clusters(200, 12, seed=3)
    features = distinct.repeat_interleave(5, dim=0)
    selected = k_center_greedy(features, 400, start=0, batch=50, progress=False)
    assert len(set(selected.tolist())) == 400
    assert len(set((selected[:200] // 5).tolist())) == 200  # every distinct point first
    assert selected[200:].tolist() == sorted(selected[200:].tolist())
    assert (selected[:200] // 5).tolist() == sequential(distinct, 200, 0)


def test_constant_rows():
    assert k_center_greedy(torch.full((6, 3), 7.0), 4, start=2, progress=False).tolist() == [2, 0, 1, 3]


def test_half_precision_is_computed_in_single():
    features = clusters(500, 8, seed=4).half()
    expected = k_center_greedy(features.float(), 100, start=0, progress=False)
    assert torch.equal(k_center_greedy(features, 100, start=0, progress=False), expected)


def test_threads_do_not_change_the_selection():
    features = clusters(3000, 24, seed=5)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    one = k_center_greedy(features, 0.1, seed=1, progress=False)
    torch.set_num_threads(2)
    two = k_center_greedy(features, 0.1, seed=1, progress=False)
    torch.set_num_threads(before)
    assert torch.equal(one, two)


def test_ratio_seed_and_impossible_sizes():
    features = clusters(100, 4, seed=6)
    assert len(k_center_greedy(features, 0.25, progress=False)) == 25
    first = k_center_greedy(features, 3, seed=5, progress=False)
    assert torch.equal(first, k_center_greedy(features, 3, seed=5, progress=False))
    for n in (0, 101):
        with pytest.raises(UserError, match=r"of 100 patches"):
            k_center_greedy(features, n)


def test_coreset_size():
    assert coreset_size(1000, 0.1) == 100
    assert coreset_size(1000, 0.1, 30) == 30
    assert coreset_size(5, 0.01) == 1
    assert coreset_size(0, 0.5) == 0


def test_projection_keeps_distances():
    axes = torch.randn(12, 600, generator=torch.Generator().manual_seed(0))
    features = clusters(400, 12, seed=7) @ axes
    projected = project(features, seed=1)
    assert projected.shape[1] < 600
    ratio = torch.pdist(projected) / torch.pdist(features)
    assert ratio.min() > 0.75 and ratio.max() < 1.25
    assert torch.equal(projected, project(features, seed=1))


def test_no_projection_where_it_would_not_reduce():
    features = clusters(400, 12, seed=8)
    torch.testing.assert_close(project(features), features - features.mean(dim=0))
