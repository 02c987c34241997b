"""Stage bundle: pack a finished run into one folder that judges new photographs anywhere, without the workflow."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from defectflow.bundling.bundle_card import card
from defectflow.bundling.held_out_photographs import held_out, labelled_photographs, used_photographs
from defectflow.bundling.onnx_and_openvino import export_onnx, export_pictures
from defectflow.bundling.parity import TOLERANCE, Differs, compare, require
from defectflow.classification.kind_namer import KindNamer
from defectflow.core.anomaly_maps import AnomalyMaps, load_maps
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError, atomic, atomic_dir, read_json, stage, write_json
from defectflow.core.tables import read_parts, read_table
from defectflow.core.versions import versions
from defectflow.decision.decisions import is_calibration
from defectflow.evaluation.scored_images import evenly, run_scale
from defectflow.images.bit_depth import add_option
from defectflow.inspection.bundle_files import read_bundle, write_manifest
from defectflow.inspection.held_out import FILE
from defectflow.inspection.inspector import KINDS, Inspector
from defectflow.inspection.mask_and_score import SEARCH, numpy_detector, settings_of, torch_detector
from defectflow.inspection.runtimes import NETWORK, installed
from defectflow.isolation.outlined_extent import window_of
from defectflow.methods.method_settings import METHODS
from defectflow.parts.part_model import Prior
from defectflow.segmentation.baseline_masks import WHOLE, chosen_source
from defectflow.segmentation.segmenters import SEGMENTERS

PARITY_SAMPLE = 16  # photographs that the graph is compared on
# What an inspector has to know about how the features were made.
NETWORK_KEYS = (
    "backbone", "layers", "precision", "fitted_size", "input_size", "grid", "foreground_only", "dilation", "coarser",
    "rim", "tiles", "sigma",
)  # fmt: skip
FOLDERS = ("_dir", "_path")  # ends of options of anomalib's models: of other pictures, for the training alone
# Libraries whose versions are stored in the bundle.
LIBRARIES = ("defectflow", "numpy", "opencv-python-headless", "pillow", "scipy", "safetensors", "torch", "timm", "onnx")


def write_bank(banks: Path, target: Path) -> dict[str, Any]:
    """Write the bank of all good images; returns its metadata: method, backbone, layers, grid, input_size ..."""
    file = BankFile(banks, "pt")
    tensors = {f"all/{part}" if part else "all": tensor for part, tensor in file.tensors("all").items()}
    save(tensors, target, {"defectflow": json.dumps(file.settings)})
    return file.settings


def write_backbone(metadata: dict[str, Any], args: argparse.Namespace, target: Path) -> None:
    """Write the weights that the features were made with, from wherever they were loaded."""
    from defectflow.backbones.networks import create_backbone

    network = create_backbone(
        metadata["backbone"], metadata["layers"], args.weights, allow_download=args.allow_downloads, seed=args.seed
    )
    state = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save(state, target)


def write_segmenter(entry: dict[str, Any], model: Path, target: Path) -> None:
    """Write the fine-tuned SAM 2.1, a torch file, as safetensors."""
    from defectflow.segmentation.sam_model import CONFIGS, read_checkpoint

    if entry["model"] not in CONFIGS:
        raise UserError(
            f"segmenter model {entry['model']!r}: a bundle takes {', '.join(CONFIGS)} only (YAML could name code)"
        )
    save({name: tensor.clone().contiguous() for name, tensor in read_checkpoint(model).items()}, target)


def write_promptable(entry: dict[str, Any], args: argparse.Namespace, folder: Path) -> None:
    """Write the network of a prompted segmenter: SAM 2.1 as safetensors, or both ONNX files as they are."""
    if entry["source"] == "prompted":
        from defectflow.segmentation.sam_model import PACKAGED

        return write_segmenter(entry, args.checkpoint or PACKAGED[entry["model"]], folder / "segmenter.safetensors")
    for name in ("encoder", "decoder"):
        shutil.copyfile(getattr(args, name), folder / f"{name}.onnx")


def write_kinds(namer: Path, metadata: dict[str, Any], folder: Path) -> None:
    """Write what names the kind of a defect, from the patches that the detector looks at.

    Raises:
        UserError: it has learned from other patches than those.
    """
    network = KindNamer.load(namer).network
    for key in NETWORK_KEYS:
        if network.get(key) != metadata.get(key):
            raise UserError(
                f"bundle: {key} is {network.get(key)} for kinds and {metadata.get(key)} for the detector, and an "
                "inspector has one network (give both the same settings, or set kinds: {join: false})"
            )
    shutil.copyfile(namer, folder / KINDS)


def verdict_settings(metrics: dict[str, Any], labelled: pd.DataFrame) -> dict[str, Any]:
    """The threshold with the range of the scores that it was chosen on, and the review band.

    Raises:
        UserError: the run has no threshold.
    """
    value = metrics["threshold"]["value"]
    if value is None:
        raise UserError("bundle: the run has no threshold, because no image is labelled (label some good images 0)")
    known = is_calibration(labelled.assign(detection=labelled["split"]))
    if metrics.get("assumed", {}).get("threshold_from") == "assumed good":
        known = labelled["raw_score"].notna()
    scores = labelled.loc[known, "raw_score"]
    threshold = {key: metrics["threshold"][key] for key in ("strategy", "options", "value")}
    threshold |= {"low": float(scores.min()), "high": float(scores.max())}
    review = metrics["review"]
    return {"threshold": threshold, "review": [review["low"], review["high"]] if review else None}


def _chosen_on(part: pd.DataFrame) -> pd.Series:
    """Rows of predictions.csv that the threshold may have been chosen on."""
    return part["label"].notna() | (part["split"] == "fold")


def map_settings(predictions: Path, maps: AnomalyMaps, metrics: dict[str, Any], vmax_quantile: float) -> dict[str, Any]:
    """The pixel threshold (None without one) and the colour scale of the run's heatmaps."""
    chosen = (metrics.get("pixel") or {}).get("map_threshold")
    scale = run_scale(predictions, maps, metrics, vmax_quantile)
    return {
        "pixel_threshold": chosen["value"] if chosen else None,
        "scale": {name: float(value) for name, value in vars(scale).items()},
    }


