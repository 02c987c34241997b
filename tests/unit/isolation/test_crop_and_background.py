import cv2
import numpy as np
import pytest
from defectflow.isolation.crop_and_background import (
    BACKGROUNDS,
    BRIGHTNESS_TARGET,
    NORMALISATIONS,
    crop_window,
    cut,
    fill_background,
    geometry_of,
    isolate_part,
    normalise_light,
)
from defectflow.isolation.settings import IsolationSettings
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("how", ["brightness", "gray_world"])
@pytest.mark.parametrize("part", [True, False])
def test_light_is_the_formula_in_float64(how, part):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    inside = np.zeros((60, 70), bool)
    inside[10:40, 20:50] = part
    means = (image[inside] if part else image.reshape(-1, 3)).mean(axis=0, dtype=np.float64)
    gain = BRIGHTNESS_TARGET / means.mean() if how == "brightness" else means.mean() / means
    expected = np.clip(image * gain + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(normalise_light(image, inside, how), expected)


def plain(image, mask, background, normalise, dilate, size, centre):
    """`isolate_part` on the whole frame, pixel by pixel."""
    grown = mask
    if dilate:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilate + 1, 2 * dilate + 1))
        grown = cv2.dilate(mask.astype(np.uint8), disc) > 0
    for how in normalise:
        image = normalise_light(image, mask, how)
    if background != "keep" and grown.any():
        fill = np.zeros(3) if background == "zero" else np.round(image[grown].mean(axis=0))
        image = np.where(grown[..., None], image, fill.astype(np.uint8))
    window = (0, 0, mask.shape[1], mask.shape[0])
    if size:
        longer = max(mask.shape)
        sides = tuple(int(np.ceil(share * longer - 1e-6)) for share in size)
        window = crop_window(grown, sides, (centre[0] * longer, centre[1] * longer))
    beyond = fill.astype(np.uint8) if background == "mean" and grown.any() else np.zeros(3, np.uint8)
    room = 2 * max(mask.shape) + 2 * max(window[2] - window[0], window[3] - window[1])
    wide = [np.pad(a, [(room, room)] * 2 + [(0, 0)] * (a.ndim - 2)) for a in (image, grown)]
    wide[0][~np.pad(np.ones(mask.shape, bool), room)] = beyond
    return *(a[window[1] + room : window[3] + room, window[0] + room : window[2] + room] for a in wide), window


@st.composite
def photographs(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image, mask = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        mask[y : y + draw(st.integers(1, 20)), x : x + draw(st.integers(1, 20))] = True
    return image, mask


SHARES = st.floats(0.01, 1.6)


@given(
    photographs(),
    st.sampled_from(BACKGROUNDS),
    st.lists(st.sampled_from(NORMALISATIONS), min_size=1, max_size=3),
    st.integers(0, 5),
    st.none() | st.tuples(SHARES, SHARES),
    st.tuples(SHARES, SHARES),
)
def test_only_the_window_is_computed_and_nothing_changes(photograph, background, normalise, dilate, size, centre):
    options = {"background": background, "normalise": normalise, "dilate": dilate}
    before = [a.copy() for a in photograph]
    isolated = isolate_part(*photograph, IsolationSettings(**options), size, centre)
    for found, expected in zip(isolated[:3], plain(*photograph, **options, size=size, centre=centre), strict=True):
        np.testing.assert_array_equal(found, expected)
    for given_, kept in zip(photograph, before, strict=True):
        np.testing.assert_array_equal(given_, kept)


@given(photographs(), st.sampled_from(BACKGROUNDS))
def test_pixels_outside_the_part_are_chosen_as_by_where(photograph, background):
    image, mask = photograph
    fill = image[mask].mean(axis=0) if background == "mean" and mask.any() else np.zeros(3)
    expected = np.where(mask[..., None], image, np.round(fill).astype(np.uint8))
    if background == "keep" or not mask.any():
        expected = image
    np.testing.assert_array_equal(fill_background(image, mask, background), expected)


def test_a_cut_within_the_frame_is_a_view():
    image = np.arange(12).reshape(3, 4)
    assert np.shares_memory(cut(image, (1, 0, 3, 2)), image) and cut(image, (1, 0, 3, 2)).tolist() == [[1, 2], [5, 6]]
    assert cut(image, (5, 0, 7, 2)).tolist() == [[0, 0], [0, 0]]


def test_the_window_of_few_outlines_holds_the_largest_part_that_they_find():
    size, centre = geometry_of({"size": [0.5, 0.25], "centre": [0.4, 0.3]}, 0.1)
    assert size == pytest.approx((0.6, 0.3)) and centre == (0.4, 0.3)


@pytest.mark.parametrize("upright", [False, True])
def test_a_tight_square_beyond_the_frame_has_the_mean_colour_there(upright):
    image, mask = np.full((60, 80, 3), 20, np.uint8), np.zeros((60, 80), bool)
    mask[2:58, 30:40] = True
    image[mask] = (200, 150, 100)
    settings = IsolationSettings(background="mean", normalise=["none"], tight=64, margin=0.2, upright=upright)
    assert (isolate_part(image, mask, settings).picture == (200, 150, 100)).all()
