import numpy as np
import pytest
from defectflow.detection.feature_files import open_patches
from defectflow.labelling.photograph_distances import REFERENCES, References, compare
from detector_set import patches_of, write_shard

NAMES = ["one", "two", "three", "four_bad", "five"]


@pytest.fixture
def files(tmp_path):
    items = [(name, "", "") for name in NAMES] + [("one~aug1", "one", "augmented")]
    return open_patches([write_shard(tmp_path / "0.safetensors", items, absent=["five"])])


def test_each_cell_is_as_far_as_from_the_nearest_patch_of_the_other_photograph(files):
    found = compare(files, dict.fromkeys(NAMES, ""))
    assert found.image_ids == ["four_bad", "one", "three", "two"]  # neither the copy nor the one without the part
    patches = {name: patches_of(name, "bad" in name, False).numpy() for name in found.image_ids}
    for row, own in enumerate(found.image_ids):
        for column, other in enumerate(found.references):
            cells = found.cells[row, :, column]
            if row == other:
                assert np.isinf(cells[np.isfinite(found.cells[row, :, column - 1])]).all()
                continue
            pairs = patches[own][:, None] - patches[found.image_ids[other]][None]
            expected = np.linalg.norm(pairs, axis=2).min(axis=1)
            assert np.sort(cells[~np.isnan(cells)]) == pytest.approx(np.sort(expected), rel=2e-3)
            assert found.whole[row, column] == pytest.approx(expected.mean(), rel=1e-4)


def test_a_photograph_with_a_blot_has_the_farthest_cell(files):
    found = compare(files, dict.fromkeys(NAMES, ""))
    every = np.ones(4, bool)
    far = found.farthest_cell(every, lambda count: 1)
    assert far.argmax() == found.image_ids.index("four_bad") and far.max() > 3 * np.median(far)
    assert (found.farthest_cell(every, lambda count: count) >= far).all()
    assert np.isnan(found.farthest_cell(~every, lambda count: 1)).all() and found.nearest(0, ~every) is None


def test_photographs_are_averaged_over_cells_of_a_fine_grid(tmp_path):
    # A grid of 4 x 5 is taken as it is: a cell for each patch.
    files = open_patches([write_shard(tmp_path / "0.safetensors", [("a", "", ""), ("b", "", "")], cells=[0, 7, 19])])
    found = compare(files, {"a": "", "b": ""})
    assert (~np.isnan(found.cells)).sum(axis=1).tolist() == [[3, 3], [3, 3]]


def test_a_photograph_is_not_compared_with_its_group_where_there_are_enough(tmp_path):
    names = [f"n{k:02}" for k in range(12)]
    files = open_patches([write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names])])
    by_two = compare(files, {name: f"g{k // 2}" for k, name in enumerate(names)})
    assert (np.isinf(by_two.whole).sum(axis=1) == 2).all()
    halves = compare(files, {name: f"g{k // 6}" for k, name in enumerate(names)})
    assert (np.isinf(halves.whole).sum(axis=1) == 1).all()


def test_without_a_table_of_distances_the_farthest_cells_are_the_same(tmp_path):
    names = [f"n{k:02}" for k in range(9)] + ["bad"]
    files = open_patches([write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names])])
    groups = {name: f"g{k // 2}" for k, name in enumerate(names)}
    references = References(files, groups, names[:6])
    whole = compare(files, groups, names[:6])
    assert set(names[:6]) < set(references.some(8)) and len(references.some(8)) == 8
    for among in (np.ones(6, bool), np.arange(6) > 1, np.zeros(6, bool)):
        score, nearest = references.farthest_cells(references.image_ids, among)
        np.testing.assert_array_equal(score, whole.farthest_cell(among, lambda count: 1))
        rows = [whole.nearest(row, among) for row in range(len(names))]
        assert nearest == ["" if row is None else whole.image_ids[row] for row in rows]


def test_references_are_those_named_and_not_too_many(tmp_path):
    names = [f"n{k:03}" for k in range(REFERENCES + 5)]
    files = open_patches([write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names], cells=[3])])
    groups = dict.fromkeys(names, "")
    assert len(compare(files, groups).references) == REFERENCES
    assert compare(files, groups, among=names[:3]).references.tolist() == [0, 1, 2]
    assert compare(files, groups, among=[]).whole.shape == (len(names), 0)
