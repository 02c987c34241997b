import numpy as np
import pytest
import torch
from defectflow.methods.centroid.centroid import Centroid
from defectflow.methods.centroid.settings import CentroidSettings
from detector_set import CELLS, patches_of, run_fit, write_shard, write_splits
from safetensors.torch import load_file

GOOD = ("good1", "good2", "good3")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def fitted(folder, *extra, cells=None):
    shard = write_shard(folder / "0.safetensors", [(name, "", "") for name in (*GOOD, "bad1")], cells=cells)
    rows = [(name, "0", "fold", str(i), "") for i, name in enumerate(GOOD)] + [("bad1", "1", "fold", "0", "")]
    banks, _ = run_fit(folder, [shard], write_splits(folder / "s.csv", rows), "--method", "centroid", *extra)
    return load_file(banks)


def test_centroid_score_and_map_are_those_of_the_formula(tmp_path):
    found = fitted(tmp_path)
    patches = {name: patches_of(name, False, False).double().numpy() for name in GOOD}
    embeddings = {name: unit(x.mean(axis=0)) for name, x in patches.items()}
    expected = unit(sum(embeddings.values()))
    places = unit(sum(unit(x) for x in patches.values()))
    np.testing.assert_allclose(found["all"][0], expected, atol=1e-6)
    np.testing.assert_allclose(found["all/places"], places, atol=1e-6)
    np.testing.assert_allclose(found["fold/2"][0], unit(embeddings["good1"] + embeddings["good2"]), atol=1e-6)

    bad, order = patches_of("bad1", True, False), torch.tensor([7, 3, 12])  # any part of the grid may be judged
    tensors = {"": found["all"], "places": found["all/places"]}
    score, distances = Centroid(tensors, {}, CentroidSettings()).judge(bad[order], order)
    x = bad[order].double().numpy()
    assert score == pytest.approx(1 - unit(x.mean(axis=0)) @ expected, abs=1e-6)
    np.testing.assert_allclose(distances, 1 - (unit(x) * places[order]).sum(axis=1), atol=1e-6)


def test_a_place_without_good_patches_has_the_centroid(tmp_path):
    found = fitted(tmp_path, cells=range(5, CELLS))
    assert torch.equal(found["all/places"][:5], found["all"].expand(5, -1))
    assert not torch.isclose(found["all/places"][5], found["all"][0]).all()


def test_a_large_set_learns_places_from_some_images_and_the_centroid_from_all(tmp_path):
    small = fitted(tmp_path, "--max-patches", str(CELLS * 2))  # of 3 images: every second one
    assert torch.equal(small["all"], fitted(tmp_path)["all"])
    expected = unit(sum(unit(patches_of(name, False, False).numpy()) for name in ("good1", "good3")))
    np.testing.assert_allclose(small["all/places"], expected, atol=1e-6)
    assert Centroid.counts([20, 20, 20], CentroidSettings(max_patches=10)) == [20, 0, 0]
