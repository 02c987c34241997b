"""Masks to polygons and back: the same mask, with holes, lines and single pixels."""

import cv2
import numpy as np
import pytest
from defectflow.annotations.coco import decode_polygons
from defectflow.label_export.polygons import polygons


def again(mask):
    found = polygons(mask)
    return decode_polygons(found, mask.shape[1], mask.shape[0], mask.shape[::-1])


def disc(radius, size=(120, 160), centre=(80, 60)):
    return cv2.circle(np.zeros(size, np.uint8), centre, radius, 1, -1)


def likeness(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 11, 50, 75])
def test_a_disc_comes_back(radius):
    mask = disc(radius).astype(bool)
    back = again(mask)
    assert len(polygons(mask)) == 1
    assert (back == mask).all() if radius <= 11 else likeness(back, mask) > 0.99


def test_holes_are_kept_in_one_polygon():
    mask = disc(55)
    for centre in ((60, 50), (100, 50), (80, 85), (80, 60)):
        cv2.circle(mask, centre, 8, 0, -1)
    mask = mask.astype(bool)
    assert len(polygons(mask)) == 1
    back = again(mask)
    assert likeness(back, mask) > 0.98 and not back[50, 60] and not back[85, 80] and not back[60, 80]


def test_regions_and_what_lies_in_a_hole_are_polygons_of_their_own():
    mask = disc(40)
    cv2.circle(mask, (80, 60), 30, 0, -1)
    cv2.circle(mask, (80, 60), 10, 1, -1)
    mask[5:9, 5:30] = 1
    mask = mask.astype(bool)
    assert len(polygons(mask)) == 3 and likeness(again(mask), mask) > 0.98


def test_lines_and_noise_come_back():
    mask = np.zeros((40, 50), bool)
    mask[3, 4:20] = mask[10:30, 7] = True
    assert (again(mask) == mask).all()
    noise = np.random.default_rng(0).random((40, 50)) < 0.4
    assert likeness(again(noise), noise) > 0.95
    assert polygons(np.zeros((5, 5), bool)) == []


def test_a_part_at_the_rim_comes_back():
    mask = np.zeros((40, 50), bool)
    mask[:20, :30] = True
    assert (again(mask) == mask).all() and (again(np.ones((40, 50), bool))).all()
