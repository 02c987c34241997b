"""Checkpoints: read back by the run that wrote them, refused by others, named when damaged."""

import pytest
import torch
from defectflow.core.files import UserError
from defectflow.training.checkpoints import OtherSettings, load_checkpoint, save_checkpoint


def test_the_state_comes_back_for_the_same_settings_alone(tmp_path):
    path = tmp_path / "run.pt"
    assert load_checkpoint(path, {"seed": 0}) is None
    save_checkpoint(path, {"seed": 0}, {"model": {"w": torch.arange(3)}, "steps": 7})
    state = load_checkpoint(path, {"seed": 0})
    assert state["steps"] == 7 and state["model"]["w"].tolist() == [0, 1, 2]
    with pytest.raises(OtherSettings, match=r"run\.pt: belongs to a run with other settings"):
        load_checkpoint(path, {"seed": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_a_write_that_fails_leaves_the_older_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {}, {"steps": 1})
    with pytest.raises(AttributeError):
        save_checkpoint(path, {}, {"steps": lambda: None})
    assert load_checkpoint(path, {})["steps"] == 1


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.pt: not a readable training state"):
        load_checkpoint(path, {})
