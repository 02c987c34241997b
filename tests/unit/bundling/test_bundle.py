import csv
import json
import os
import re
import shutil
import tempfile
import zipfile

import bundle_set
import numpy as np
import openvino
import pytest
from defectflow.backbones.patch_embedding import has_bfloat16
from defectflow.bundling import bundle
from defectflow.bundling.bundle_card import learned
from defectflow.bundling.export import export_bundle
from defectflow.classification.heads.head_arrays import Head
from defectflow.classification.heads.novelty import KnownKinds
from defectflow.classification.kind_namer import KindNamer
from defectflow.commands import cli
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError, read_json
from defectflow.images.read_write import write_png
from defectflow.inspection.bundle_files import pack, read_bundle
from defectflow.inspection.inspector import Inspector
from defectflow.methods.numpy_registry import DETECTORS
from safetensors.torch import load_file

CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_a_bundle_holds_what_it_takes_and_its_checksums(bundle_folder):
    names = {path.name for path in bundle_folder.iterdir()}
    assert names == {
        "README.md", "backbone.safetensors", "bank.safetensors", "bundle.json", "held_out.safetensors", "network.onnx",
        "parity.json", "search.safetensors",
    }  # fmt: skip
    settings = read_bundle(bundle_folder).settings
    assert settings["files"].keys() == names - {"bundle.json"}
    assert settings["threshold"]["value"] == 1.2
    assert (settings["threshold"]["low"], settings["threshold"]["high"]) == (0.7, 3.0)
    assert settings["review"] == [1.1, 1.3] and settings["pixel_threshold"] == 0.8
    assert settings["detector"]["neighbours"] == 9 and "torch" in settings["versions"]
    assert load_file(bundle_folder / "bank.safetensors").keys() == {"all"}  # no bank of a fold
    card = (bundle_folder / "README.md").read_text()
    assert "0.900 [0.50, 1.00]" in card and "few images" in card


def test_the_network_agrees_with_pytorch(bundle_folder):
    report = read_json(bundle_folder / "parity.json")
    assert report["n_images"] == 3 and report["reference"] == "torch"
    assert report["raw_score"]["largest"] < 1e-4 and report["map"]["largest"] < 1e-4


def test_a_network_that_differs_is_not_written_and_the_bundle_runs_on_torch_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bundle.TOLERANCE, "fp32", -1.0)
    folder = bundle_set.make(tmp_path)
    assert re.search(r"WARNING: .*not written, .* differ: raw_score.*runs with PyTorch alone", capsys.readouterr().err)
    assert not (folder / "network.onnx").exists() and not (folder / "parity.json").exists()
    inspector = Inspector.load(folder)
    assert inspector.runtime == "torch" and inspector(bundle_set.photograph(3)).raw_score == 0
    with pytest.raises(UserError, match=r"would give other verdicts with this network"):
        Inspector.load(folder, "openvino")


@pytest.mark.skipif(not has_bfloat16(), reason="no bfloat16 on this processor")
def test_a_network_in_bfloat16_runs_on_torch_alone_with_the_verdicts_of_the_run(tmp_path):
    entry = bundle_set.ENTRIES["detector"] | {"precision": "bfloat16"}
    folder = bundle_set.make(tmp_path, detector=entry)
    assert not (folder / "network.onnx").exists()
    inspector = Inspector.load(folder)
    assert inspector.runtime == "torch"
    assert inspector(bundle_set.photograph(3)).raw_score == 0  # the patches of the bank, to the last bit
    assert inspector(bundle_set.photograph(60, bad=True)).raw_score > 1
    for refused in (lambda: Inspector.load(folder, "onnx"), lambda: export_bundle(folder, "openvino", "fp32", [])):
        with pytest.raises(UserError, match=r"would give other verdicts with this network"):
            refused()


@pytest.mark.skipif("BF16" not in CAPABILITIES, reason="no bfloat16 on this processor")
def test_a_network_in_bfloat16_of_openvino_gives_the_verdicts_of_the_run(tmp_path):
    entry = bundle_set.ENTRIES["detector"] | {"precision": "openvino_bfloat16"}
    folder = bundle_set.make(tmp_path, detector=entry)
    report = read_json(folder / "parity.json")
    assert report["reference"] == "torch" and report["runtime"] == "openvino"
    assert report["raw_score"]["largest"] < 1e-4 and report["map"]["largest"] < 1e-4
    inspector, bad = Inspector.load(folder), bundle_set.photograph(60, bad=True)
    assert inspector.runtime == "openvino"
    assert inspector(bundle_set.photograph(3)).raw_score < 1e-3  # patches of the bank: float32's are a percent away
    assert inspector(bad).raw_score == pytest.approx(Inspector.load(folder, "torch")(bad).raw_score, rel=1e-4)
    with pytest.raises(UserError, match=r"precision is that of OpenVINO \(use --runtime openvino\)"):
        Inspector.load(folder, "onnx")
    with pytest.raises(UserError, match=r"in bfloat16 alone"):
        export_bundle(folder, "openvino", "fp16", [])


