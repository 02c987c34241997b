import cv2
import numpy as np
import pytest
from defectflow.decision.damaged_regions import FILTERED, IMAGE_ONLY, coco_result, find_damage, find_peak, find_regions
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

EVERYTHING = {"min_area": 0.0, "merge": 0.0}


def blank(height=100, width=120):
    return np.zeros((height, width), np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_without_options_they_are_scipys_connected_components(seed):
    heat = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(70, 90)).astype(np.float32), (0, 0), 2)
    level = float(np.quantile(heat, 0.9))
    label, count = ndimage.label(heat >= level, structure=np.ones((3, 3)))
    expected = set()
    for number, (rows, columns) in enumerate(ndimage.find_objects(label), 1):
        area = int((label == number).sum())
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        expected.add((*box, area, float(heat[label == number].max())))
    regions = find_regions(heat, level, **EVERYTHING)
    assert {(*r.box, r.area, r.score) for r in regions} == expected and len(regions) == count > 1
    union = np.zeros(heat.shape, bool)
    for r in regions:
        union[r.y : r.y + r.height, r.x : r.x + r.width] |= r.pixels
    assert (union == (heat >= level)).all()
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)


def test_the_threshold_itself_counts_and_nothing_below_it():
    heat = blank()
    heat[10:20, 30:50], heat[60:70, 30:50] = 2.0, 1.999
    (region,) = find_regions(heat, 2.0)
    assert (*region.box, region.area, region.score) == (30, 10, 20, 10, 200, 2.0)
    assert find_regions(heat, 2.001) == []


def test_pixels_off_the_mask_count_neither_way():
    heat, mask = blank(), np.zeros((100, 120), bool)
    heat[10:20, 30:50], heat[10, 30] = 2.0, 9.0
    mask[:, 40:] = True
    (region,) = find_regions(heat, 1.0, mask)
    assert (*region.box, region.score) == (40, 10, 10, 10, 2.0)
    assert find_regions(heat, 1.0, ~mask & (heat == 0)) == []


@pytest.mark.parametrize("gap, expected", [(4, 1), (12, 1), (13, 2), (30, 2)])
def test_near_regions_become_one_with_the_pixels_of_both(gap, expected):
    heat = blank()
    heat[40:50, 10:20], heat[40:50, 20 + gap : 30 + gap] = 1.0, 2.0
    regions = find_regions(heat, 0.5, merge=0.1)  # 12 of 120 pixels
    assert len(regions) == expected
    assert sum(r.area for r in regions) == 200 and regions[0].score == 2.0
    if expected == 1:
        assert regions[0].box == (10, 40, 20 + gap, 10) and not regions[0].pixels[:, 10 : 10 + gap].any()


def test_small_and_large_ones_are_left_out_after_merging():
    heat = blank()
    heat[5, 5] = 1.0  # 1 of 12,000 pixels
    heat[40:43, 40:43], heat[40:43, 44:47] = 1.0, 1.0  # 9 + 9
    heat[60:95, 60:110] = 1.0  # 1750
    assert [r.area for r in find_regions(heat, 0.5, min_area=15 / 12000, merge=0.02)] == [18, 1750]
    assert [r.area for r in find_regions(heat, 0.5, min_area=15 / 12000, merge=0)] == [1750]
    assert [r.area for r in find_regions(heat, 0.5, min_area=0, max_area=0.1, merge=0)] == [1, 9, 9]


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 117])
def test_the_shape_is_judged_at_any_angle(angle):
    heat = blank(200, 200)
    corners = cv2.boxPoints(((100, 100), (120, 12), angle))
    cv2.fillPoly(heat, [np.round(corners).astype(np.int32)], 1.0)
    assert find_regions(heat, 0.5, max_aspect=7) == []
    assert len(find_regions(heat, 0.5, max_aspect=13)) == 1


def test_a_picture_that_is_anomalous_everywhere_is_one_region():
    (region,) = find_regions(np.ones((30, 40), np.float32), 0.5, merge=0.2)
    assert (*region.box, region.area) == (0, 0, 40, 30, 1200)


@pytest.mark.parametrize("factor", [2, 5])
def test_options_fit_any_resolution(factor):
    rng = np.random.default_rng(0)
    heat = cv2.GaussianBlur(rng.normal(size=(80, 100)).astype(np.float32), (0, 0), 3)
    level, options = float(np.quantile(heat, 0.93)), {"min_area": 0.004, "merge": 0.06}
    large = np.kron(heat, np.ones((factor, factor), np.float32))
    small, big = (find_regions(m, level, **options) for m in (heat, large))
    assert [r.area * factor**2 for r in small] == [r.area for r in big]
    assert [tuple(v * factor for v in r.box) for r in small] == [r.box for r in big]


def test_coco_results_hold_the_pixels_of_the_region():
    from pycocotools import mask as coco_mask

    heat = blank()
    cv2.circle(heat, (60, 40), 9, 3.0, -1)
    (region,) = find_regions(heat, 1.0)
    result = coco_result(region, 7, heat.shape)
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 1, 3.0)
    assert (coco_mask.decode(result["segmentation"]) == (heat >= 1.0)).all()
    assert coco_mask.toBbox(result["segmentation"]).tolist() == result["bbox"] == list(region.box)


