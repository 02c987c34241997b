import cv2
import numpy as np
from defectflow.parts.outlining import clean, on_edges, outline
from defectflow.parts.registration_frame import iou


def scene():
    rng = np.random.default_rng(0)
    truth = cv2.ellipse(np.zeros((256, 256), np.uint8), (120, 130), (60, 40), 20, 0, 360, 1, -1) > 0
    image = np.where(truth[..., None], (200, 180, 60), (50, 60, 90)) + rng.normal(0, 8, (256, 256, 3))
    return image.clip(0, 255).astype(np.uint8), truth


def test_grabcut_finds_the_outline_that_a_soft_map_blurs():
    image, truth = scene()
    rough = cv2.dilate(truth.astype(np.uint8), np.ones((13, 13))).astype(np.float32)
    soft = cv2.GaussianBlur(rough, (0, 0), 6)
    mask, same = outline(image, soft)
    assert iou(mask, truth) > 0.97 > iou(soft >= 0.5, truth)
    assert 0.5 < same < 1


def test_nothing_and_everything_stay_what_they_are():
    image, _ = scene()
    for value in (0.0, 1.0):
        mask, same = outline(image, np.full((256, 256), value, np.float32))
        assert mask.mean() == value and same == 0


def test_scraps_go_and_holes_stay():
    mask = np.zeros((200, 200), bool)
    mask[40:140, 40:140] = True
    mask[60:100, 60:100] = False
    mask[180:186, 180:186] = True
    mask[120:122, 120:122] = False
    left = clean(mask)
    assert not left[183, 183] and not left[80, 80] and left[121, 121]


def test_outlines_on_edges_tell_from_outlines_beside_them():
    image, truth = scene()
    assert on_edges(truth, image) > 3 > 1.5 > on_edges(np.roll(truth, 60, axis=1), image)
    assert on_edges(np.zeros_like(truth), image) == 0