def test_where_weights_lay_is_not_told(tmp_path):
    entry = bundle_set.ENTRIES["detector"] | {"weights": "/home/me/secret/w.safetensors"}
    args = bundle_set.arguments(tmp_path, detector=entry)
    bundle.main(bundle.build_parser().parse_args(args))
    assert "secret" not in (tmp_path / "bundle/bundle.json").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"detector": bundle_set.ENTRIES["detector"] | {"method": "pixel_difference"}},
            "pixel_difference is only a baseline",
        ),
        ({"isolation": bundle_set.ENTRIES["isolation"] | {"warp": 3}}, "isolation option 'warp' is unknown"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        bundle_set.make(tmp_path, **change)
    assert not (tmp_path / "bundle").exists()


def namer_for(folder, blot=1.0):
    """A classifier of one kind, for the patches of the bank below ``folder``; log-odds and limit are made up."""
    bank = BankFile(folder / "banks.safetensors")
    good = bank.tensors("all")[""]
    d = 2 * good.shape[1]
    zero, one = np.zeros(d), np.ones(d)
    head = Head(2, np.arange(2), zero, one, ((np.zeros((2, d)), np.array([0.0, blot])),))
    known = KnownKinds(zero, one, one[None] / d**0.5)
    namer = KindNamer(["good", "blot"], head, 1.0, known, 2.0, good, np.ones(len(good), np.float32), bank.settings)
    namer.save(folder / "namer.safetensors")
    return folder / "namer.safetensors"


def test_a_bundle_names_the_kind_of_what_is_bad(tmp_path, capsys):
    args = bundle_set.arguments(tmp_path)
    bundle.main(bundle.build_parser().parse_args([*args, "--kinds", str(namer_for(tmp_path))]))
    assert "it tells apart: blot; " in (tmp_path / "bundle/README.md").read_text()
    photos = tmp_path / "photos"
    for name, bad in (("good.png", False), ("bad.png", True)):
        write_png(photos / name, bundle_set.photograph(60, bad))
    table = tmp_path / "verdicts.csv"
    arguments = ["inspect", tmp_path / "bundle", photos, "--csv", table, "--jsonl", tmp_path / "v.jsonl"]
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in arguments])
    lines = capsys.readouterr().out.splitlines()
    assert "bad.png  (blot 100 %" in lines[0] and "blot" not in lines[1]
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["kind"], row["kind_probability"]) for row in rows] == [("blot", "1.000000"), ("", "")]
    told = [json.loads(line)["kind"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert told == ["blot", ""]


def test_kinds_of_other_patches_are_refused_in_one_line(tmp_path):
    args = bundle_set.arguments(tmp_path)
    path = namer_for(tmp_path)
    namer = KindNamer.load(path)
    namer._replace(network=namer.network | {"grid": [9, 9]}).save(path)
    with pytest.raises(UserError, match=r"bundle: grid is \[9, 9\] for kinds and \[12, 12\] for the detector"):
        bundle.main(bundle.build_parser().parse_args([*args, "--kinds", str(path)]))
    assert not (tmp_path / "bundle").exists()


def test_without_a_threshold_there_is_no_inspector(tmp_path):
    args = bundle_set.arguments(tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    metrics["threshold"]["value"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="no threshold"):
        bundle.main(bundle.build_parser().parse_args(args))


def altered(bundle_folder, tmp_path, change):
    folder = tmp_path / "copy"
    shutil.copytree(bundle_folder, folder)
    settings = read_json(folder / "bundle.json")
    change(folder, settings)
    (folder / "bundle.json").write_text(json.dumps(settings))
    return folder


def flip(folder, settings):
    path = folder / "bank.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def climb(folder, settings):
    (folder.parent / "secret").write_text("x")
    settings["files"]["../secret"] = {"bytes": 1, "sha256": ""}


def link(folder, settings):
    path = folder / "bank.safetensors"
    outside = folder.parent / "elsewhere.safetensors"
    shutil.move(path, outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip, "bank.safetensors of the bundle is damaged"),
        (lambda f, s: (f / "network.onnx").write_bytes(b""), "network.onnx of the bundle is damaged"),
        (lambda f, s: (f / "backbone.safetensors").unlink(), "backbone.safetensors of the bundle is missing"),
        (lambda f, s: s.update(format="defectflow-bundle-9"), "bundle of format 'defectflow-bundle-9'"),
        (lambda f, s: s.pop("detector"), "damaged: no 'detector'"),
        (lambda f, s: s["detector"].update(method="telepathy"), "method 'telepathy' is unknown"),
        (
            lambda f, s: s["isolation"].update(normalise=["magic"]),
            "isolation.normalise: 'magic' is not one of",
        ),
        (climb, "outside of its folder: '../secret'"),
        (lambda f, s: s["files"].update({"/etc/passwd": {}}), "outside of its folder"),
        (link, "a link out of its folder"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused_in_one_line(bundle_folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        Inspector.load(altered(bundle_folder, tmp_path, change))
    assert "\n" not in str(caught.value)


def test_another_folder_is_no_bundle(tmp_path):
    with pytest.raises(UserError, match="not a bundle"):
        Inspector.load(tmp_path)


def test_a_copy_says_the_same(bundle_folder, tmp_path):
    copy = shutil.copytree(bundle_folder, tmp_path / "somewhere else")
    photo = bundle_set.photograph(7, bad=True)
    one, other = (Inspector.load(folder)(photo) for folder in (bundle_folder, copy))
    assert one.raw_score == other.raw_score
    np.testing.assert_array_equal(one.heat, other.heat)


def test_a_zip_says_the_same_and_leaves_nothing_behind(bundle_folder, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    pack(bundle_folder, tmp_path / "one.zip")
    copy = shutil.copytree(bundle_folder, tmp_path / "b" / "bundle")
    for path in copy.iterdir():
        os.utime(path, (1e9, 1e9))
    pack(copy, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    shutil.make_archive(
        str(tmp_path / "by_hand"), "zip", tmp_path / "b", "bundle"
    )  # compressed, with the folder's name
    photo = bundle_set.photograph(7, bad=True)
    expected = Inspector.load(bundle_folder, "openvino")(photo)
    for name in ("one.zip", "by_hand.zip"):
        inspector = Inspector.load(tmp_path / name, "openvino")
        assert not list((tmp_path / "tmp").iterdir())
        assert inspector(photo).raw_score == expected.raw_score


def rezip(source, target, change=None, **more):
    """Copy a .zip; ``change`` is a function of bundle.json, ``more`` are files by name to add or replace."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        contents = {name: old.read(name) for name in old.namelist()} | more
        if change:
            settings = json.loads(contents["bundle.json"])
            change(settings)
            contents["bundle.json"] = json.dumps(settings)
        for name, content in contents.items():
            new.writestr(name, content)


def cut_short(source, target):
    target.write_bytes(source.read_bytes()[:-1000])


def flip_a_bit(source, target):
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut_short, r"neither a bundle's folder nor a whole \.zip of one"),
        (flip_a_bit, r"neither a bundle's folder nor a whole \.zip of one \(Bad CRC-32"),
        (lambda s, t: t.write_text("no zip"), r"nor a whole \.zip of one \(File is not a zip file\)"),
        (lambda s, t: rezip(s, t, **{"../climbed.txt": "x"}), r"outside of its folder: '\.\./climbed\.txt'"),
        (lambda s, t: rezip(s, t, **{"/climbed.txt": "x"}), "outside of its folder"),
        (lambda s, t: rezip(s, t, **{"bomb": bytes(10**9 // 2)}), "more than 20 times as large"),
        (lambda s, t: rezip(s, t, lambda settings: settings.update(format="defectflow-bundle-9")), "bundle-9"),
        (lambda s, t: rezip(s, t, **{"bank.safetensors": "other"}), "bank.safetensors of the bundle is damaged"),
        (lambda s, t: rezip(s, t, lambda settings: settings["files"].update({"../x": {}})), "outside of its folder"),
        (lambda s, t: zipfile.ZipFile(t, "w").close(), "not a bundle"),
    ],
)
def test_a_zip_that_is_no_whole_bundle_is_refused_in_one_line(bundle_folder, tmp_path, make, message):
    pack(bundle_folder, tmp_path / "whole.zip")
    before = set(tmp_path.rglob("*"))
    make(tmp_path / "whole.zip", tmp_path / "bad.zip")
    with pytest.raises(UserError, match=message) as caught:
        Inspector.load(tmp_path / "bad.zip")
    told = str(caught.value)
    assert told.startswith(str(tmp_path / "bad.zip")) and "\n" not in told
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "bad.zip"}


def test_a_fine_tuned_sam_becomes_safetensors_of_the_same_weights(tmp_path):
    from defectflow.segmentation import sam_model

    bundle.write_segmenter({"model": "nano"}, sam_model.PACKAGED["nano"], tmp_path / "segmenter.safetensors")
    one, other = (
        sam_model.build("nano", path) for path in (sam_model.PACKAGED["nano"], tmp_path / "segmenter.safetensors")
    )
    assert all((a == b).all() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(UserError, match="a bundle takes nano"):
        bundle.write_segmenter({"model": "mine.yaml"}, sam_model.PACKAGED["nano"], tmp_path / "other.safetensors")


def test_the_card_says_what_a_picture_is_compared_with():
    fit = {"banks": {"all": {"size": 1024}}}
    assert learned({"method": "patchcore", "distance": "cosine"}, fit) == "cosine distances to 1024 patches"
    assert "Gaussian in each of 1024 places" in learned({"method": "padim", "distance": "euclidean"}, fit)
    assert set(DETECTORS) == {"patchcore", "padim", "centroid", "spade"}, "a new method needs words in bundle_card"
