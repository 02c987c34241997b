import bundle_set
import cv2
import numpy as np
import pytest
from defectflow.inspection.measures import measure, shift, small


def plate(dx=0, dy=0):
    photo = np.full((200, 300, 3), 60, np.uint8)
    cv2.rectangle(photo, (80 + dx, 60 + dy), (180 + dx, 140 + dy), (180, 160, 150), -1)
    photo[100 + dy : 104 + dy, 100 + dx : 160 + dx] = 20
    return photo


def mask(dx=0, dy=0):
    part = np.zeros((200, 300), bool)
    part[60 + dy : 141 + dy, 80 + dx : 181 + dx] = True
    return part


def test_light_changes_exposure_alone():
    bright, dark = (measure((plate() * share).astype(np.uint8), mask()) for share in (1.0, 0.8))
    assert dark.exposure / bright.exposure == pytest.approx(0.8, abs=0.01)
    assert dark.sharpness == pytest.approx(bright.sharpness, rel=0.05)
    assert (dark.area, dark.x, dark.y) == (bright.area, bright.x, bright.y)


def test_blur_changes_sharpness_alone():
    sharp, blurred = (measure(photo, mask()) for photo in (plate(), cv2.GaussianBlur(plate(), (0, 0), 1)))
    assert blurred.sharpness < 0.6 * sharp.sharpness
    assert blurred.exposure == pytest.approx(sharp.exposure, rel=0.02)


def test_a_rougher_surface_changes_grain_and_edges_and_light_do_not():
    plain, noise = plate(), np.random.default_rng(0).normal(0, 4, plate().shape)
    fine, rough, edged = (measure(photo, mask()) for photo in (plain, (plain + noise).astype(np.uint8), plate()))
    assert rough.grain > fine.grain + 0.005 and fine.grain < 0.002
    assert edged.grain == fine.grain and rough.exposure == pytest.approx(fine.exposure, rel=0.02)


def test_the_place_of_the_part_is_that_of_its_mask():
    first, second = measure(plate(), mask()), measure(plate(15, -10), mask(15, -10))
    assert (second.x - first.x, second.y - first.y) == pytest.approx((0.05, -0.05), abs=1e-6)
    assert first.area == pytest.approx(81 * 101 / 60000)


def test_without_a_mask_the_shift_against_good_photographs_is_the_place():
    assert list(shift(small(plate()), small(plate(15, -10))).values()) == pytest.approx([0.55, 0.45], abs=0.01)
    found = measure(plate(15, 0), None, small(plate()))
    assert found.x == pytest.approx(0.55, abs=0.01) and np.isnan(found.area)


def test_large_photographs_are_measured_as_small_ones():
    photo = bundle_set.photograph(3, size=(1536, 2048))
    large, half = measure(photo), measure(cv2.resize(photo, (1024, 768), interpolation=cv2.INTER_AREA))
    assert large.exposure == pytest.approx(half.exposure, rel=0.01)
    assert large.sharpness == pytest.approx(half.sharpness, rel=0.05)


def test_where_the_part_is_absent_nothing_is_measured():
    assert np.isnan(measure(plate(), np.zeros((200, 300), bool))).all()
