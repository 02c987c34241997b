"""Coreset thresholds: whether a threshold keeps the rate it was asked for if the memory bank is a small coreset.

For each run folder, whose features are taken as they are: folds of five seeds, banks of five shares of the patches,
scores and thresholds as the stages `fit`, `score`, `calibrate` and `evaluate` make them. "recall" is what
target_recall gives of the 0.9 asked, "false alarms" what max_fpr gives of the 0.1 asked, both nested: the threshold
of a fold is chosen on the others. "new" is the share of bad photographs that the bank of all good ones puts at or
above the threshold for new photographs: no bad one is in any bank, but they took part in choosing that threshold.
Printed are mean, smallest and largest value over the seeds. One photograph of hawk's nine bad ones is 0.11.

    snakemake --cores all --config 'detectors={small: {method: patchcore, image_size: 256}}' detector=small 'compare=[]'
    python benchmarks/coreset_thresholds.py results/demo/template/crop/small
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

import numpy as np
import pandas as pd
import torch
from defectflow.core.tables import CALIBRATION, read_table
from defectflow.data.split import split
from defectflow.decision import decisions
from defectflow.detection.calibrate import plan, score_all
from defectflow.detection.feature_files import PatchFile, open_patches
from defectflow.detection.fit import bank_members
from defectflow.detection.training_patches import load_good
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.metrics import metrics

RECALL, ALARMS = 0.9, 0.1


def measure(files: list[PatchFile], manifest: pd.DataFrame, settings: PatchCoreSettings, seed: int) -> dict[str, Any]:
    """recall, alarms, new, AUROC and the size of the bank, of one seed and one share."""
    splits = split(manifest, None, "auto", seed)
    splits = splits[splits["detection"] == "fold"]
    good = load_good(files, splits, PatchCore, settings, seed)
    fit = PatchCore.fit(good, settings, seed)
    places = {item["image_id"]: (file, i) for file in files for i, item in enumerate(file.items)}
    scores, final, size = {}, {}, 0
    for name, kept in bank_members(good.images, splits).items():
        if name.startswith("group/"):
            continue
        tensors = fit(torch.tensor(kept))
        detector = PatchCore(tensors, PatchCore.metadata(settings), settings)
        judged = splits["label"] == 1 if name == "all" else splits["fold"] == name.removeprefix("fold/")
        for image_id in splits["image_id"][judged]:
            file, item = places[image_id]
            value, _ = detector.judge(file.patches(item), file.position(item))
            (final if name == "all" else scores)[image_id] = value
        size = len(tensors[""]) if name == "all" else size
    plans = [bank for bank in plan(splits, good.images) if bank.protocol == "fold"]
    rows = [scored[:4] for scored in score_all(plans, files, good, PatchCore, settings, seed)]
    table = splits.assign(raw_score=splits["image_id"].map(scores)).reset_index(drop=True)
    table = decisions.with_calibration(table, pd.DataFrame(rows, columns=CALIBRATION))
    recall = decisions.assign_verdicts(table, "target_recall", {"recall": RECALL})
    alarms = decisions.assign_verdicts(table, "max_fpr", {"max_fpr": ALARMS}).table
    return {
        "recall": recall.table.loc[table["label"] == 1, "predicted_label"].mean(),
        "alarms": alarms.loc[table["label"] == 0, "predicted_label"].mean(),
        "new": np.mean([value >= recall.threshold.value for value in final.values()]),
        "auroc": metrics.auroc(table["label"].to_numpy(int), table["raw_score"].to_numpy(float)),
        "size": size,
    }


def main() -> None:
    """Print the table as Markdown, each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, .../dataset/segmenter/isolation/detector")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1, 1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--distance", choices=["euclidean", "cosine"], default="cosine")
    parser.add_argument("--score", choices=["max", "top_k_mean", "percentile"], default="percentile")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    columns = f"recall, {RECALL} asked | false alarms, {ALARMS} asked | new photographs: recall | AUROC"
    print(f"| photographs | coreset | patches | {columns} |\n|{'---|' * 7}", flush=True)
    for run in args.runs:
        files = open_patches(sorted((run / "features").glob("*.safetensors")))
        dataset = run.parents[2]
        manifest = read_table(dataset / "manifest.csv", ["image_id", "group", "label", "split"])
        for share in args.shares:
            found = []
            for seed in range(args.seeds):
                how = {"coreset_max": 10**9, "distance": args.distance, "score": args.score}
                found.append(measure(files, manifest, PatchCoreSettings(coreset_ratio=share, **how), seed))
            spread = {key: [row[key] for row in found] for key in found[0]}
            cells = [
                f"{np.mean(spread[key]):.2f} ({min(spread[key]):.2f} to {max(spread[key]):.2f})"
                for key in ("recall", "alarms", "new", "auroc")
            ]
            print(f"| {dataset.name} | {share:.0%} | {found[0]['size']} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
