"""Frames, sizes and units of outlines: what can be settled comes back to the same mask, what cannot is a problem."""

import numpy as np
import pytest
from defectflow.annotations.coco import decode, encode, listed_image, part_mask
from defectflow.annotations.outline_orientation_and_size import STORED, UPRIGHT, settle
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from outlined_set import annotation, blob, mask_of, stored

quick = hypothesis_settings(max_examples=60, deadline=None, derandomize=True)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def truth(points, size):
    return decode([points.ravel().tolist()], *size)


def choices_of(entries, annotations, raw, orientation):
    pairs = enumerate(zip(entries, annotations, strict=True))
    return settle({str(k): listed_image(entry, [drawn], raw, orientation) for k, (entry, drawn) in pairs})


def exported(points, told):
    entry = {"id": 1, "file_name": "a.png"} | ({"width": told[0], "height": told[1]} if told else {})
    return entry, annotation(1, points)


@given(
    orientation=st.integers(1, 8),
    frame=st.sampled_from([UPRIGHT, STORED]),
    told=st.sampled_from([UPRIGHT, STORED, "scaled"]),
    scale=st.sampled_from([0.25, 0.5, 0.75, 1.5, 2.0, 3.0]),
    seed=st.integers(0, 50),
)
@quick
def test_outlines_of_any_frame_and_size_come_back_or_are_left_to_the_picture(orientation, frame, told, scale, seed):
    size = (300, 220)
    rng = np.random.default_rng(seed)
    upright = blob(rng, size, (0.6, 0.6), 0.34)  # reaches beyond the height of the picture
    raw = size[::-1] if orientation >= 5 else size
    points = stored(upright, orientation, size) if frame == STORED else upright
    of_frame = raw if frame == STORED else size
    told_size = {UPRIGHT: size, STORED: raw, "scaled": tuple(round(scale * side) for side in of_frame)}[told]
    if told == "scaled":
        points = points * scale
    entry, drawn = exported(points, told_size)
    (choice,) = choices_of([entry], [drawn], raw, orientation).values()
    masks = [part_mask(entry, [drawn], raw, orientation, reading)[0] for reading in choice.readings]
    right = [iou(mask, truth(upright, size)) > 0.98 for mask in masks if mask is not None]
    # Either the sizes settle it, or the right reading is among those that the picture decides on.
    assert any(right), (choice, masks)
    if len(choice.readings) == 1:
        assert right == [True]


@given(unit=st.sampled_from([1, 100]), seed=st.integers(0, 50), count=st.integers(1, 4))
@quick
def test_shares_and_percent_are_converted(unit, seed, count):
    size, rng = (640, 480), np.random.default_rng(seed)
    outlines = [blob(rng, size) for _ in range(count)]
    pairs = [exported(points * unit / size, size) for points in outlines]
    found = choices_of([e for e, _ in pairs], [a for _, a in pairs], size, 1)
    for (entry, drawn), points, choice in zip(pairs, outlines, found.values(), strict=True):
        mask, used, problems = part_mask(entry, [drawn], size, 1, choice.readings[0])
        assert iou(mask, truth(points, size)) > 0.98 and used == 1 and not problems
        assert "converted" in choice.readings[0].note


@given(
    width=st.integers(40, 90), height=st.integers(40, 90), order=st.sampled_from("CR"), seed=st.integers(0, 50),
    form=st.sampled_from(["compressed", "counts", "bare", "nested", "exchanged"]),
)  # fmt: skip
@quick
def test_runs_in_any_order_and_form_give_the_same_mask(width, height, order, seed, form):
    if abs(width - height) < 10:  # of a square picture the sizes do not tell rows from columns
        height = width + 10
    mask = mask_of(blob(np.random.default_rng(seed), (width, height), reach=0.45), (width, height))
    flat = (mask.T if order == "C" else mask).ravel()
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    if form == "compressed":
        turned = mask if order == "C" else flat.reshape(width, height).T
        segmentation = encode(turned)
    else:
        told = [width, height] if form == "exchanged" else [height, width]
        forms = {"bare": counts, "nested": [counts]}
        segmentation = forms.get(form, {"size": told, "counts": counts})
    entry = {"id": 1, "file_name": "a.png", "width": width, "height": height}
    notes = []
    found, used, problems = part_mask(entry, [{"segmentation": segmentation}], (width, height), 1, None, notes)
    assert used == 1 and not problems and (found == mask).all()
    assert bool(notes) == (order == "R" or form in ("bare", "nested", "exchanged"))


