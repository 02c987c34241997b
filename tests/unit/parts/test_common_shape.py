import cv2
import numpy as np
import pytest
from defectflow.parts.common_shape import CommonShape, missing_pieces
from defectflow.parts.registration_frame import iou

SIZE = (300, 400)
WHOLE = [(-60, -30), (60, -30), (60, 10), (20, 10), (20, 45), (-60, 45)]  # an L: no two of its rotations are alike


def turned(angle: float, scale: float, centre: tuple[float, float], corners=WHOLE) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    points = np.array(corners) @ np.array([[c, s], [-s, c]]) * scale + centre
    mask = cv2.fillPoly(np.zeros(SIZE, np.uint8), [np.rint(points).astype(np.int32)], 1)
    return mask.view(bool)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


@pytest.fixture(scope="module")
def discs():
    rng = np.random.default_rng(0)
    return [disc(*rng.uniform(130, 170, 2), rng.uniform(70, 80)) for _ in range(8)]


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(1)
    return [turned(rng.uniform(0, 6.3), rng.uniform(0.9, 1.1), rng.uniform(140, 160, 2)) for _ in range(8)]


def test_a_bite_out_of_a_disc_belongs_to_it(discs):
    bitten = discs[0] & ~disc(230, 150, 40)
    shape = CommonShape.fit([bitten, *discs[1:]])
    assert shape.alike and shape.agreement > 0.97
    done = shape.complete(bitten)
    assert iou(bitten, discs[0]) < 0.93 < 0.97 < iou(done.mask, discs[0])
    assert done.added == pytest.approx(1 - bitten.sum() / discs[0].sum(), abs=0.02) and done.fit > shape.usual
    assert not (bitten & ~done.mask).any()


def test_a_hole_and_a_slit_in_one_are_filled_and_nothing_is_added_to_a_whole_one(discs):
    shape, whole = CommonShape.fit(discs), discs[2]
    holed = whole & ~disc(150, 150, 25)
    holed[148:152, :150] = False
    assert iou(shape.complete(holed).mask, whole) > 0.99
    np.testing.assert_array_equal(shape.complete(whole).mask, whole)


def test_a_hole_that_most_have_is_background(discs):
    middles = [np.argwhere(whole).mean(axis=0)[::-1] for whole in discs]
    holes = [disc(*middle, 0.4 * np.sqrt(whole.sum() / np.pi)) for whole, middle in zip(discs, middles, strict=True)]
    rings = [whole & ~hole for whole, hole in zip(discs, holes, strict=True)]
    shape = CommonShape.fit(rings)
    np.testing.assert_array_equal(shape.complete(rings[1]).mask, rings[1])
    holed = rings[0] & ~disc(middles[0][0] + 50, middles[0][1], 10)
    assert iou(shape.complete(holed).mask, rings[0]) > 0.98


def test_a_piece_that_is_missing_from_a_turned_part_is_found(parts):
    truth = turned(2.2, 1.0, (180, 150))
    broken = turned(2.2, 1.0, (180, 150), [(-60, -30), (20, -30), (20, 45), (-60, 45)])  # one arm is off: no notch
    shape = CommonShape.fit([broken, *parts])
    done = shape.complete(broken)
    assert iou(broken, truth) < 0.83 and iou(done.mask, truth) > 0.95 and done.added > 0.1


def test_it_works_at_the_size_of_the_photograph(parts):
    shape = CommonShape.fit(parts)
    truth = cv2.resize(turned(0.5, 1, (160, 150)).view(np.uint8), None, fx=5, fy=5, interpolation=cv2.INTER_NEAREST)
    broken = truth.copy()
    broken[600:760, 400:700] = 0
    done = shape.complete(broken.view(bool))
    assert iou(broken.view(bool), truth.view(bool)) < 0.85 < 0.95 < iou(done.mask, truth.view(bool))


def test_another_thing_is_left_as_it_is_and_fits_badly(parts):
    shape = CommonShape.fit(parts)
    rod = np.zeros(SIZE, bool)
    rod[140:155, 20:380] = True
    done = shape.complete(rod)
    np.testing.assert_array_equal(done.mask, rod)
    assert done.fit < shape.usual and done.added == 0


def test_things_of_different_shapes_have_no_shape_in_common():
    rng = np.random.default_rng(2)
    blobs = []
    for _ in range(8):
        radii = 40 + 35 * rng.uniform(-1, 1, 7)
        angles = np.arange(7) * 2 * np.pi / 7
        points = np.stack([200 + radii * np.cos(angles), 150 + radii * np.sin(angles)], 1)
        blobs.append(cv2.fillPoly(np.zeros(SIZE, np.uint8), [points.astype(np.int32)], 1).view(bool))
    assert not CommonShape.fit(blobs).alike


def test_few_or_empty_masks_show_no_shape(discs):
    assert CommonShape.fit(discs[:3]) is None
    assert CommonShape.fit([*discs[:3], np.zeros(SIZE, bool), np.ones(SIZE, bool)]) is None
    assert CommonShape.fit(discs).complete(np.zeros(SIZE, bool)).fit == 0


def test_a_thin_rim_is_no_missing_piece():
    assert not missing_pieces(disc(150, 150, 78), disc(150, 150, 80), 2).any()
    assert missing_pieces(disc(150, 150, 70), disc(150, 150, 80), 2).any()
