"""Appearance: heads on patch features find a part that lies anywhere, and none tells about what it has seen."""

import numpy as np
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.parts import appearance
from defectflow.parts import prior as stage
from defectflow.parts.part_model import Prior
from defectflow.parts.registration_frame import iou

SMALL = {"SIDE": 128, "PICTURES": 24, "STEPS": 60, "BATCH": 4}


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A reddish, striped disc anywhere on a bluish noisy ground: uint8 (128, 128, 3) and its mask, float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    cy, cx = rng.uniform(36, 92, 2)
    mask = (y - cy) ** 2 + (x - cx) ** 2 < 30**2
    image = rng.normal((60, 70, 130), 25, (128, 128, 3))
    image[mask] = np.array([190, 90, 60]) + 30 * np.sin(x[mask] / 2)[:, None]
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.float32)


def heads_of(tensors, seen):
    return appearance.Appearance(tensors, seen, appearance.backbone_hash())


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(appearance, name, value)
        images, masks = zip(*(scene(s) for s in range(12)), strict=True)
        groups = [f"g{i // 2}" for i in range(12)]
        yield appearance.train_heads(images, masks, groups, 0)


def test_finds_a_part_that_it_has_not_seen(trained):
    heads = heads_of(*trained)
    for seed in (100, 101, 102):
        image, mask = scene(seed)
        soft, agreement = heads.locate(image)
        assert soft.shape == mask.shape and soft.min() >= 0 and soft.max() <= 1 and 0 <= agreement <= 1
        assert iou(soft >= 0.5, mask > 0) > 0.7
        constant = np.mean([scene(s)[1] for s in range(12)], axis=0) >= 0.5
        assert iou(soft >= 0.5, mask > 0) > iou(constant, mask > 0)


def test_groups_stay_in_one_fold(trained):
    _, seen = trained
    assert len(seen) == appearance.FOLDS
    for indices in seen:
        assert {i // 2 for i in indices} & {i // 2 for i in set(range(12)) - set(indices)} == set()
    assert set.union(*map(set, seen)) == set(range(12))
    assert set.intersection(*map(set, seen)) == set()


def test_no_head_tells_about_what_it_has_seen(trained):
    tensors, seen = trained
    image, _ = scene(0)
    alone = next(k for k, indices in enumerate(seen) if 0 not in indices)
    told, agreement = heads_of(tensors, seen).locate(image, [0, 1])
    one = {name: value for name, value in tensors.items() if name.startswith(f"{alone}.")}
    np.testing.assert_array_equal(told, heads_of(one, [seen[alone]]).locate(image)[0])
    assert agreement == 1.0
    assert heads_of(tensors, seen).locate(image, range(12)) is None


def test_heads_of_other_features_are_refused(trained):
    with pytest.raises(UserError, match="another version of patch-nano"):
        appearance.Appearance(*trained, "0" * 64)


def test_the_same_seed_gives_the_same_weights(trained, monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(appearance, name, value)
    images, masks = zip(*(scene(s) for s in range(12)), strict=True)
    again, _ = appearance.train_heads(images, masks, [f"g{i // 2}" for i in range(12)], 0)
    assert again.keys() == trained[0].keys()
    assert all(np.array_equal(again[name], trained[0][name]) for name in again)


class Item:
    """An annotated photograph in memory."""

    def __init__(self, index: int):
        self.image_id, self.group, self.split = f"{index:02d}", f"group g{index // 2}", "test" if index > 7 else "train"
        self.index = index

    def image(self):
        return scene(self.index)[0]

    def mask(self):
        return scene(self.index)[1] > 0


def test_the_prior_takes_it_where_it_does_better_and_keeps_it_in_its_file(tmp_path, monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(appearance, name, value)
    items = [Item(i) for i in range(10)]
    prior, report = stage.build(items, 0)
    assert prior.info["registers"] == ("appearance" not in report)
    worse = {"constant": {item.image_id: 0.2 for item in items}}
    better = worse | {"template": {item.image_id: 1.0 for item in items}}
    assert not stage.add_appearance(prior, items, 0, better)["appearance"]["used"] and not prior.heads
    told = stage.add_appearance(prior, items, 0, worse)["appearance"]
    assert told["used"] and told["iou_mean"] > 0.6 and told["n"] == 10
    assert all(set(seen) <= set(range(8)) for seen in prior.info["trained_on"])
    prior.save(tmp_path / "prior.safetensors")
    image, out = scene(0)[0], prior.leave_out("00")
    again = Prior.load(tmp_path / "prior.safetensors").guess(image, out)
    assert again.source == "appearance" and again.found
    np.testing.assert_array_equal(prior.guess(image, out).soft, again.soft)


def test_of_few_groups_a_photograph_is_found_by_a_head_that_has_not_seen_it(monkeypatch):
    for name, value in (SMALL | {"STEPS": 30}).items():
        monkeypatch.setattr(appearance, name, value)
    items = [Item(i) for i in range(10)]
    for item in items:  # one session to learn from, another to judge by
        item.group = "group learned" if item.split == "train" else "group judged"
    prior, _ = stage.build(items, 0, learns=False)
    others = {"constant": {item.image_id: 0.0 if item.split == "test" else 1.0 for item in items}}
    told = stage.add_appearance(prior, items, 0, others)["appearance"]
    assert told["used"] and told["by_group"].keys() == {"judged"}
    assert prior.guess(items[0].image(), prior.leave_out("00")).source == "appearance"
    assert prior.leave_out("00") == [0]
    assert sum(0 in seen for seen in prior.info["trained_on"]) == 2


def test_the_number_of_threads_changes_nothing(trained, monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(appearance, name, value)
    images, masks = zip(*(scene(s) for s in range(12)), strict=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        again, _ = appearance.train_heads(images, masks, [f"g{i // 2}" for i in range(12)], 0)
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(again[name], trained[0][name]) for name in again)
