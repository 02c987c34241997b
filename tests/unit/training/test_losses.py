"""Losses of masks against values worked out by hand."""

import math

import pytest
import torch
from defectflow.training.losses import dice_loss, focal_loss


def test_dice_of_right_wrong_and_empty_masks():
    target = torch.zeros(3, 4, 4)
    target[:2, :2] = 1
    logits = torch.stack([200 * target[0] - 100, 100 - 200 * target[1], torch.full((4, 4), -100.0)])
    assert dice_loss(logits, target).tolist() == pytest.approx([0, 1 - 1 / 17, 0], abs=1e-6)


def test_focal_loss_weighs_the_classes_and_what_is_easy():
    target = torch.tensor([[[1.0, 0.0]]])
    assert focal_loss(torch.zeros(1, 1, 2), target).item() == pytest.approx(0.5 * 0.25 * math.log(2))
    assert focal_loss(torch.tensor([[[4.0, -4.0]]]), target).item() < 1e-4
