import cv2
import numpy as np
import pytest
from defectflow.segmentation.clicked_outline import Clickable, ClickNetworks
from defectflow.segmentation.promptable_network import Proposals


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


class Oracle:
    """A network that knows the part, rates a false proposal higher, and remembers what it was asked."""

    def __init__(self, truth):
        self.truth, self.looked, self.asked = truth, 0, []

    def look(self, image):
        self.looked += 1
        return image.shape[:2]

    def clicked(self, seen, inside, outside, soft=None, box=None):
        self.asked.append((seen, inside, outside, soft))
        whole = np.full(self.truth.shape, 8.0, np.float32)
        return Proposals(np.stack([whole, np.where(self.truth, 8.0, -8.0).astype(np.float32)]), np.array([0.9, 0.5]))


def test_what_the_network_proposes_decides_far_from_the_clicks():
    image, truth = scene()
    network = Oracle(truth)
    ready = Clickable(image, UNKNOWN, network)
    points = [(190, 160)], [(30, 150)]
    found = ready.mask(*points)
    assert iou(found, truth) > 0.97 > 0.9 > iou(Clickable(image, UNKNOWN).mask(*points), truth)
    # Encoded once; asked with shares of the photograph, and with the part as the walker has it.
    ready.mask(*points)
    seen, inside, outside, soft = network.asked[-1]
    assert network.looked == 1 and seen == (300, 400)
    assert inside == [(190.5 / 400, 160.5 / 300)] and outside == [(30.5 / 400, 150.5 / 300)]
    assert soft[int(soft.shape[0] * 160 / 300), int(soft.shape[1] * 190 / 400)] > 0.99 and soft.min() >= 0
    # A click against it is kept to.
    assert not ready.mask([(190, 160)], [(190, 200)])[200, 190]


def test_the_packaged_networks_find_the_part():
    image, truth = scene()
    networks = ClickNetworks.load()
    ready = Clickable.of(image, networks)
    found = ready.mask([(190, 160), (290, 100)], [(30, 150)])
    assert iou(found, truth) > 0.9
    assert (found == ready.mask([(190, 160), (290, 100)], [(30, 150)])).all()
