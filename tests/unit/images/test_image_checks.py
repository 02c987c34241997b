"""What is measured of an image file."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from defectflow.images.image_checks import SHARP_AT, inspect, inspect_all, sharpness_of


def test_a_blurred_picture_is_less_sharp_and_a_flat_one_not_at_all():
    grey = np.random.default_rng(0).integers(0, 255, (80, 120)).astype(np.uint8)
    found = [sharpness_of(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert found == sorted(found, reverse=True) and found[0] > 5 * found[-1] > 0
    assert sharpness_of(np.full((40, 60), 200, np.uint8)) == 0


def test_sharpness_is_that_of_the_picture_at_a_common_size():
    small = np.random.default_rng(0).integers(0, 255, (SHARP_AT // 2, SHARP_AT)).astype(np.uint8)
    large = cv2.resize(small, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    assert abs(sharpness_of(large) - sharpness_of(small)) < 0.01 * sharpness_of(small)


def test_a_file_is_measured_and_a_broken_one_has_a_problem_alone(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 255, np.uint8))
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    found = inspect(tmp_path / "a.png", tmp_path)
    assert (found.luminance, found.clipped, found.sharpness, found.size) == (255, 1, 0, (60, 40))
    assert found.file_bytes == (tmp_path / "a.png").stat().st_size and not found.problem
    with ThreadPoolExecutor(2) as pool:
        both = inspect_all({name: str(tmp_path / name) for name in ("a.png", "torn.png")}, [str(tmp_path)], pool)
    assert both["a.png"] == found and both["torn.png"].problem and both["torn.png"].file_bytes == 0
