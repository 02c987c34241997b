"""However a bundle finds the part: its mask is the one that the masks stage makes of the same photograph."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
from defectflow.bundling import bundle
from defectflow.core.files import write_json
from defectflow.core.tables import MASKS, read_table
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.inspection.bundle_files import Bundle
from defectflow.inspection.mask_and_score import make_locator
from defectflow.parts import prior
from defectflow.parts.part_model import Prior
from defectflow.segmentation import masks
from onnx_sam import write_pair
from part_set import arguments, write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six annotated photographs, one without the part, one to find it in; and their prior."""
    folder = write_set(
        tmp_path_factory.mktemp("parts"), ["train"] * 6 + ["absent", ""], ["a"] * 3 + ["b"] * 3 + ["a", "b"]
    )
    out = [*arguments(folder), "--out", str(folder / "prior.safetensors"), "--report", str(folder / "prior.json")]
    prior.main(prior.build_parser().parse_args(out))
    return folder


def with_heads(path, target):
    """The same prior with appearance heads that nobody trained."""
    import torch
    from defectflow.parts.appearance import Head, backbone_hash

    found = Prior.load(path)
    torch.manual_seed(0)
    for k in range(3):
        found.heads |= {f"{k}.{name}": value.numpy() for name, value in Head().state_dict().items()}
    found.info |= {"trained_on": [[0, 1], [2, 3], [4, 5]], "backbone": backbone_hash()}
    found.save(target)


@pytest.mark.parametrize("source", ["constant", "template", "appearance", "sam2.1"])
def test_the_part_is_where_the_workflow_finds_it(data, tmp_path, source):
    path, more = data / "prior.safetensors", []
    entry = {"method": "template" if source == "appearance" else source, "source": source}
    if source == "appearance":
        with_heads(path, tmp_path / "prior.safetensors")
        path = tmp_path / "prior.safetensors"
    files = {"prior.safetensors": path}
    if source == "sam2.1":
        from defectflow.segmentation import sam_model

        entry |= {"model": "nano", "prior_weight": 0.5}
        write_json(tmp_path / "train.json", {"use": "sam2.1", "prior_weight": 0.5})
        more = [
            "--model",
            str(sam_model.PACKAGED["nano"]),
            "--train-json",
            str(tmp_path / "train.json"),
            "--device",
            "cpu",
        ]
        bundle.write_segmenter(entry, sam_model.PACKAGED["nano"], tmp_path / "segmenter.safetensors")
        files["segmenter.safetensors"] = tmp_path / "segmenter.safetensors"
    told = {key: entry[key] for key in ("method", "model") if key in entry}
    flags = ["--manifest", data / "manifest.csv", "--settings", json.dumps(told), "--prior", path]
    flags += ["--out-dir", tmp_path / "masks", "--table", tmp_path / "masks.csv", *more]
    masks.main(masks.build_parser().parse_args(list(map(str, flags))))
    (tmp_path / "bundle").mkdir()
    for name, file in files.items():
        (tmp_path / "bundle" / name).write_bytes(file.read_bytes())
    locate = make_locator(Bundle(tmp_path / "bundle", {"segmenter": entry, "files": files}))
    table = read_table(tmp_path / "masks.csv", MASKS).set_index("image_id")
    assert set(table["source"]) == {source}
    for name in ("img_06", "img_07"):  # photographs that are not annotated
        found, row = locate(read_rgb(data / f"images/{name}.png")), table.loc[name]
        np.testing.assert_array_equal(found.mask, read_mask(row["mask"]))
        assert (found.record["present"], found.record["doubtful"]) == (row["present"], row["doubtful"])
        assert found.record["registration_score"] == pytest.approx(row["registration_score"], rel=1e-6)


@pytest.mark.parametrize("method", ["sam_onnx", "prompted"])
def test_a_prompted_network_comes_with_the_bundle(data, tmp_path, method):
    names = ["encoder", "decoder"] if method == "sam_onnx" else []
    given = {"fill_holes": True} | ({} if names else {"model": "nano"})
    entry = {"method": method, "source": method} | given | {name: f"{name}.onnx" for name in names}
    pair = dict(zip(names, write_pair(tmp_path / "pair"), strict=False))
    flags = ["--manifest", data / "manifest.csv", "--settings", json.dumps({"method": method} | given)]
    flags += [word for name in names for word in (f"--{name}", pair[name])]
    flags += ["--device", "cpu", "--out-dir", tmp_path / "masks", "--table", tmp_path / "masks.csv"]
    masks.main(masks.build_parser().parse_args(list(map(str, flags))))
    (tmp_path / "bundle").mkdir()
    args = argparse.Namespace(checkpoint=None, encoder=pair.get("encoder"), decoder=pair.get("decoder"))
    bundle.write_promptable(entry, args, tmp_path / "bundle")
    files = {path.name: path for path in (tmp_path / "bundle").iterdir()}
    assert set(files) == ({f"{name}.onnx" for name in names} or {"segmenter.safetensors"})
    locate = make_locator(Bundle(tmp_path / "bundle", {"segmenter": entry, "files": files}))
    table = read_table(tmp_path / "masks.csv", MASKS).set_index("image_id")
    found, row = locate(read_rgb(data / "images/img_07.png")), table.loc["img_07"]
    np.testing.assert_array_equal(found.mask, read_mask(row["mask"]))
    assert (found.record["present"], found.record["reason"]) == (row["present"], row["reason"])


def test_onnx_files_are_asked_without_torch(tmp_path):
    pair = write_pair(tmp_path)
    code = (
        "import sys, numpy as np; from pathlib import Path; from defectflow.inspection.bundle_files import Bundle;"
        "from defectflow.inspection.mask_and_score import make_locator;"
        "entry = {'method': 'sam_onnx', 'source': 'sam_onnx', 'encoder': 'e', 'decoder': 'd'};"
        "files = dict.fromkeys(['encoder.onnx', 'decoder.onnx']);"
        "locate = make_locator(Bundle(Path(sys.argv[1]), {'segmenter': entry, 'files': files}));"
        "image = np.full((90, 120, 3), 20, np.uint8); image[30:60, 40:80] = 240;"
        "assert locate(image).mask[45, 60]; assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(pair[0].parent)], check=True, env=environment)