def hill(peak=2.0, at=(30, 50), size=(60, 80)):
    rows, columns = np.indices(size)
    return (peak * np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 200)).astype(np.float32)


def test_a_bad_photograph_without_a_region_has_its_peak_marked():
    heat = hill()
    (peak,) = find_damage(heat, 3.0, None, True)
    assert peak.mark == IMAGE_ONLY and peak.score == heat.max()
    assert peak.x <= 50 < peak.x + peak.width and peak.y <= 30 < peak.y + peak.height
    assert (
        peak.area == peak.pixels.sum() > 20
        and (heat[peak.y :, peak.x :][: peak.height, : peak.width][peak.pixels] > 1.5).all()
    )
    (unknown,) = find_damage(heat, None, None, True)  # no pixel threshold at all
    assert unknown == peak


def test_a_region_that_was_left_out_by_its_size_is_told_apart():
    (peak,) = find_damage(hill(), 1.0, None, True, max_area=0.001)
    assert peak.mark == FILTERED
    (region,) = find_damage(hill(), 1.0, None, True)
    assert region.mark == "" and region == find_regions(hill(), 1.0)[0]


def test_a_good_photograph_has_no_peak():
    assert find_damage(hill(), 3.0, None, False) == [] == find_damage(hill(), None, None, False)


def test_the_peak_is_that_of_the_part():
    heat = hill() + hill(9.0, at=(5, 5))
    mask = np.zeros(heat.shape, bool)
    mask[20:50, 30:70] = True
    (peak,) = find_damage(heat, 99.0, mask, True)
    assert peak.score == heat[mask].max() and mask[peak.y, peak.x]
    (anywhere,) = find_damage(heat, 99.0, np.zeros(heat.shape, bool), True)  # no part was found
    assert anywhere.score == heat.max()


def test_the_peak_of_a_flat_map_is_all_of_it():
    (peak,) = find_damage(np.ones((6, 8), np.float32), 2.0, None, True)
    assert peak.box == (0, 0, 8, 6)


def test_a_peak_is_marked_in_the_coco_results_too():
    peak, region = find_damage(hill(), 3.0, None, True)[0], find_damage(hill(), 1.0, None, True)[0]
    assert coco_result(peak, 1, (60, 80))["mark"] == IMAGE_ONLY and "mark" not in coco_result(region, 1, (60, 80))


@st.composite
def maps(draw):
    """A map with a few hills of few values, so that many pixels are equal, and a mask or None."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    heat = np.zeros((height, width), np.float32)
    for _ in range(draw(st.integers(0, 6))):
        centre = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        cv2.ellipse(
            heat, centre, (draw(st.integers(0, 9)), draw(st.integers(0, 9))), 0, 0, 360, draw(st.integers(1, 4)), -1
        )
    mask = np.zeros(heat.shape, bool)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    mask[y : y + draw(st.integers(1, 60)), x : x + draw(st.integers(1, 60))] = draw(st.booleans())
    return heat, mask if draw(st.booleans()) else None


def told(regions):
    """All of what regions say, their pixels too."""
    return [(*r.box, r.area, r.score, r.mark, r.pixels.tolist()) for r in regions]


@given(maps(), st.integers(1, 4), st.floats(0, 0.4), st.sampled_from([0.0, 0.01]), st.sampled_from([1.0, 0.2]))
def test_regions_are_those_of_the_whole_frame(drawn, level, merge, min_area, max_area):
    heat, mask = drawn
    found = (heat >= level) & (True if mask is None else mask)
    joined = found.astype(np.uint8)
    if merge * max(found.shape) / 2 >= 1 and found.any() and not found.all():
        away = cv2.distanceTransform(1 - joined, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        joined = (away <= merge * max(found.shape) / 2).astype(np.uint8)
    count, label = cv2.connectedComponents(joined, connectivity=8)
    expected = []
    for pixels in (found & (label == number) for number in range(1, count)):
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        area, score = int(pixels.sum()), float(heat[pixels].max())
        if min_area <= area / heat.size <= max_area:
            place = int(columns[0]), int(rows[0]), *pixels[box].shape[::-1]
            expected.append((*place, area, score, "", pixels[box].tolist()))
    regions = find_regions(heat, level, mask, merge=merge, min_area=min_area, max_area=max_area)
    assert sorted(told(regions)) == sorted(expected)
    assert [(-r.score, r.y, r.x) for r in regions] == sorted((-r.score, r.y, r.x) for r in regions)


@given(maps())
def test_a_peak_is_that_of_the_whole_frame(drawn):
    heat, mask = drawn
    inside = np.ones(heat.shape, bool) if mask is None or not mask.any() else mask
    low, high = float(heat[inside].min()), float(heat[inside].max())
    near = inside & (heat >= low + 0.9 * (high - low))
    _, label = cv2.connectedComponents(near.astype(np.uint8), connectivity=8)
    pixels = label == label[np.unravel_index(np.where(inside, heat, -np.inf).argmax(), heat.shape)]
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    (x, y), inner = (int(columns[0]), int(rows[0])), pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    expected = (x, y, *inner.shape[::-1], int(pixels.sum()), high, IMAGE_ONLY, inner.tolist())
    assert told([find_peak(heat, None, mask)]) == [expected]
