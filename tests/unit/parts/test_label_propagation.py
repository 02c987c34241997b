"""Label propagation: one outline is carried over to other photographs, over those between them, and never by chance."""

import cv2
import numpy as np
import pytest
from defectflow.parts import label_propagation as stage
from defectflow.parts import registration, registration_frame
from defectflow.parts.part_model import clean_mask
from defectflow.parts.registration import Match
from defectflow.parts.registration_frame import iou
from part_set import SIZE, scene

FRAME, LABEL = (registration_frame.fit_size(SIZE, side) for side in (registration.FINE, registration.LABEL))


def picture(image):
    return registration_frame.log_luminance(image, FRAME)


def spread(seed, others):
    """``seed``: photograph and mask; ``others``: photographs."""
    fields = registration_frame.gradient_field(picture(seed[0]))[None]
    labels = (registration_frame.mask_in_frame(seed[1], LABEL) >= 128)[None]
    return stage.propagate(fields, labels, [picture(image) for image in others], clean_mask)


def test_one_outline_finds_the_part_in_other_photographs_and_tells_where_there_is_none():
    shown = [scene(k, angle=2 * k - 5, shift=(3 * k - 8, 6 - 2 * k)) for k in range(1, 6)]
    result = spread(scene(0), [image for image, _ in shown] + [scene(9, part=False)[0]])
    assert sorted(result.labels) == [0, 1, 2, 3, 4] and result.missing == [5]
    for i, (_, truth) in enumerate(shown):
        assert iou(result.labels[i], registration_frame.mask_in_frame(truth, LABEL) >= 128) > 0.93
    assert min(result.agreement.values()) > 0.93
    assert result.chance < 0.4  # a large outline fits nothing by chance


def test_a_pose_out_of_reach_is_reached_over_those_between():
    angles = (8, 16, 24, 32)  # the search looks up to 12 degrees away
    shown = [scene(k, angle=angle) for k, angle in enumerate(angles, 1)]
    alone = spread(scene(0), [shown[-1][0]])
    result = spread(scene(0), [image for image, _ in shown])
    assert alone.missing == [0]
    assert 3 in result.labels
    assert iou(result.labels[3], registration_frame.mask_in_frame(shown[3][1], LABEL) >= 128) > 0.9


def test_a_small_outline_does_not_match_other_pictures_by_chance():
    small = cv2.circle(np.zeros(SIZE, np.uint8), (130, 110), 6, 1, -1) > 0
    image = scene(0)[0]
    result = spread((image, small), [scene(k, part=False)[0] for k in range(20, 26)])
    assert result.labels == {} and result.chance > 0.35


@pytest.mark.parametrize(
    ("score", "whole", "chance", "found"),
    [(0.3, 0.36, 0.9, True), (0.5, 0.1, 0.2, True), (0.5, 0.1, 0.3, False), (0.39, 0.1, 0.05, False)],
)
def test_what_counts_as_found(score, whole, chance, found):
    assert stage.is_found(Match(score, [0], [np.eye(2, 3)], whole), chance) is found


def test_a_flat_photograph_is_not_found():
    result = spread(scene(0), [np.full((*SIZE, 3), 90, np.uint8)])
    assert result.labels == {} and result.missing == [0]


def test_the_most_typical_picture_is_not_the_odd_one():
    alike = [picture(scene(0, shift=(k, 0))[0]) for k in range(3)]
    assert stage.most_typical([picture(scene(40, part=False)[0]), *alike]) in (1, 2, 3)
