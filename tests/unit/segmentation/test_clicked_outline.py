import cv2
import numpy as np
import pytest
from defectflow.segmentation.clicked_outline import Clickable, figure_of, load_network


def scene(seed=0):
    """A grey part with an ear before stripes, and its mask; 300 x 400 pixels."""
    rng = np.random.default_rng(seed)
    image = np.full((300, 400, 3), (70, 90, 60), np.uint8)
    for k in range(0, 400, 40):
        image[:, k : k + 18] = rng.integers(40, 130, 3)
    mask = np.zeros((300, 400), np.uint8)
    cv2.ellipse(mask, (190, 160), (90, 60), 0, 0, 360, 1, -1)
    cv2.rectangle(mask, (260, 60), (320, 140), 1, -1)
    image[mask > 0] = (185, 185, 195)
    image = (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
    return image, mask > 0


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


UNKNOWN = np.full((8, 8), 0.5)


def test_a_few_clicks_find_a_part_that_nothing_is_known_of():
    image, truth = scene()
    ready = Clickable(image, np.full((8, 8), 0.4))
    found = ready.mask([(190, 160), (290, 100)], [(30, 150), (380, 250)])
    assert found.shape == truth.shape and found.dtype == bool and iou(found, truth) > 0.9


def test_each_click_mends_the_outline_near_it():
    image, truth = scene()
    wrong = np.zeros((300, 400), np.float32)
    wrong[100:220, 100:400] = 1  # the ear is missed, and ground on the right taken
    ready, inside, outside, quality = Clickable(image, wrong), [], [], []
    for _ in range(5):
        found = ready.mask(inside, outside)
        quality.append(iou(found, truth))
        errors = found != truth
        depth = cv2.distanceTransform(np.pad(errors.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        (inside if truth[y, x] else outside).append((int(x), int(y)))
    assert quality[-1] > 0.9 > quality[0] + 0.1 and quality[2] > quality[0]


def test_a_click_is_kept_to():
    image, _ = scene()
    ready = Clickable(image, UNKNOWN)
    found = ready.mask([(190, 160), (290, 100)], [(190, 200)])
    assert found[160, 190] and found[100, 290] and not found[200, 190]
    assert (ready.mask([(190, 160)], [(30, 150)]) == ready.mask([(190, 160)], [(30, 150)])).all()


@pytest.mark.parametrize("shape", [(40, 900), (900, 40), (16, 16)])
def test_any_shape_of_photograph(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    image[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 200
    found = Clickable(image, UNKNOWN).mask([(shape[1] * 3 // 8, shape[0] * 3 // 8)], [(shape[1] - 2, shape[0] - 2)])
    assert found.shape == shape and 0 < found.mean() < 0.7


def test_the_figure_of_a_photograph_is_where_to_begin():
    image, _ = scene()
    figure = figure_of(load_network(), image)
    assert figure.shape == (96, 96) and 0 <= figure.min() <= figure.max() <= 1
    assert Clickable(image, figure).mask([(190, 160)], []).any()
