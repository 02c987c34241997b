"""A salient-object network that a user has, as an ONNX file: one more opinion on where the part is."""

from pathlib import Path

import numpy as np

from defectflow.core.files import UserError
from defectflow.parts.training_cases import MEAN, STD, to_square

SIDE = 320  # px of the square that U2-Net looks at


class U2Net:
    """U2-Net or U2NetP (X. Qin et al., U2-Net, 2020) as an ONNX file, on one thread."""

    def __init__(self, file: str | Path) -> None:
        """Open the file.

        Raises:
            UserError: it is absent or not such a network, or onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise UserError(f"{file}: it needs onnxruntime, which is not installed (pip install onnxruntime)") from None
        if not Path(file).is_file():
            raise UserError(f"{file}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises many kinds for a file that it cannot read
            raise UserError(f"{file}: not an ONNX file that onnxruntime reads ({type(error).__name__})") from None
        entries = self.session.get_inputs()
        shape = entries[0].shape
        if len(entries) != 1 or len(shape) != 4 or shape[1] != 3 or shape[3] not in (SIDE, *filter(_is_open, shape)):
            raise UserError(
                f"{file}: not U2-Net or U2NetP (it takes {[entry.shape for entry in entries]}, not one picture "
                f"(1, 3, {SIDE}, {SIDE}))"
            )
        self.input = entries[0].name

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """uint8 RGB (height, width, 3) to the probability of the figure, float32 (SIDE, SIDE)."""
        square = to_square(photo, SIDE)
        scaled = (square / np.float32(max(int(square.max()), 1)) - MEAN) / STD
        given = {self.input: scaled.transpose(2, 0, 1)[None].astype(np.float32)}
        soft: np.ndarray = np.clip(self.session.run(None, given)[0][0, 0], 0, 1)
        return soft


def _is_open(size: object) -> bool:
    """Whether a size of an input is left to the caller."""
    return not isinstance(size, int)
