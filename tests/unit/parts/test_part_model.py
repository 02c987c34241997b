"""Masks on their box, against the same on the whole frame."""

import cv2
import numpy as np
from defectflow.parts.part_model import clean_mask
from defectflow.parts.registration_frame import frame_affine, invert, mask_from_frame, warp
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def masks(draw):
    """Discs and rings that may touch each other and the edges of the frame."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(0, 6))):
        centre = draw(st.integers(-5, width + 5)), draw(st.integers(-5, height + 5))
        cv2.circle(
            mask, centre, draw(st.integers(0, 15)), draw(st.sampled_from([0, 1, 1])), draw(st.integers(-1, 3)) or 1
        )
    return mask.astype(bool)


@given(masks(), st.integers(1, 3), st.booleans())
def test_a_mask_is_cleaned_as_on_the_whole_frame(mask, components, fill_holes):
    expected, before = mask, mask.copy()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count - 1 > components:
        order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:components]
        expected = np.isin(labels, order)
    if fill_holes:
        contours, _ = cv2.findContours(expected.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        expected = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED) > 0
    np.testing.assert_array_equal(clean_mask(mask, components, fill_holes), expected)
    np.testing.assert_array_equal(mask, before)


@given(
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([None, 1, 2, 8]),
    st.lists(st.integers(0, 63), min_size=4, max_size=4),
)
def test_a_mask_of_the_frame_is_enlarged_where_it_is_and_nothing_changes(frame, size, times, box):
    if times:
        size = (frame[0] * times, frame[1] * times)
    soft = np.zeros(frame, np.float32)
    (top, bottom), (left, right) = sorted(box[:2]), sorted(box[2:])
    part = soft[top:bottom, left:right]
    part[:] = np.random.default_rng(sum(box)).integers(0, 14, part.shape) / np.float32(13)
    expected = warp(soft, invert(frame_affine(size, frame)), size, border=0)
    np.testing.assert_array_equal(mask_from_frame(soft, size), expected)
