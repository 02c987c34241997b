import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.methods.detector import GoodPatches
from defectflow.methods.patchcore import bank_in_numpy
from defectflow.methods.patchcore.bank_as_graph import ScaledSearch
from defectflow.methods.patchcore.bank_in_numpy import PatchCore as InNumpy
from defectflow.methods.patchcore.known_defects import DEFECTS, GOOD_AFTER_ALL
from defectflow.methods.patchcore.memory_bank import PatchCore, held_out_parts, units_of
from defectflow.methods.patchcore.scales import UNITS, Combination, named, of_scale
from defectflow.methods.patchcore.settings import PatchCoreSettings

GRIDS, CELLS = [(8, 6), (4, 3)], 60
UNITS_OF_BOTH = np.array([[5.0, 2.0], [3.0, 0.5]])


def test_the_map_is_the_mean_in_units_of_the_finest_scale():
    fine, coarse = (
        np.random.default_rng(k).uniform(1, 9, cells).astype(np.float32) for k, cells in enumerate((48, 12))
    )
    found = Combination(GRIDS, UNITS_OF_BOTH).combined([fine, coarse], np.arange(CELLS))
    enlarged = cv2.resize(5 + (coarse.reshape(4, 3) - 3) * 4, (6, 8), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, (fine + enlarged.ravel()) / 2, rtol=1e-5)


def test_cells_without_a_patch_say_nothing_of_their_neighbours():
    position = np.array([0, 1, 20, 47, 48, 52])  # of the coarse grid, cells 0 and 4
    found = Combination(GRIDS, UNITS_OF_BOTH).combined([np.full(4, 5.0), np.array([3.0, 4.0])], position)
    assert found[:2].tolist() == [5, 5]  # interpolated with nothing for 0
    assert found[2] == pytest.approx((5 + 9) / 2)
    assert found[3] == 5  # nothing near


def test_a_coarser_scale_may_not_lower_what_another_raises():
    rng = np.random.default_rng(0)
    lower = [rng.uniform(0, 5, 48), rng.uniform(0, 5, 12)]
    higher = [values + rng.uniform(0, 1, len(values)) for values in lower]
    combination = Combination(GRIDS, UNITS_OF_BOTH)
    assert (combination.combined(higher, np.arange(CELLS)) >= combination.combined(lower, np.arange(CELLS))).all()


def test_tensors_of_a_scale_keep_their_names():
    tensors = {"": 0, "mean": 1, "axes": 2}
    together = named(tensors, 0) | named(tensors, 1) | named(tensors, 12) | {UNITS: 3}
    assert len(together) == 10
    assert all(of_scale(together, scale) == tensors for scale in (0, 1, 12))


def good_patches(images=4, folds=("0", "1", "2", "2")):
    patches = torch.randn(images * CELLS, 5, generator=torch.Generator().manual_seed(0)) + 4
    position, owner = torch.arange(CELLS).repeat(images), torch.arange(images).repeat_interleave(CELLS)
    names = pd.DataFrame({"image_id": [f"i{k}" for k in range(images)], "fold": list(folds)})
    return GoodPatches(patches, position, owner, names, 0, images * CELLS, None, GRIDS[0], 0, GRIDS[1:])


METADATA = {"distance": "euclidean", "grid": [8, 6], "coarser": [{"reduction": 2, "grid": [4, 3]}]}


@pytest.mark.parametrize("stored", ["float32", "pca_float16"])
@pytest.mark.parametrize("score", ["max", "top_k_mean"])
def test_each_scale_has_its_bank_and_numpy_and_the_graph_say_the_same(stored, score):
    good, options = good_patches(), PatchCoreSettings(bank_dtype=stored, score=score, coreset_ratio=0.5)
    tensors = PatchCore.fit(good, options)(torch.tensor([True, True, True, False]))
    assert len(tensors[""]) == 96 and len(tensors["scale1"]) == 24  # half of those of all four images
    assert PatchCore.size(tensors) == 120
    cells = torch.tensor([3, 4, 9, 10, 11, 17, 48, 49, 52])
    patches = torch.randn(len(cells), 5, generator=torch.Generator().manual_seed(1)) * 2 + 4
    value, distances = PatchCore(tensors, METADATA, options).judge(patches, cells)
    assert distances.shape == (6,)
    if score == "max":
        assert value == distances.max()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    other = InNumpy(arrays, METADATA, options).score(patches.numpy(), cells.numpy())
    assert other.score == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(other.distances(), distances, rtol=1e-4)
    np.testing.assert_allclose(other.bounds, distances, rtol=1e-4)
    if stored == "float32" and score == "max":
        whole = torch.zeros(1, CELLS, 5).index_copy(1, cells, patches[None])
        graph = ScaledSearch(lambda picture: whole, tensors, METADATA)
        of_graph, score_of_graph = graph(torch.zeros(1), cells[:6], cells[6:] - 48)
        np.testing.assert_allclose(of_graph, distances, rtol=1e-4)
        assert float(score_of_graph) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_units_are_those_of_pictures_that_are_not_in_the_bank(distance):
    good = good_patches()
    kept, _ = PatchCore.condense(good.patches, good.position, len(good.patches), PatchCoreSettings(distance=distance))
    parts = held_out_parts(good.images)[good.owner]
    rows = torch.arange(len(kept))
    middle, spread = units_of(kept, rows, rows, parts, distance)
    table = torch.cdist(kept.double(), kept.double())
    table[parts[:, None] == parts[None]] = torch.inf
    nearest = table.min(dim=1).values
    nearest = nearest.square() / 2 if distance == "cosine" else nearest
    assert middle == pytest.approx(float(nearest.median()), rel=1e-3)
    assert middle + spread == pytest.approx(float(np.quantile(nearest, 0.95)), rel=1e-3)


