"""Does an outline lie on its photograph: quiet on right and on crooked ones, clear on wrong ones."""

import cv2
import numpy as np
import pytest
from defectflow.annotations.outline_check import SUSPICIOUS, WRONG, changes, fit, lead_of
from defectflow.annotations.outline_edges import edge_maps, moved, outline_of, reduced_size
from outlined_set import SIZE, blob, mask_of, photograph


@pytest.fixture(scope="module")
def scenes():
    """Twelve (edge maps, outline points) of different parts."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = blob(rng)
        found.append((edge_maps(photograph(rng, points)), points))
    return found


def judged(maps, points):
    return fit(maps, outline_of(mask_of(points)))


def test_right_and_crooked_outlines_pass(scenes):
    rng = np.random.default_rng(0)
    for maps, points in scenes:
        corners = cv2.approxPolyDP(points.astype(np.float32)[:, None], 0.01 * max(SIZE), True)[:, 0]
        middle = points.mean(0)
        grown = middle + (points - middle) * (1 + 2 / np.hypot(*(points - middle).T))[:, None]
        for drawn in (points, points[::4] + rng.normal(0, 0.006 * max(SIZE), points[::4].shape), corners, grown):
            assert not judged(maps, drawn).within(SUSPICIOUS)
        assert lead_of(maps, outline_of(mask_of(points)))[1] > 3.5


WRONGLY = {
    "turned by 180 degrees": lambda p: SIZE - p,
    "mirrored left to right": lambda p: np.stack([SIZE[0] - p[:, 0], p[:, 1]], 1),
    "mirrored top to bottom": lambda p: np.stack([p[:, 0], SIZE[1] - p[:, 1]], 1),
    "scaled by 2.00": lambda p: p / 2,
    "scaled by 1.33": lambda p: p * 0.75,
    "shifted": lambda p: p - (0.12 * SIZE[0], 0.08 * SIZE[0]),
}


@pytest.mark.parametrize("change", WRONGLY)
def test_wrong_outlines_are_found_and_the_change_is_named(scenes, change):
    results = [judged(maps, WRONGLY[change](points)) for maps, points in scenes]
    assert sum(result.within(WRONG) for result in results) >= 10
    assert sum(result.change == change for result in results) >= 9


def test_what_lies_better_is_where_the_part_is(scenes):
    maps, points = scenes[0]
    wrong = outline_of(mask_of(WRONGLY["mirrored left to right"](points)))
    better = moved(wrong, fit(maps, wrong).matrix)
    right = outline_of(mask_of(points))
    distance = np.hypot(*(better.points[:, None] - right.points[None]).transpose(2, 0, 1)).min(1)
    assert np.median(distance) < 3


def test_a_quarter_turn_is_that_of_the_other_frame():
    named = dict(changes((200, 100)))
    corner = outline_of(np.pad(np.ones((40, 60), bool), ((10, 50), (15, 125))))
    turned = moved(corner, named["turned by 90 degrees"]).points
    x, y = corner.points.T
    assert np.allclose(turned, np.stack([199 - y, x], 1))


def test_a_picture_without_edges_says_nothing():
    rng = np.random.default_rng(0)
    outline = outline_of(mask_of(blob(rng)))
    for noise in (0, 2, 80):
        picture = np.clip(30 + rng.normal(0, noise, (*SIZE[::-1], 3)), 0, 255).astype(np.uint8)
        assert not fit(edge_maps(picture), outline).within(SUSPICIOUS)


def test_short_outlines_and_those_along_the_rim_are_left_alone():
    maps = edge_maps(np.zeros((*SIZE[::-1], 3), np.uint8))
    assert fit(maps, outline_of(np.ones(SIZE[::-1], bool))) is None
    assert fit(maps, outline_of(mask_of(np.array([[50, 50], [54, 50], [54, 54]])))) is None


def test_the_reduced_picture_is_small():
    assert reduced_size((4000, 3000)) == (256, 192) and reduced_size((100, 50)) == (100, 50)
    assert edge_maps(np.zeros((300, 400, 3), np.uint8)).shape == (8, 192, 256)
