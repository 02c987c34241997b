"""Export of a bundle's network and search, checked against PyTorch before it is written."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from defectflow.backbones.network_input import scales_of
from defectflow.backbones.network_settings import OPENVINO_BFLOAT16
from defectflow.backbones.tiles import first_tile
from defectflow.bundling.parity import TOLERANCE, DetectorGraph, common_folder, compare, require
from defectflow.core.files import UserError, scratch_dir, write_json
from defectflow.images.read_write import read_photograph
from defectflow.inspection.bundle_files import Bundle, read_bundle, write_manifest
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.runtimes import NETWORK, pick
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.labels_csv import read_labels

CALIBRATION = 32  # photographs that int8 is calibrated on
SUFFIX = {"onnx": "onnx", "openvino": "xml"}
# Other methods and scores need only a few lines outside of a graph; int8 makes distances of patches inaccurate.
NO_DETECTOR = "only for patchcore with score max, in fp32 and fp16, without tiles"


def export_bundle(
    folder: str | Path, kind: str, precision: str, photographs: Iterable[Path], labels: str | Path | None = None
) -> str:
    """Write ``exports/{kind}-{precision}/`` into a bundle: network, detector (network and search), parity.json.

    Args:
        folder: the bundle.
        kind: "onnx" or "openvino".
        precision: "fp32", "fp16" or "int8".
        photographs: to compare on, and to calibrate int8 on.
        labels: labels.csv of them, see `labels_csv.read_labels`: the AUROC of both is added to the report.

    Returns:
        The parity report as a few lines of text.

    Raises:
        UserError: the bundle is a .zip, or the export differs from PyTorch by more than `parity.TOLERANCE`;
            then nothing is written.
    """
    if Path(folder).is_file():
        raise UserError(f"{folder}: cannot export into a .zip (unpack it, export, pack it again)")
    bundle, paths = read_bundle(folder), list(photographs)
    if "taught" in bundle.settings:  # its files belong to the parent, which is put back from a copy of bundle.json
        raise UserError(f"{folder}: was taught (defectflow learn {folder} --forget, export, and teach it again)")
    if bundle.settings["network"].get("precision") == OPENVINO_BFLOAT16:
        raise UserError(
            f"{folder}: its network is for OpenVINO in bfloat16 alone (bundle a run in float32, and export)"
        )
    pick(kind, bundle)
    reference = Inspector.load(folder, "torch")
    pictures = []
    if precision == "int8":
        depth = reference.settings["depth"]
        items = [reference.prepare(read_photograph(path, depth)) for path in paths[:CALIBRATION]]
        network = bundle.settings["network"]
        pictures = [first_tile(item.picture, network) for item in items if item.picture is not None]
    name = f"exports/{kind}-{precision}"
    with scratch_dir(bundle.folder.with_name(f".{bundle.folder.name}.{kind}-{precision}")) as temporary:
        trial = temporary / "bundle"  # a copy, to open the export like an inspector
        shutil.copytree(bundle.folder, trial, ignore=shutil.ignore_patterns("exports"))
        target = trial / name
        target.mkdir(parents=True)
        _graphs(bundle, kind, precision, target, pictures)
        write_manifest(trial, without_files(bundle))
        report = compare(reference, Inspector.load(trial, kind, precision=precision), paths)
        report = {"format": kind, "precision": precision, "tolerance": TOLERANCE[precision], **report}
        if labels:
            report["auroc"] = aurocs(report["images"], common_folder(paths), labels)
        require(report, TOLERANCE[precision], bundle.folder / name)
        whole = target / f"detector.{SUFFIX[kind]}"
        report["detector"] = {"not_written": NO_DETECTOR}
        if whole.exists():
            found = compare(reference, DetectorGraph(whole, kind, scales_of(bundle.settings["network"])), paths)
            require(found, TOLERANCE[precision], bundle.folder / name / whole.name)
            report["detector"] = {key: found[key] for key in ("raw_score", "map", "verdicts_changed")}
        write_json(target / "parity.json", report)
        final = bundle.folder / name
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(exist_ok=True)
        os.replace(target, final)
    write_manifest(bundle.folder, without_files(bundle))
    return summary(final, report)


def without_files(bundle: Bundle) -> dict[str, Any]:
    """The settings of a bundle less what `write_manifest` adds."""
    return {key: value for key, value in bundle.settings.items() if key not in ("format", "files")}


def aurocs(rows: list[dict[str, Any]], folder: Path, labels: str | Path) -> dict[str, float | None]:
    """AUROC of the raw scores of both inspectors on the photographs with a label.

    Args:
        rows: of a parity report.
        folder: that their paths are relative to.
        labels: labels.csv; its paths may be relative to any folder above the photographs.

    Raises:
        UserError: labels.csv cannot be read, or gives a photograph two labels.
    """
    from defectflow.metrics.metrics import auroc

    given: dict[str, str] = {}
    for row in read_labels(labels):
        name = posixpath.normpath(row["filename"].replace("\\", "/"))
        if given.setdefault(name, row["label"]) != row["label"]:
            raise UserError(f"{labels}, line {row['line']}: {name} has two labels (delete the wrong row)")
    below = [[(folder / row["image"]).relative_to(top).as_posix() for row in rows] for top in (folder, *folder.parents)]
    names = max(below, key=lambda names: len(given.keys() & set(names)))
    matcher = Matcher(names, given)
    meant = {entry: matcher.find(entry)[0] for entry in given}
    times = Counter(meant.values())
    # The photographs may be some of those in the table: a row that fits one may be that of another.
    labels_of = {name: given[entry] for entry, name in meant.items() if times[name] == 1}
    pairs = zip(names, rows, strict=True)
    known = [(int(labels_of[name]), row) for name, row in pairs if labels_of.get(name)]
    truth = np.array([label for label, _ in known], int)
    return {key: auroc(truth, np.array([row[key] for _, row in known], float)) for key in ("reference", "other")}


def summary(folder: Path, report: dict[str, Any]) -> str:
    """A parity report in a few lines."""
    lines = [
        f"{folder}: {report['n_images']} photographs, {report['verdicts_changed']} verdicts changed",
        f"  raw scores differ from PyTorch's by {report['raw_score']['largest']:.2g} of their value at most",
        f"  maps by {report['map']['largest']:.2g} of their largest value at most",
    ]
    detector = report["detector"]
    if "not_written" in detector:
        lines.append(f"  no detector graph ({detector['not_written']})")
    else:
        score, distances = (detector[key]["largest"] for key in ("raw_score", "map"))
        lines.append(f"  detector graph: raw scores by {score:.2g}, maps by {distances:.2g} at most")
    if "auroc" in report:
        before, after = (report["auroc"][key] for key in ("reference", "other"))
        both = f"AUROC {before:.4f} in PyTorch, {after:.4f} here" if before is not None else "AUROC: one class only"
        lines.append(f"  {both}")
    return "\n".join(lines)


def _graphs(bundle: Bundle, kind: str, precision: str, target: Path, pictures: list[Any]) -> None:
    """Write network.* and, where a graph gives the bundle's score, detector.*."""
    from defectflow.bundling.onnx_and_openvino import to_onnx, to_openvino

    convert = {"onnx": to_onnx, "openvino": to_openvino}[kind]
    convert(bundle.path(NETWORK), target / f"network.{SUFFIX[kind]}", precision, pictures)
    detector = bundle.settings["detector"]
    tiled = "tiles" in bundle.settings["network"]
    if tiled or precision == "int8" or (detector["method"], detector["score"]) != ("patchcore", "max"):
        return
    whole = target / "detector.onnx"
    _export_detector(bundle, whole)
    convert(whole, target / f"detector.{SUFFIX[kind]}", precision, ())
    if kind != "onnx":
        whole.unlink()


def _export_detector(bundle: Bundle, target: Path) -> None:
    import torch

    from defectflow.backbones.network_as_graph import make_network
    from defectflow.bundling.onnx_and_openvino import export_search
    from defectflow.inspection.mask_and_score import read_bank
    from defectflow.methods.patchcore.bank_as_graph import detector_graph

    network, detector = bundle.settings["network"], bundle.settings["detector"]
    tensors, settings = read_bank(bundle)
    search = detector_graph(
        make_network(network, bundle.path("backbone.safetensors")),
        {key: torch.from_numpy(value).float() for key, value in tensors.items()},
        settings,
        detector["neighbours"],
    )
    export_search(search, network["input_size"], target, len(scales_of(network)))
