import json
import shutil

import pytest
from defectflow.core.files import UserError
from defectflow.inspection.bundle_files import pack, read_bundle
from defectflow.service.served_bundles import copied, named


def test_names_are_given_or_those_of_files_and_of_data_sets(bundle_folder, tmp_path):
    packed = tmp_path / "plate v2.zip"
    pack(bundle_folder, packed)
    assert named([str(bundle_folder)]) == {"a": bundle_folder}  # of run a/run
    assert named([f"left={bundle_folder}", str(packed)]) == {"left": bundle_folder, "plate_v2": packed}
    strange = shutil.copytree(bundle_folder, tmp_path / "x=y")
    assert named([str(strange)]) == {"x_y": strange}


def test_wrong_ones_are_refused(bundle_folder, tmp_path):
    with pytest.raises(UserError, match="another bundle is already called a"):
        named([str(bundle_folder)] * 2)
    with pytest.raises(UserError, match="no such bundle"):
        named([str(tmp_path / "none")])
    with pytest.raises(UserError, match="cannot be used in a URL"):
        named([str(shutil.copytree(bundle_folder, tmp_path / "検査"))])


def test_a_copy_is_that_bundle_and_its_version_follows_the_content(bundle_folder, tmp_path):
    other = shutil.copytree(bundle_folder, tmp_path / "other")
    packed = tmp_path / "b.zip"
    pack(bundle_folder, packed)
    served = copied({"one": bundle_folder, "two": other, "three": packed}, tmp_path / "copies")
    assert len({model.version for model in served.values()}) == 1 and len(served["one"].version) == 12
    assert read_bundle(served["one"].folder).settings == read_bundle(bundle_folder).settings == served["two"].settings
    manifest = json.loads((other / "bundle.json").read_text())
    manifest["threshold"]["value"] = 9.0
    (other / "bundle.json").write_text(json.dumps(manifest))
    changed = copied({"two": other}, tmp_path / "again")["two"]
    assert changed.version != served["two"].version and changed.settings["threshold"]["value"] == 9.0
    assert served["two"].folder.joinpath("bundle.json").read_bytes() == (bundle_folder / "bundle.json").read_bytes()
    (other / "bank.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        copied({"two": other}, tmp_path / "third")
