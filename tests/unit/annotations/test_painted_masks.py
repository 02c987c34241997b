"""Masks as annotation tools encode them."""

import base64
import io

import labelled_set
import numpy as np
import pytest
from defectflow.annotations.painted_masks import decode_painted, is_painted
from defectflow.core.files import UserError
from PIL import Image


def test_brush_strokes_of_noise_and_of_soft_edges():
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (7, 9), dtype=np.uint8)
    values = np.stack([rng.integers(0, 256, (7, 9), dtype=np.uint8)] * 3 + [alpha], -1)
    code = {"size": [7, 9], "brush": labelled_set.brush(values.ravel())}
    assert is_painted(code) and (decode_painted(code) == (alpha >= 128)).all()


@pytest.mark.parametrize(
    ("change", "message"), [(lambda b: b[:20], "end too early"), (lambda b: [0, 0, 0, 9, *b[4:]], "are of 9 values")]
)
def test_broken_brush_strokes_are_refused(change, message):
    strokes = labelled_set.brush(np.tile(np.arange(63, dtype=np.uint8), 4))
    with pytest.raises(UserError, match=message):
        decode_painted({"size": [7, 9], "brush": change(strokes)})


def test_a_png_lies_where_its_corner_says_and_is_cut_at_the_rim():
    part = np.random.default_rng(0).random((4, 5)) < 0.5
    stream = io.BytesIO()
    Image.fromarray(part).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    mask = decode_painted({"size": [10, 12], "png": text, "corner": [3, 2]})
    assert (mask[2:6, 3:8] == part).all() and mask.sum() == part.sum()
    cut = decode_painted({"size": [10, 12], "png": text, "corner": [-2, 8]})
    assert (cut[8:10, :3] == part[:2, 2:]).all() and cut.sum() == part[:2, 2:].sum()
    with pytest.raises(UserError, match="its mask is no PNG"):
        decode_painted({"size": [10, 12], "png": "bm9uZQ==", "corner": [3, 2]})


def test_runs_go_row_by_row_in_their_box():
    mask = decode_painted({"size": [5, 6], "rows": [1, 3, 2], "box": [2, 1, 3, 2]})
    assert np.argwhere(mask).tolist() == [[1, 3], [1, 4], [2, 2]]


@pytest.mark.parametrize("corner", [(3, 12), (13, 2), (40, 40), (-9, -9)])
def test_a_mask_beyond_its_picture_is_empty(corner):
    code = {"size": [10, 12], "rows": [0, 20], "box": [*corner, 5, 4]}
    assert decode_painted(code).shape == (10, 12) and not decode_painted(code).any()
