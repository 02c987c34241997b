import shutil
from pathlib import Path

import bundle_set
import numpy as np
import pytest
from defectflow.bundling import export, onnx_and_openvino, parity
from defectflow.bundling.export import aurocs, export_bundle, summary
from defectflow.core.files import UserError, read_json, write_json
from defectflow.images.read_write import read_photograph, write_png
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector
from defectflow.methods.patchcore import bank_as_graph


@pytest.fixture
def folder(bundle_folder, tmp_path):
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


@pytest.fixture
def paths(tmp_path):
    for number in range(6):
        write_png(tmp_path / f"{number}.png", bundle_set.photograph(40 + number, bad=number % 2 == 1))
    (tmp_path / "labels.csv").write_text("filename,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(6)))
    return sorted(tmp_path.glob("*.png"))


def raw_scores(folder, paths, *args, **options):
    inspector = Inspector.load(folder, *args, **options)
    return [inspector(path).raw_score for path in paths]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_agrees_with_pytorch_and_search_is_a_graph_too(folder, paths, precision, monkeypatch):
    monkeypatch.setitem(parity.TOLERANCE, "fp16", 0.02)  # of so small a picture; the default is tested below
    text = export_bundle(folder, "openvino", precision, paths, paths[0].parent / "labels.csv")
    assert "6 photographs, 0 verdicts changed" in text and "detector graph: raw scores by" in text
    report = read_json(folder / f"exports/openvino-{precision}/parity.json")
    assert report["n_images"] == len(report["images"]) == 6
    assert report["auroc"] == {"reference": 1.0, "other": 1.0}
    for key in ("raw_score", "map"):
        assert report["detector"][key]["largest"] < (1e-4 if precision == "fp32" else 0.02)
    expected = raw_scores(folder, paths, "torch")
    found = raw_scores(folder, paths, "openvino", precision=precision)
    floor = read_json(folder / "bundle.json")["threshold"]["value"] / 10
    worst = max(abs(a - b) / max(b, floor) for a, b in zip(found, expected, strict=True))
    assert report["raw_score"]["largest"] == pytest.approx(worst, rel=0.05, abs=1e-6)
    assert worst < (1e-4 if precision == "fp32" else 0.02)
    assert Inspector.load(folder, "openvino", precision=precision)  # the checksums are those of the new files

    import openvino

    path = folder / f"exports/openvino-{precision}/detector.xml"
    graph = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    item = Inspector.load(folder, "torch").prepare(read_photograph(paths[1]))
    distances, score = graph([item.picture[None], item.cells]).values()
    assert float(score) == pytest.approx(expected[1], rel=1e-3 if precision == "fp32" else 0.02)
    assert distances.shape == item.cells.shape


def test_int8_tells_what_it_costs(folder, paths):
    text = export_bundle(folder, "onnx", "int8", paths, paths[0].parent / "labels.csv")
    report = read_json(folder / "exports/onnx-int8/parity.json")
    assert report["tolerance"] is None and report["raw_score"]["largest"] > 0
    assert report["auroc"]["other"] > 0.8 and "AUROC 1.0000 in PyTorch" in text
    assert len(raw_scores(folder, paths, "onnx", precision="int8")) == 6


@pytest.mark.parametrize("score", ["top_k_mean", "percentile"])
def test_only_the_score_that_a_graph_gives_becomes_one(folder, paths, score):
    settings = read_json(folder / "bundle.json")
    settings["detector"]["score"] = score
    write_json(folder / "bundle.json", settings)
    assert "no detector graph (only for patchcore with score max" in export_bundle(folder, "onnx", "fp32", paths)
    written = folder / "exports/onnx-fp32"
    assert {path.name for path in written.iterdir()} == {"network.onnx", "parity.json"}
    assert "score max" in read_json(written / "parity.json")["detector"]["not_written"]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_detector_of_two_scales_is_one_graph(tmp_path, paths, kind):
    folder = bundle_set.make_with_two_scales(tmp_path)
    assert "0 verdicts changed" in export_bundle(folder, kind, "fp32", paths)
    report = read_json(folder / f"exports/{kind}-fp32/parity.json")
    assert report["map"]["largest"] < 1e-3 and report["detector"]["map"]["largest"] < 1e-3
    assert report["detector"]["raw_score"]["largest"] < 1e-3


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_detector_of_long_photographs_is_a_graph_too(tmp_path, kind):
    folder = bundle_set.make_of_strips(tmp_path)
    for number in range(4):
        write_png(tmp_path / f"{number}.png", bundle_set.photograph(40 + number, number % 2 == 1, bundle_set.STRIP))
    assert "0 verdicts changed" in export_bundle(folder, kind, "fp32", sorted(tmp_path.glob("?.png")))
    report = read_json(folder / f"exports/{kind}-fp32/parity.json")
    assert report["map"]["largest"] < 1e-3 and report["detector"]["map"]["largest"] < 1e-3


def test_of_tiles_only_the_network_becomes_a_graph(tmp_path):
    folder = bundle_set.make_with_tiles(tmp_path)
    for number in range(2):
        write_png(tmp_path / f"{number}.png", bundle_set.photograph(40 + number, number % 2 == 1, bundle_set.LARGE))
    text = export_bundle(folder, "onnx", "int8", sorted(tmp_path.glob("?.png")))
    assert "no detector graph" in text and "without tiles" in text
    assert {path.name for path in (folder / "exports/onnx-int8").iterdir()} == {"network.onnx", "parity.json"}


def test_graphs_do_not_say_where_they_were_made(folder, paths):
    export_bundle(folder, "onnx", "fp32", paths)
    root = str(Path(onnx_and_openvino.__file__).parents[2]).encode()
    graphs = [folder / "network.onnx", *(folder / "exports/onnx-fp32").glob("*.onnx")]
    assert len(graphs) == 3
    for graph in graphs:
        content = graph.read_bytes()
        assert root not in content and b"defectflow" not in content and b".py" not in content, graph.name


def test_a_detector_graph_that_differs_is_not_written(folder, paths, monkeypatch):
    right = bank_as_graph.Nearest.measure
    monkeypatch.setattr(bank_as_graph.Nearest, "measure", lambda self, differences: right(self, differences) * 1.01)
    with pytest.raises(UserError, match=r"detector\.onnx: not written, onnx and torch differ: .* by 0\.01 .* 0\.001"):
        export_bundle(folder, "onnx", "fp32", paths)
    assert not (folder / "exports").exists()


def test_what_differs_is_not_written(folder, paths, monkeypatch):
    def shifted(onnx, target, precision, pictures):
        monkeypatch.setattr(export.Inspector, "score", wrong)
        target.write_bytes(onnx.read_bytes())

    right = Inspector.score

    def wrong(self, item, seconds=None):
        score, distances = right(self, item)
        return (score * 1.01, distances) if self.runtime == "onnx" else (score, distances)

    monkeypatch.setattr("defectflow.bundling.onnx_and_openvino.to_onnx", shifted)
    before = read_bundle(folder).settings
    left = folder.with_name(f".{folder.name}.onnx-fp32")
    left.mkdir()  # by an export that was killed
    with pytest.raises(UserError, match=r"not written, onnx and torch differ: raw_score by 0\.01 .* 0\.001"):
        export_bundle(folder, "onnx", "fp32", paths)
    assert not (folder / "exports").exists() and read_bundle(folder).settings == before
    assert not left.exists()


@pytest.mark.parametrize("values", [[1.0, 1.002], [1.0, np.nan]])
def test_the_tolerance_is_one_in_a_thousand_for_fp32_and_fp16(values):
    worst = abs(values[1] - values[0])
    rows = [{"image": "a.png", "raw_score": worst, "map": 0.0}]
    report = {
        "raw_score": {"largest": worst},
        "map": {"largest": 0.0},
        "runtime": "x",
        "reference": "y",
        "images": rows,
    }
    for precision in ("fp32", "fp16"):
        with pytest.raises(UserError, match=r"a\.png"):
            parity.require(report, parity.TOLERANCE[precision], "it")
    parity.require(report, parity.TOLERANCE["int8"], "it")


def test_without_photographs_there_is_nothing_to_compare(folder):
    with pytest.raises(UserError, match="no photograph to compare on"):
        export_bundle(folder, "onnx", "fp32", [])


def test_a_photograph_of_the_bank_itself_does_not_spoil_the_comparison(bundle_folder, tmp_path):
    write_png(tmp_path / "in_the_bank.png", bundle_set.photograph(0))
    one, other = (Inspector.load(bundle_folder, runtime) for runtime in ("torch", "openvino"))
    report = parity.compare(one, other, [tmp_path / "in_the_bank.png"])
    assert report["images"][0]["reference"] < 1e-3
    parity.require(report, 1e-3, "it")


def test_photographs_of_equal_names_are_told_apart(bundle_folder, tmp_path):
    paths = [tmp_path / kind / "000.png" for kind in ("good", "scratch")]
    for number, path in enumerate(paths):
        write_png(path, bundle_set.photograph(40 + number))
    one = Inspector.load(bundle_folder, "onnx")
    report = parity.compare(one, one, paths)
    assert [row["image"] for row in report["images"]] == ["good/000.png", "scratch/000.png"]


@pytest.mark.parametrize(
    ("rows", "auroc"),
    [
        (["good/000.png,0", "good/001.png,0", "scratch/000.png,1"], 1.0),
        (["scratch/000.png;bad", "good/000.png;good", "good/001.png;good"], 1.0),
        (["test/scratch/000.png,1", "test/good/000.png,0", "train/good/000.png,0"], 1.0),
        (["scratch\\000.png,1", "001.png,0"], 1.0),
        (["scratch/000.png,1", "000.png,0"], None),  # the second fits two photographs
        (["scratch/000.png,1", "hole/001.png,0", "new/001.png,0"], None),  # one of the two is not of good/001.png
    ],
)
def test_labels_are_read_as_those_of_a_data_set(tmp_path, rows, auroc):
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["filename;label" if ";" in rows[0] else "filename,label", *rows]))
    scores = {"good/000.png": 1.0, "good/001.png": 2.0, "scratch/000.png": 3.0}
    images = [{"image": name, "reference": score, "other": score} for name, score in scores.items()]
    assert aurocs(images, tmp_path / "test", labels) == {"reference": auroc, "other": auroc}


def test_a_photograph_with_two_labels_is_told(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,label\na.png,0\n./a.png,1\n")
    with pytest.raises(UserError, match=r"labels.csv, line 3: a.png has two labels \(delete the wrong row\)"):
        aurocs([], tmp_path, tmp_path / "labels.csv")


def test_an_auroc_of_zero_is_told(tmp_path):
    deviation = {"largest": 0.0}
    report = {"n_images": 2, "verdicts_changed": 0, "raw_score": deviation, "map": deviation}
    report |= {"detector": {"not_written": "why"}, "auroc": {"reference": 0.0, "other": 0.5}}
    assert "AUROC 0.0000 in PyTorch, 0.5000 here" in summary(tmp_path, report)
