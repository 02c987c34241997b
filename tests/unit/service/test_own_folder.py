import os
import tempfile

import pytest
from defectflow.service.own_folder import own_folder


def test_what_a_killed_service_has_left_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running, killed = own_folder(), own_folder()
    (killed.path / "copy").write_text("x")
    os.close(killed.lock)  # as the system does
    (tmp_path / "defectflow-serve-strange").mkdir()
    newest = own_folder()
    assert {path.name for path in tmp_path.iterdir()} == {
        running.path.name, newest.path.name, "defectflow-serve-strange"
    }  # fmt: skip
    assert newest.path.stat().st_mode & 0o77 == 0
    for folder in (running, newest):
        folder.remove()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(folder.lock)
    assert [path.name for path in tmp_path.iterdir()] == ["defectflow-serve-strange"]
