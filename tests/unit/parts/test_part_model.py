"""Cleaning of masks, against the same on the whole frame."""

import cv2
import numpy as np
from defectflow.parts.part_model import clean_mask
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