@given(scale=st.sampled_from([1.3, 1.5, 2.0, 4.0]), told=st.booleans(), seed=st.integers(0, 50))
@quick
def test_outlines_that_leave_the_picture_are_a_problem(scale, told, seed):
    size = (320, 240)
    points = blob(np.random.default_rng(seed), size, (0.75, 0.7)) * scale
    entry, drawn = exported(points, size if told else None)
    (choice,) = choices_of([entry], [drawn], size, 1).values()
    assert not choice.readings and f"the picture has {size[0]}x{size[1]}" in choice.problem


def test_sizes_that_are_absent_need_the_picture():
    size = (320, 240)
    entry, drawn = exported(blob(np.random.default_rng(0), size), None)
    (choice,) = choices_of([entry], [drawn], size, 1).values()
    assert choice.confirm and "no width and height" in choice.problem


def test_one_image_of_a_kind_settles_the_others():
    """Where the size in the file is that of the stored pixels and one outline fits only the upright picture."""
    size, rng = (320, 200), np.random.default_rng(0)
    wide = exported(blob(rng, size, (0.72, 0.5)), size[::-1])
    small = exported(blob(rng, size, (0.3, 0.4), 0.2), size[::-1])
    found = choices_of([wide[0], small[0]], [wide[1], small[1]], size[::-1], 6)
    assert [[r.frame for r in choice.readings] for choice in found.values()] == [[UPRIGHT], [UPRIGHT]]
    alone = choices_of([small[0]], [small[1]], size[::-1], 6)
    assert [r.frame for r in alone["0"].readings] == [STORED, UPRIGHT]


@pytest.mark.parametrize("told", [(1025, 769), (1023, 768), (1024.0, 768.4)])
def test_a_size_that_was_rounded_is_that_of_the_picture(told):
    size = (1024, 768)
    entry, drawn = exported(blob(np.random.default_rng(1), size), told)
    (choice,) = choices_of([entry], [drawn], size, 1).values()
    assert [reading.note for reading in choice.readings] == [""]


def test_a_few_outlines_that_reach_a_little_beyond_are_cut():
    size, rng = (320, 240), np.random.default_rng(0)
    pairs = [exported(blob(rng, size, (0.5, 0.5)), size) for _ in range(9)]
    pairs.append(exported(np.array([[250, 100], [345, 100], [345, 180], [250, 180]]), size))
    found = choices_of([e for e, _ in pairs], [a for _, a in pairs], size, 1)
    assert "cut at its rim" in found["9"].readings[0].note
    assert {choice.readings[0].note for name, choice in found.items() if name != "9"} == {""}


@pytest.mark.parametrize(("told", "reach", "note"), [((160, 120), 1, "wrong"), ((640, 480), 2, "scaled")])
def test_a_size_of_the_same_aspect_is_wrong_or_the_scale(told, reach, note):
    size = (320, 240)
    points = blob(np.random.default_rng(1), size, (0.75, 0.7)) * reach
    entry, drawn = exported(points, told)
    (choice,) = choices_of([entry], [drawn], size, 1).values()
    (reading,) = choice.readings
    assert note in reading.note
    assert iou(part_mask(entry, [drawn], size, 1, reading)[0], truth(points / reach, size)) > 0.98
