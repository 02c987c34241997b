"""Windows around regions: inside the photograph, and with the map's belief and the components that touch a region."""

import numpy as np
import pytest
from defectflow.refinement.region_windows import CONTEXT, LEAST_SIDE, belief, touching, window_around


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((300, 200, 50, 40), (600, 800), (slice(170, 270), slice(275, 375))),
        ((0, 0, 100, 10), (600, 800), (slice(0, 200), slice(0, 200))),  # moved into the photograph
        ((790, 590, 10, 10), (600, 800), (slice(600 - LEAST_SIDE, 600), slice(800 - LEAST_SIDE, 800))),
        ((10, 10, 500, 30), (60, 700), (slice(0, 60), slice(0, 700))),  # cut where it is larger
    ],
)
def test_a_window_is_a_square_around_the_box_inside_the_photograph(box, size, expected):
    assert CONTEXT == 2
    assert window_around(box, size) == expected


def test_the_map_believes_half_at_the_threshold_and_nearly_all_at_its_peak_whatever_its_scale():
    heat = np.array([[0.0, 5.0, 10.0]], np.float32)
    for scale, shift in ((1, 0), (1e-4, 0), (3, -100)):
        soft = belief(heat * scale + shift, 5 * scale + shift)
        assert soft == pytest.approx(np.array([[0.0025, 0.5, 0.9975]]), abs=1e-3)
    flat = belief(np.full((2, 2), 5.0), 5.0)
    assert flat == pytest.approx(0.5)


def test_components_that_do_not_touch_the_region_are_dropped():
    mask, region = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    mask[1:4, 1:4] = mask[6:8, 6:8] = True
    region[3, 3] = True
    found = touching(mask, region)
    assert found.sum() == 9 and found[1:4, 1:4].all()
    assert not touching(mask, np.zeros((9, 9), bool)).any()
