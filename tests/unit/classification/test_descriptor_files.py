"""Files of descriptors: what is none is refused."""

import numpy as np
import pytest
from defectflow.classification.descriptor_files import read_descriptors, write_descriptors
from defectflow.core.files import UserError
from kinds_set import described, manifest_of
from safetensors.numpy import save_file


def test_what_is_written_is_read(tmp_path):
    found = described(tmp_path, manifest_of({"good": 5, "a": 4}, unlabelled=1))
    write_descriptors(tmp_path / "d", found)
    again = read_descriptors(tmp_path / "d")
    assert np.array_equal(again.held_out, found.held_out) and np.array_equal(again.every, found.every)
    assert again.items.equals(found.items) and again.about == found.about and len(again.known) == 9


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_descriptors(tmp_path / "none")
    save_file({"x": np.zeros(2)}, tmp_path / "other")
    (tmp_path / "text").write_text("no")
    for name in ("other", "text"):
        with pytest.raises(UserError, match="not a file of descriptors"):
            read_descriptors(tmp_path / name)
