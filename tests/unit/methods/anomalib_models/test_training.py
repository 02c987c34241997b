import random

import numpy as np
import torch
from defectflow.methods.anomalib_models.settings import AnomalibSettings
from defectflow.methods.anomalib_models.training import Pictures, seeded
from defectflow.methods.picture_detector import Training
from picture_set import GRID, SIDE, picture


def batches(count, size, seed=0):
    settings = AnomalibSettings(model="Padim", train_batch_size=size)
    pictures = torch.stack([picture(k) for k in range(count)])
    loader = Pictures(Training(pictures, GRID, settings, seed, torch.device("cpu"), None))
    return loader, list(loader.train_dataloader())


def test_batches_hold_good_pictures_in_an_order_of_the_seed():
    loader, found = batches(6, 4)
    assert [len(batch.image) for batch in found] == [4, 2]
    assert found[0].image.shape[1:] == (3, SIDE, SIDE) and found[0].image.min() >= 0 and found[0].image.max() <= 1
    assert not found[0].gt_label.any() and not found[0].gt_mask.any()
    together = torch.cat([batch.image for batch in found])
    shown = {tuple((255 * one).round().flatten().int().tolist()) for one in together}
    assert shown == {tuple(picture(k).flatten().tolist()) for k in range(6)}
    assert torch.equal(together, torch.cat([batch.image for batch in batches(6, 4)[1]]))
    assert not torch.equal(together, torch.cat([batch.image for batch in batches(6, 4, seed=1)[1]]))
    in_order = torch.cat([batch.image for batch in loader.val_dataloader()])
    assert torch.equal(in_order, torch.stack([picture(k) for k in range(6)]) / 255)


def test_a_rest_of_one_picture_waits_for_another_epoch():
    assert [len(batch.image) for batch in batches(5, 4)[1]] == [4]
    assert [len(batch.image) for batch in batches(1, 4)[1]] == [1]


def test_what_is_drawn_inside_depends_on_the_seed_and_nothing_outside():
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(1))

    before = random.getstate()
    with seeded(3):
        first = draw()
    assert random.getstate() == before
    draw()
    with seeded(3):
        assert draw() == first
