"""Descriptors: what is unlike good photographs, compared with other folds and groups only."""

import numpy as np
import pytest
import torch
from defectflow.classification import describe as stage
from defectflow.classification.descriptor_files import read_descriptors
from defectflow.classification.kind_folds import sample
from defectflow.core.files import UserError
from defectflow.detection.feature_files import open_patches
from kinds_set import DIMENSIONS, described, manifest_of, patches_of, write_set

COUNTS = {"good": 10, "a": 5, "b": 5}


def test_a_descriptor_points_where_the_defect_does(tmp_path):
    found = described(tmp_path, manifest_of(COUNTS), strength=6)
    direction = torch.randn(DIMENSIONS, generator=torch.Generator().manual_seed(ord("a"))).numpy()
    mean = found.held_out[0][(found.known["class"] == "a").to_numpy(), :DIMENSIONS]
    cosines = mean @ direction / np.linalg.norm(direction)
    assert (cosines > 0.8).all()
    lengths = np.linalg.norm(found.every.reshape(len(found.every), 2, DIMENSIONS), axis=2)
    assert lengths == pytest.approx(1, abs=1e-5)


def test_good_photographs_of_the_fold_that_is_held_out_are_not_compared_with(tmp_path):
    manifest = manifest_of(COUNTS)
    before = described(tmp_path / "before", manifest)
    fold = int(before.known.loc[before.known["image_id"] == "good-00", "fold"].iloc[0])
    _, patches = write_set(tmp_path, manifest)
    files = open_patches([patches])
    chosen = sample(manifest, 0)
    groups = np.arange(len(chosen.table))
    places = {item["image_id"]: (files[0], k) for k, item in enumerate(files[0].items)}
    good = stage.good_patches(places, chosen.table, groups, 0)
    own = slice(good.starts[fold], good.starts[fold + 1])
    moved = good._replace(patches=good.patches.clone(), half_norms=good.half_norms.clone())
    moved.patches[own] = 0
    moved.half_norms[own] = 0
    seen = patches_of("a-00")
    held_out, everything = stage.descriptors(seen, (-1, -1), good, [fold, None])
    other_held_out, other_everything = stage.descriptors(seen, (-1, -1), moved, [fold, None])
    assert torch.equal(held_out, other_held_out) and not torch.equal(everything, other_everything)


def test_a_photograph_is_not_compared_with_itself(tmp_path):
    found = described(tmp_path, manifest_of({"good": 4, "a": 3}))
    good = found.every[(found.items["class"] == "good").to_numpy()]
    assert (np.linalg.norm(good[:, :DIMENSIONS], axis=1) > 0.99).all()  # the difference to itself has no length


def test_the_only_group_of_good_photographs_is_compared_with_all_the_same(tmp_path):
    manifest = manifest_of({"good": 6, "a": 4})
    manifest.loc[manifest["label"] == 0, "group"] = "one burst"
    assert np.isfinite(described(tmp_path, manifest).held_out).all()


def test_the_stage_writes_what_is_read_back(tmp_path):
    manifest = manifest_of(COUNTS | {"c": 2}, unlabelled=3)
    path, patches = write_set(tmp_path, manifest)
    words = ["--features", str(patches), "--manifest", str(path), "--threads", "1", "--out", str(tmp_path / "d")]
    stage.main(stage.build_parser().parse_args(words))
    found = read_descriptors(tmp_path / "d")
    assert found.held_out.shape == (5, 20, 2 * DIMENSIONS) and found.every.shape == (23, 2 * DIMENSIONS)
    assert found.about["left_out"] == {"c": 2} and list(found.items["fold"][20:]) == [-1, -1, -1]
    first = (tmp_path / "d").read_bytes()
    stage.main(stage.build_parser().parse_args(words))
    assert (tmp_path / "d").read_bytes() == first


def test_a_photograph_without_patches_is_named(tmp_path):
    manifest = manifest_of(COUNTS)
    _, patches = write_set(tmp_path, manifest.iloc[1:])
    chosen = sample(manifest, 0)
    with pytest.raises(UserError, match=r"good-00\.png: no patches"):
        stage.describe(open_patches([patches]), manifest, chosen, 0)
