"""Small copies of photographs for the desk."""

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.desk.pictures.thumbnails import thumbnail, to_look_at


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.jp2"])
def test_a_photograph_of_12_bits_in_a_16_bit_file_is_not_almost_black(tmp_path, name, channels):
    values = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if name == "a.jp2" else []
    cv2.imwrite(str(tmp_path / name), values if channels == 1 else np.dstack([values] * 3), lossless)
    small = cv2.imread(str(thumbnail(tmp_path / name, name, "1", "small", tmp_path)))
    assert small.max() > 245 and abs(int(small.mean()) - 127) < 4
    assert np.abs(to_look_at(tmp_path / name)[..., 0].astype(int) - values // 16).max() <= 1


def test_a_broken_16_bit_file_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((48, 64), 4000, np.uint16))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.png"):
        to_look_at(tmp_path / "a.png")
