"""Class activation maps: they light up where the class is, and are measured against masks."""

import numpy as np
import pytest
from defectflow.classification.activation_maps import (
    eigen_cam,
    grad_cam_plus_plus,
    iou_at_area,
    peak_on,
    pooled,
    score_cam,
)


def test_grad_cam_plus_plus_is_that_of_automatic_gradients_and_lights_up_the_class():
    import torch

    activations = np.abs(np.random.default_rng(0).normal(0, 0.1, (20, 4)))
    activations[7, 2] += 5.0
    weights = np.zeros(8)
    weights[[2, 6]] = 1.0, 0.5
    heat = grad_cam_plus_plus(activations, weights)
    assert heat.argmax() == 7 and (heat >= 0).all()
    seen = torch.tensor(activations, requires_grad=True)
    score = torch.cat([seen.mean(dim=0), seen.amax(dim=0)]) @ torch.tensor(weights)
    (gradient,) = torch.autograd.grad(score, seen)
    g = gradient.numpy()
    below = 2 * g**2 + (activations * g**3).sum(axis=0)
    alpha = np.where(below != 0, g**2 / np.where(below != 0, below, 1), 0)
    assert heat == pytest.approx(np.maximum(activations @ (alpha * np.maximum(g, 0)).sum(axis=0), 0))
    assert float(score.detach()) == pytest.approx(pooled(activations) @ weights)
    assert not grad_cam_plus_plus(activations, -weights).any()


def test_score_cam_weighs_channels_by_the_score_that_their_places_keep():
    activations = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    weights = np.array([0.0, 0.0, 0.0, 1.5, 0.5, 0.0])  # of the maxima of the first two channels
    # What is left of the score under each channel: 2 * 1.5 alone, 3 * 0.5 alone, and nothing under a constant one.
    left = np.exp([3.0, 1.5, 0.0])
    assert score_cam(activations, weights) == pytest.approx(activations @ (left / left.sum()))
    assert score_cam(activations, weights).argmax() == 1
    assert score_cam(activations, weights[[0, 1, 2, 4, 3, 5]]).argmax() == 0


def test_eigen_cam_is_the_first_singular_direction():
    activations = np.abs(np.random.default_rng(1).normal(0, 1, (30, 6)))
    u, s, _ = np.linalg.svd(activations, full_matrices=False)
    assert eigen_cam(activations) == pytest.approx(np.abs(u[:, 0] * s[0]))


def test_maps_are_measured_against_masks():
    mask = np.zeros((40, 40), bool)
    mask[10:14, 10:20] = True
    heat = np.zeros((40, 40))
    heat[10:14, 15:25] = 1.0
    heat[12, 22] = 2.0
    assert not peak_on(heat, mask, 2) and peak_on(heat, mask, 3)
    assert iou_at_area(heat, mask) == pytest.approx(20 / 60) and iou_at_area(mask.astype(float), mask) == 1
