"""What each precision of an exported network costs: AUROC of held-out photographs, and how far their scores move.

    python benchmarks/precision.py results/demo/template/crop/patchcore

The folder is that of a run with its bundle (target ``bundle`` of the workflow). Every labelled photograph is scored by
the bank of the run without its fold, in float32: only the network changes. int8 is calibrated on the first 32 good
photographs. OpenVINO's int8 needs nncf.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.backbones.network_input import scales_of
from defectflow.backbones.openvino_network import compiled
from defectflow.bundling.export import CALIBRATION
from defectflow.bundling.onnx_and_openvino import to_onnx, to_openvino
from defectflow.core import tables
from defectflow.detection.feature_files import PatchFile
from defectflow.detection.features import load_item, read_isolated
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.mask_and_score import read_bank, settings_of
from defectflow.inspection.runtimes import NETWORK, _onnx
from defectflow.methods.numpy_registry import DETECTORS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    bundle = read_bundle(args.run / "bundle")
    settings, entry = read_bank(bundle)[1], bundle.settings["detector"]
    config = PatchFile(next((args.run / "features").glob("*.safetensors"))).config
    table = read_isolated(sorted((args.run.parent / "images").glob("*.csv")))
    pictures = {row.image_id: row for row in table.itertuples()}
    scores = [tables.read_table(path, tables.SCORES) for path in sorted((args.run / "scores").glob("*.csv"))]
    splits = tables.read_table(args.run.parents[2] / "splits.csv", ["image_id", "label", "detection"])
    labels = splits[splits["detection"] == "fold"].set_index("image_id")["label"]
    rows = [r for scored in scores for r in scored[scored["kind"] == ""].itertuples() if r.image_id in labels.index]
    sizes = tuple(config["fitted_size"]), tuple(config["input_size"]), scales_of(config)
    part = config["foreground_only"], config["dilation"]
    items = {row.image_id: load_item(pictures[row.image_id], *sizes, *part) for row in rows}
    good = [items[row.image_id].picture for row in rows if labels[row.image_id] == 0][:CALIBRATION]
    banks = load_file(args.run / "banks.safetensors")
    detectors = {}
    for name in sorted({row.bank for row in rows}):
        tensors = {k[len(name) + 1 :]: v for k, v in banks.items() if k == name or k.startswith(f"{name}/")}
        detectors[name] = DETECTORS[entry["method"]](tensors, settings, settings_of(bundle, "detector"))
    truth = [int(labels[row.image_id]) for row in rows]
    own = np.array([row.raw_score for row in rows])
    print(f"{len(rows)} photographs, {sum(truth)} bad; the run's own AUROC: {roc_auc_score(truth, own):.4f}")
    print("| runtime | precision | AUROC | largest deviation of a raw score |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for kind, precision in (("openvino", "fp32"), ("openvino", "fp16"), ("openvino", "int8"), ("onnx", "int8")):
            write = {"openvino": to_openvino, "onnx": to_onnx}[kind]
            target = Path(name) / f"{kind}-{precision}.{'xml' if kind == 'openvino' else 'onnx'}"
            write(bundle.path(NETWORK), target, precision, good)
            embed = compiled(target, threads=args.threads) if kind == "openvino" else _onnx(target, args.threads, 1)
            found = []
            for row in rows:
                item = items[row.image_id]
                found.append(detectors[row.bank].judge(embed(item.picture)[item.cells], item.cells)[0])
            moved = np.abs(np.array(found) / own - 1).max()
            print(f"| {kind} | {precision} | {roc_auc_score(truth, found):.4f} | {moved:.2%} |", flush=True)


if __name__ == "__main__":
    main()
