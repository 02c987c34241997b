"""Small copies of photographs for the desk."""

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.desk.pictures.thumbnails import thumbnail, to_look_at


def test_a_photograph_of_12_bits_in_a_16_bit_file_is_not_almost_black(tmp_path):
    values = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    cv2.imwrite(str(tmp_path / "a.png"), values)
    small = cv2.imread(str(thumbnail(tmp_path / "a.png", "a.png", "1", "small", tmp_path)))
    assert small.max() > 245 and abs(int(small.mean()) - 127) < 4
    assert np.abs(to_look_at(tmp_path / "a.png")[..., 0].astype(int) - values // 16).max() <= 1


def test_a_broken_16_bit_file_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((48, 64), 4000, np.uint16))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.png"):
        to_look_at(tmp_path / "a.png")
