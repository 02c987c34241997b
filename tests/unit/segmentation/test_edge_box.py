"""The box around the edges of a photograph: the part in it, nothing in a blank one, not the window at its rim."""

import cv2
import numpy as np
import pytest
from defectflow.segmentation.edge_box import edge_box


def photograph(*boxes, size=(300, 400), noise=2.0):
    """Grey ground with bright rectangles (x0, y0, x1, y1), uint8 RGB of ``size`` (height, width)."""
    rng = np.random.default_rng(0)
    image = np.full((*size, 3), 90.0)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = 200
    return (image + rng.normal(0, noise, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("padding", [0.0, 0.1])
def test_the_box_holds_the_part_and_the_padding(padding):
    found = edge_box(photograph((160, 60, 240, 240)), padding=padding)
    x, y = padding * 80 / 400, padding * 180 / 300
    assert found == pytest.approx((0.4 - x, 0.2 - y, 0.6 + x, 0.8 + y), abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_a_blank_photograph_has_none(noise):
    assert edge_box(photograph(noise=noise)) is None


def test_recentring_leaves_out_the_window_at_the_rim():
    image = photograph((170, 80, 230, 240))
    cv2.rectangle(image, (370, 10), (399, 290), (255, 255, 255), -1)
    beside, with_it = edge_box(image), edge_box(image, recentre=False)
    assert beside[0] > 0.35 and beside[2] < 0.65
    assert with_it[2] > 0.9


def test_the_padding_ends_at_the_frame():
    assert edge_box(photograph((40, 30, 360, 270)), padding=0.5) == (0.0, 0.0, 1.0, 1.0)
