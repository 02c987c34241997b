"""Bank files: the tensors of one bank, and clear messages for what is none."""

import json

import numpy as np
import pytest
from defectflow.core.bank_files import BankFile, by_row
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


@pytest.mark.parametrize("framework", ["numpy", "pt"])
def test_rows_that_banks_share_are_on_disk_once_and_come_back_as_they_were(tmp_path, framework):
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    whole = {"all": rows[:40], "all/mean": rows[:1]}
    banks = {f"fold/{k}": np.roll(rows[k : 45 + k], k, axis=0) for k in range(6)}
    banks |= {"group/0": rows[30:50], "fold/0/mean": rows[1:2], "fold/1/mean": rows[2:3]}
    about = {"defectflow": json.dumps({"method": "patchcore"})}
    tensors, more = by_row(banks, whole)
    save_file(whole, tmp_path / "banks", about)
    save_file(tensors, tmp_path / "folds", about | more)
    assert (tmp_path / "folds").stat().st_size < 0.5 * sum(bank.nbytes for bank in banks.values())
    file = BankFile(tmp_path / "folds", framework, BankFile(tmp_path / "banks", framework))
    for name, expected in banks.items():
        bank, mean, _ = name.partition("/mean")
        found = np.asarray(file.tensors(bank)[mean[1:]])
        assert found.dtype == np.float32 and found.tobytes() == expected.tobytes(), name
    with pytest.raises(UserError, match=r"folds: holds banks of folds alone \(give the banks of the same fit"):
        BankFile(tmp_path / "folds").tensors("fold/0")
    save_file(whole | {"all": rows[1:41]}, tmp_path / "banks", about)
    with pytest.raises(UserError, match=r"folds: belongs to other banks than .*banks \(fit again\)"):
        BankFile(tmp_path / "folds", whole=BankFile(tmp_path / "banks")).tensors("fold/0")


def test_banks_that_share_nothing_are_stored_as_they_are():
    rows = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    banks = {"fold/0": rows[1], "fold/0/precision": rows, "fold/1": rows[2].astype(np.float16)}
    tensors, more = by_row(banks, {"all": rows[0], "all/precision": rows})
    assert more == {} and all(tensors[name] is bank for name, bank in banks.items())