def check_parity(folder: Path, manifest: Path) -> None:
    """Write parity.json: the ONNX network against PyTorch's on a sample of the photographs.

    Raises:
        Differs: they do not agree.
    """
    count = sum(len(part) for part in read_parts(manifest, ["path"]))
    wanted = evenly(count, PARITY_SAMPLE)
    sample = read_table(manifest, ["path"], lambda part: part.index.isin(wanted))["path"].tolist()
    reference = Inspector.load(folder, "torch")
    other = Inspector.load(folder, "openvino" if installed("openvino") else "onnx")
    result = compare(reference, other, sample)
    require(result, TOLERANCE["fp32"], folder / NETWORK)
    write_json(folder / "parity.json", result)


def write_held_out(folder: Path, args: argparse.Namespace, metrics: dict[str, Any]) -> None:
    """Write what `defectflow learn` and `defectflow drift` compare with, of the labelled photographs of the run."""
    inspector, review = Inspector.load(folder, "torch", threads=args.threads), metrics["review"]
    limits = {key: review[key] for key in ("max_fpr", "max_fnr")} if review else None
    table = labelled_photographs(args.predictions, args.manifest, args.splits)
    settings = settings_of(read_bundle(folder), "detector")
    if len(table):  # a run without labels has none to learn from mistakes or to see drift by
        used = used_photographs(args.manifest, args.splits)
        held_out(inspector, (args.banks, args.fold_banks), table, settings, limits, used).save(folder / FILE)


