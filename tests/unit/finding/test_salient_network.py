"""A salient-object network of the user: its figure lies where the photograph has it; another file is told."""

import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.finding.salient_network import U2Net
from onnx_sam import write_pair, write_salient


def test_the_figure_lies_where_the_photograph_has_it(tmp_path):
    image = np.full((100, 200, 3), 20, np.uint8)
    image[20:60, 50:150] = 250
    figure = U2Net(write_salient(tmp_path / "net.onnx"))(image)
    assert figure.shape == (320, 320) and figure.dtype == np.float32
    expected = np.zeros((320, 320), bool)
    expected[64:192, 80:240] = True
    assert ((figure > 0.5) == expected).mean() > 0.99


def test_another_file_is_told_in_one_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    encoder, _ = write_pair(tmp_path)
    for path, message in (
        (tmp_path / "none.onnx", "no such file"),
        (tmp_path / "text.onnx", "not an ONNX file"),
        (encoder, "not U2-Net or U2NetP"),
    ):
        with pytest.raises(UserError, match=message) as error:
            U2Net(path)
        assert "\n" not in str(error.value)
