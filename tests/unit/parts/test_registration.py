"""Registration: a part that is shifted, turned and scaled under another exposure is found again."""

import cv2
import numpy as np
import pytest
from defectflow.parts import registration, registration_frame
from defectflow.parts.registration import Templates
from defectflow.parts.registration_frame import iou
from part_set import SIZE, scene


def templates(n: int = 3, **options) -> Templates:
    frame, label = (
        registration_frame.fit_size(SIZE, registration.FINE),
        registration_frame.fit_size(SIZE, registration.LABEL),
    )
    pairs = [scene(seed, **options) for seed in range(n)]
    fields = np.stack([registration_frame.gradient_field(registration_frame.log_luminance(i, frame)) for i, _ in pairs])
    return Templates(fields, np.stack([registration_frame.mask_in_frame(m, label) > 127 for _, m in pairs]))


def locate(t: Templates, image: np.ndarray, **options):
    match = t.register(registration_frame.log_luminance(image, t.frame), **options)
    return match, t.transfer(match, image.shape[:2])[0] >= 0.5


@pytest.mark.parametrize(
    ("angle", "scale", "shift", "gain"),
    [(0, 1, (0, 0), 1), (4, 1.03, (12, -9), 0.3), (-4, 0.97, (-14, 10), 1.5), (10, 0.92, (20, 8), 0.7)],
)
def test_moved_part_is_found(angle, scale, shift, gain):
    image, truth = scene(50, angle=angle, scale=scale, shift=shift, gain=gain)
    match, mask = locate(templates(), image)
    assert iou(mask, truth) > 0.96
    assert match.score > 0.5


@pytest.mark.parametrize("scale", [0.3, 0.5])
def test_small_part_is_found(scale):
    t = templates(scale=scale)
    for seed in range(3):
        image, truth = scene(40 + seed, angle=6 - 6 * seed, scale=1.05 * scale, shift=(30, -20))
        assert iou(locate(t, image)[1], truth) > 0.9


def test_part_that_leaves_the_picture_is_found():
    image, truth = scene(90, shift=(95, 0))
    assert truth[:, -1].any()
    _, mask = locate(templates(), image)
    assert iou(mask, truth) > 0.95


def test_a_label_of_less_than_a_pixel_is_no_template():
    t = templates(2)
    t.labels[1] = False
    match, _ = locate(t, scene(91)[0])
    assert match.templates == [0]


def test_absent_part_scores_low():
    t = templates()
    present = [locate(t, scene(s)[0])[0].score for s in (60, 61)]
    absent = [locate(t, scene(s, part=False)[0])[0].score for s in (60, 61, 62)]
    assert max(absent) < 0.5 * min(present)


@pytest.mark.parametrize("value", [0, 255])
def test_flat_picture_scores_zero(value):
    match, _ = locate(templates(1), np.full((*SIZE, 3), value, np.uint8))
    assert np.isfinite(match.score)
    assert abs(match.score) < 0.05
    assert all(np.isfinite(a).all() for a in match.affines)


def test_other_size_and_aspect():
    image, truth = scene(70, shift=(8, 5))
    wide = cv2.copyMakeBorder(cv2.resize(image, None, fx=2, fy=2), 0, 0, 60, 60, cv2.BORDER_REPLICATE)
    _, mask = locate(templates(), wide)
    truth = np.pad(cv2.resize(truth.astype(np.uint8), None, fx=2, fy=2) > 0, ((0, 0), (60, 60)))
    assert mask.shape == wide.shape[:2]
    assert iou(mask, truth) > 0.95


def test_left_out_templates_do_not_vote():
    match, _ = locate(templates(4), scene(1)[0], leave_out=[1, 3])
    assert set(match.templates) <= {0, 2}


def test_registration_is_deterministic():
    image = scene(80, angle=3)[0]
    first, second = (locate(templates(), image)[0] for _ in range(2))
    assert first.score == second.score
    np.testing.assert_array_equal(first.affines, second.affines)


def test_frame_affine_maps_corners():
    affine = registration_frame.frame_affine((200, 400), (100, 100))  # letterboxed: factor 4, 50 rows of picture
    np.testing.assert_allclose(affine @ [-0.5, 25 - 0.5, 1], [-0.5, -0.5])
    np.testing.assert_allclose(affine @ [99.5, 75 - 0.5, 1], [399.5, 199.5])


def test_mask_goes_to_the_frame_and_back():
    mask = scene(0)[1]
    soft = registration_frame.mask_in_frame(mask, (128, 128)).astype(np.float32) / 255
    assert iou(registration_frame.mask_from_frame(soft, SIZE) >= 0.5, mask) > 0.97


def test_a_template_that_fits_nowhere_is_a_match_below_zero(monkeypatch):
    monkeypatch.setattr(
        registration.Level, "refine", lambda self, index, picture, affine, steps: (affine, -0.1 - index)
    )
    match, _ = locate(templates(3), scene(50)[0])
    assert match.score == -0.1 and match.templates == [0]


def test_the_session_of_the_photograph_itself_has_no_vote():
    poses = [{"angle": 1.7 * k - 17, "scale": 0.9 + 0.01 * k, "shift": (3 * k - 30, 20 - 2 * k)} for k in range(20)]
    shown = [scene(k, **pose) for k, pose in enumerate(poses)]
    frame, label = (
        registration_frame.fit_size(SIZE, registration.FINE),
        registration_frame.fit_size(SIZE, registration.LABEL),
    )
    fields = np.stack([registration_frame.gradient_field(registration_frame.log_luminance(i, frame)) for i, _ in shown])
    t = Templates(fields, np.stack([registration_frame.mask_in_frame(m, label) > 127 for _, m in shown]))
    groups = np.arange(20) // 2
    for k in range(20):
        match, _ = locate(t, shown[k][0], groups=groups)
        assert groups[k] not in groups[match.templates], k