def save(tensors: dict[str, Any], target: Path, metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors as safetensors, atomically and with the permissions of any other file."""
    with atomic(target) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def main(args: argparse.Namespace) -> None:
    """Write the bundle, then open it as an inspector would."""
    torch.set_num_threads(args.threads)
    entries, metrics = json.loads(args.entries), read_json(args.metrics)
    labelled = read_table(args.predictions, ["label", "split", "raw_score"], _chosen_on)
    segmenter, isolation, detector = (dict(entries[key]) for key in ("segmenter", "isolation", "detector"))
    for entry, key in ((detector, "weights"), *((segmenter, key) for key in ("checkpoint", "encoder", "decoder"))):
        if entry.get(key):  # the bundle keeps no path of this machine
            entry[key] = Path(entry[key]).name
    for key, value in (detector.get("options") or {}).items():
        if key.endswith(FOLDERS) and value:
            detector["options"] = detector["options"] | {key: Path(value).name}
    segmenter.pop("candidates", None)  # what they saw is learned
    if reason := METHODS.classes[detector["method"]].not_bundled:
        raise UserError(f"bundle: {detector['method']} {reason} (bundle another detector)")
    whole_pictures = METHODS.classes[detector["method"]].whole_pictures
    segmenter["source"] = "none"
    prompts = SEGMENTERS.classes[segmenter["method"]].prompts
    if prompts:
        segmenter["source"] = segmenter["method"]
    elif segmenter["method"] != "none":
        segmenter["source"] = chosen_source(segmenter["method"], args.train_json, Prior.load(args.prior))
    if segmenter["source"] == "sam2.1":
        segmenter["prior_weight"] = read_json(args.train_json)["prior_weight"]
    if segmenter["source"] == WHOLE:  # the run took photographs whole, and so does its inspector
        segmenter["source"] = "none"
        isolation |= {"background": "keep", "normalise": ["none"], "crop": False, "tight": None, "upright": False}
    isolation |= {"size": None, "centre": None}
    if isolation["crop"]:
        size, centre = window_of(args.pairs, args.prior, isolation["margin"])
        isolation |= {"size": list(size), "centre": list(centre)}
    with atomic_dir(args.out) as folder:
        if prompts:
            write_promptable(segmenter, args, folder)
        elif segmenter["source"] != "none":
            shutil.copyfile(args.prior, folder / "prior.safetensors")
        if segmenter["source"] == "sam2.1":
            write_segmenter(segmenter, args.model, folder / "segmenter.safetensors")
        metadata = write_bank(args.banks, folder / "bank.safetensors")
        if args.kinds:
            write_kinds(args.kinds, metadata, folder)
        portable = metadata["precision"] != "bfloat16"  # of PyTorch: other libraries round at other places
        if not whole_pictures:
            write_backbone(metadata, args, folder / "backbone.safetensors")
        if portable and not whole_pictures:
            export_onnx(metadata, folder / "backbone.safetensors", folder / NETWORK)
        settings = {
            "name": args.name,
            "segmenter": segmenter,
            "isolation": isolation,
            "detector": detector,
            "depth": args.depth or "8",  # without the option, all files have 8 bits
            "network": {key: metadata[key] for key in NETWORK_KEYS if key in metadata},
            **verdict_settings(metrics, labelled),
            "regions": entries["regions"],
            "look": entries["look"],
            **map_settings(args.predictions, load_maps(args.maps), metrics, entries["look"]["vmax_quantile"]),
            "versions": versions(LIBRARIES),
        }
        (folder / "README.md").write_text(card(settings, metrics, read_json(args.fit), args.kinds), encoding="utf-8")
        write_manifest(folder, settings)
        if whole_pictures:
            try:
                export_pictures(torch_detector(read_bundle(folder)), metadata["input_size"], folder / NETWORK)
            except UserError as error:
                print(f"WARNING: {error}. The bundle has no {NETWORK} and runs with PyTorch alone.", file=sys.stderr)
                portable = False
            write_manifest(folder, settings)
        elif tables := numpy_detector(read_bundle(folder)).tables():
            save_arrays({key: np.ascontiguousarray(value) for key, value in tables.items()}, folder / SEARCH)
            write_manifest(folder, settings)
        write_held_out(folder, args, metrics)
        if portable:
            try:
                check_parity(folder, args.manifest)
            except Differs as error:  # e.g. other libraries resize a transformer's position embeddings differently
                (folder / NETWORK).unlink()
                print(f"WARNING: {error}. The bundle has no {NETWORK} and runs with PyTorch alone.", file=sys.stderr)
        write_manifest(folder, settings)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.bundling.bundle", description=__doc__)
    what = "JSON: segmenter, isolation, detector (entries of the config), regions and look (its sections)"
    parser.add_argument("--entries", required=True, help=what)
    parser.add_argument("--name", required=True, help="name of the run, e.g. demo/template/zero_out/patchcore")
    parser.add_argument("--prior", type=Path, help="prior.safetensors, if there are masks")
    parser.add_argument("--model", type=Path, help="model.pt of segment (sam2.1)")
    parser.add_argument("--train-json", type=Path, help="train.json of segment (sam2.1)")
    parser.add_argument("--checkpoint", type=Path, help="weights of SAM 2.1 (prompted), unless they are packaged")
    parser.add_argument("--encoder", type=Path, help="ONNX file (sam_onnx)")
    parser.add_argument("--decoder", type=Path, help="ONNX file (sam_onnx)")
    parser.add_argument("--pairs", type=Path, help="pairs.csv, for the window of an isolation with crop")
    parser.add_argument("--kinds", type=Path, help="namer.safetensors of classify, to name kinds of defects")
    parser.add_argument("--banks", type=Path, required=True, help="banks.safetensors")
    parser.add_argument("--fold-banks", type=Path, required=True, help="fold_banks.safetensors, of the same fit")
    parser.add_argument("--fit", type=Path, required=True, help="fit.json")
    parser.add_argument("--weights", type=Path, help="weights of the backbone, unless they are packaged")
    parser.add_argument("--allow-downloads", action="store_true", help="allow timm to download the weights of the tag")
    add_seed(parser, "seed for the weights of an untrained network")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--splits", type=Path, required=True, help="SPLITS table, for the folds of the photographs")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="manifest.csv, to choose photographs to compare on"
    )
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    add_option(parser)
    add_threads(parser, 1)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
