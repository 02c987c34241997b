"""Outputs are whole or absent, and what a killed process left beside them is replaced."""

import json
import os

import numpy as np
import pytest
from defectflow.core.files import (
    UserError,
    atomic,
    atomic_dir,
    json_list_writer,
    read_json_list,
    scratch_dir,
    tensor_offsets,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file


def test_a_scratch_folder_is_empty_whatever_was_left_there_and_goes_with_the_block(tmp_path):
    left = tmp_path / "below/.features.part"
    left.mkdir(parents=True)
    (left / "0.f16").write_text("of a process that was killed")
    with pytest.raises(ValueError), scratch_dir(left) as folder:
        assert folder == left and not list(folder.iterdir())
        (folder / "0.f16").write_text("new")
        raise ValueError
    assert not list((tmp_path / "below").iterdir())


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path):
    target = tmp_path / "out"
    for content in ("old", "new"):
        with atomic_dir(target) as folder:
            (folder / content).write_text(content)
        assert [path.name for path in target.iterdir()] == [content]
    with pytest.raises(ValueError), atomic_dir(target) as folder:
        (folder / "half").write_text("half")
        raise ValueError
    assert [path.name for path in target.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [target]


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(ValueError), atomic(target) as part:
        part.write_text("half")
        raise ValueError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_new_file_is_not_one_that_was_truncated(tmp_path):
    with atomic(tmp_path / "out.csv") as part:
        assert not part.exists()  # ext4 would send it to the disk when it is closed
        part.write_text("new")


def test_tensors_are_found_in_the_file_without_mapping_it(tmp_path):
    tensors = {"a": np.arange(5, dtype=np.float32), "b": np.arange(6, dtype=np.float64).reshape(3, 2)}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"of": "no account"})
    offsets = tensor_offsets(tmp_path / "t.safetensors")
    assert offsets.keys() == tensors.keys()
    second = np.fromfile(tmp_path / "t.safetensors", "<f8", 2, offset=offsets["b"] + 2 * 8)
    np.testing.assert_array_equal(second, [2, 3])


def test_what_a_library_writes_for_its_owner_alone_is_for_all(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic(tmp_path / "weights.safetensors") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o644


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@given(
    st.lists(st.dictionaries(st.text(), JSON | st.dictionaries(st.text(), JSON, max_size=2), max_size=4), max_size=5)
)
def test_a_list_of_objects_comes_back_one_at_a_time(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("list") / "list.json"
    with json_list_writer(path) as add:
        for entry in entries:
            add(entry)
    assert list(read_json_list(path)) == entries == json.loads(path.read_text())


def test_a_list_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "list.json"
    with json_list_writer(path) as add:
        add({"box": [1, 2], "name": "a"})
    path.write_text(path.read_text().replace('"name"', "name"))
    with pytest.raises(UserError, match=r"list\.json: not a list"):
        list(read_json_list(path))
    with pytest.raises(UserError, match="no such file"):
        list(read_json_list(tmp_path / "none.json"))
