"""Bank files: the tensors of one bank, and clear messages for what is none."""

import json

import numpy as np
import pytest
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError
from safetensors.numpy import save_file


@pytest.fixture
def banks(tmp_path):
    tensors = {"all": 0, "all/mean": 1, "fold/1": 2, "fold/1/mean": 3, "fold/10": 4}
    arrays = {name: np.full((2, 3), value, np.float16) for name, value in tensors.items()}
    save_file(arrays, tmp_path / "banks.safetensors", {"defectflow": json.dumps({"method": "patchcore"})})
    return tmp_path / "banks.safetensors"


@pytest.mark.parametrize("framework", ["numpy", "pt"])
def test_a_bank_is_its_own_tensors_alone(banks, framework):
    file = BankFile(banks, framework)
    assert file.settings == {"method": "patchcore"}
    for name, expected in (("all", {"": 0, "mean": 1}), ("fold/1", {"": 2, "mean": 3}), ("fold/10", {"": 4})):
        assert {part: float(tensor[1, 2]) for part, tensor in file.tensors(name).items()} == expected
    with pytest.raises(UserError, match=r"no bank 'fold/9' \(the splits have changed: fit again\)"):
        file.tensors("fold/9")


def test_what_is_no_bank_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        BankFile(tmp_path / "banks.safetensors")
    (tmp_path / "banks.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"banks.safetensors: not a bank file"):
        BankFile(tmp_path / "banks.safetensors")
    save_file({"maps": np.zeros(3)}, tmp_path / "banks.safetensors")
    with pytest.raises(UserError, match="run the fit stage"):
        BankFile(tmp_path / "banks.safetensors")