def test_copies_and_folds_are_held_out_together():
    images = pd.DataFrame({"image_id": ["a", "b", "c", "c"], "fold": ["1", "1", "", ""]})
    parts = held_out_parts(images).tolist()
    assert parts[0] == parts[1] and parts[2] == parts[3] and parts[0] != parts[2]


def test_one_good_picture_is_compared_with_its_other_patches():
    good = good_patches(1, [""])
    rows = torch.arange(CELLS)
    middle, spread = units_of(good.patches, rows, rows, held_out_parts(good.images)[good.owner], "euclidean")
    assert middle > 0 and spread > 0


def test_a_scale_without_patches_is_one_line():
    good = good_patches()
    fine = good.position < 48
    images = GoodPatches(
        good.patches[fine], good.position[fine], good.owner[fine], good.images, 0, 192, None, GRIDS[0], 0, GRIDS[1:]
    )
    with pytest.raises(UserError, match="max_patches leaves no patch of a scale"):
        PatchCore.fit(images, PatchCoreSettings())(torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_value_of_both_scales_is_found_without_searching_every_patch(seed, monkeypatch):
    monkeypatch.setattr(bank_in_numpy, "FIRST", 2)
    monkeypatch.setattr(bank_in_numpy, "LEAST", 5)
    options = PatchCoreSettings()
    tensors = PatchCore.fit(good_patches(), options)(torch.ones(4, dtype=torch.bool))
    detector = InNumpy({name: tensor.numpy() for name, tensor in tensors.items()}, METADATA, options)
    detector.workers = 3
    patches = np.random.default_rng(seed).normal(4, 2, (CELLS, 5)).astype(np.float32)
    value, distances = detector.judge(patches, np.arange(CELLS))
    searched = []
    bank = detector._scales[0]._bank
    nearest = bank.nearest
    monkeypatch.setattr(bank, "nearest", lambda queries: searched.append(len(queries)) or nearest(queries))
    found = detector.score(patches, np.arange(CELLS))
    assert found.score == value and (found.bounds >= distances).all() and found.bounds.max() == value
    assert sum(searched) < 48 / 2
    np.testing.assert_array_equal(found.distances(), distances)


def test_the_largest_values_come_from_patches_that_are_named():
    combination, rng = Combination(GRIDS, UNITS_OF_BOTH), np.random.default_rng(3)
    position = np.sort(rng.permutation(CELLS)[:40])
    own = [len(where) for _, where in combination.split(position)]
    values = [rng.uniform(1, 9, count) for count in own]
    whole = combination.combined(values, position)
    chosen = whole >= np.sort(whole)[-5]
    needed = combination.sources(chosen, position)
    assert needed[: own[0]].tolist() == chosen.tolist() and chosen.sum() < needed.sum() < len(position)
    some = [part[needed[rows]] for part, (rows, _) in zip(values, combination.split(position), strict=True)]
    np.testing.assert_allclose(combination.combined(some, position[needed]), whole[chosen], rtol=1e-6)
    for cell, held in zip((0, 7, 47), combination.holding(np.array([0, 7, 47]), 1), strict=True):
        assert held == cell // 6 // 2 * 3 + cell % 6 // 2


def test_what_was_taught_counts_at_its_own_scale_in_numpy_as_in_torch():
    good, options = good_patches(), PatchCoreSettings()
    tensors = PatchCore.fit(good, options)(torch.tensor([True, True, True, False]))
    cells = torch.arange(CELLS)
    patches = torch.randn(CELLS, 5, generator=torch.Generator().manual_seed(1)) * 2 + 4
    _, heat = PatchCore(tensors, METADATA, options).judge(patches, cells)
    winner = int(heat.argmax())
    for name, scale in ((GOOD_AFTER_ALL, 0), (DEFECTS, 0), (GOOD_AFTER_ALL, 1), (DEFECTS, 1)):
        row = winner if scale == 0 else 48 + winner // 6 // 2 * 3 + winner % 6 // 2
        taught = tensors | named({name: patches[row : row + 1]}, scale)
        found, distances = PatchCore(taught, METADATA, options).judge(patches, cells)
        assert (distances[winner] < heat[winner]) if name == GOOD_AFTER_ALL else (distances[winner] > heat[winner])
        other = InNumpy({key: one.numpy() for key, one in taught.items()}, METADATA, options)
        scored = other.score(patches.numpy(), cells.numpy())
        assert scored.score == pytest.approx(found, rel=1e-5)
        np.testing.assert_allclose(scored.distances(), distances, rtol=1e-4)
        assert (scored.bounds >= scored.distances() - 1e-4).all()
