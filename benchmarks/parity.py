"""Scores and image AUROC on a real set: defectflow's stages against stock anomalib's `Engine.fit` and `predict`.

Every picture is brought to the size of the network's input once, as PNG; both read the same files, use the same
weights and score images by the re-weighted maximum, over all patches. Where a coreset starts is drawn: each program
fits with two seeds, which tells what a seed moves. Then defectflow scores with the bank of anomalib's first fit, which
must give the same, and so must the whole bank (ratio 1).

    python benchmarks/parity.py --mvtec data/bottle --weights resnet18.safetensors
    python benchmarks/parity.py --run results/hawk/template/zero_out --weights resnet18.safetensors --splits 5

An MVTec folder has its split; of a run's isolated pictures, one half of the good ones, drawn anew for each split, is
learned, and the other half is judged with the bad ones.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import mean
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow import features, fit, score, tables
from defectflow.images import letterbox, read_rgb, write_png
from fit import anomalib_model

Pictures = dict[str, int]  # path of a picture: label


def mvtec_split(folder: Path) -> tuple[list[str], Pictures]:
    """Pictures to learn, and those to judge with their labels."""
    test = {str(path): int(path.parent.name != "good") for path in sorted(folder.glob("test/*/*"))}
    return sorted(map(str, folder.glob("train/good/*"))), test


def drawn_split(run: Path, seed: int) -> tuple[list[str], Pictures]:
    """One half of a run's good pictures to learn; the other half and the bad ones to judge."""
    table = pd.concat([tables.read_table(path, tables.ISOLATED) for path in sorted(run.glob("images/*.csv"))])
    labels = tables.read_table(run.parents[1] / "splits.csv", tables.SPLITS).set_index("image_id")["label"]
    label = table["image_id"].map(labels)
    good, bad = sorted(table.loc[label == 0, "image"]), sorted(table.loc[label == 1, "image"])
    good = [good[i] for i in np.random.default_rng(seed).permutation(len(good))]
    learned = len(good) // 2
    return good[:learned], dict.fromkeys(good[learned:], 0) | dict.fromkeys(bad, 1)


def defectflow_fit(folder: Path, args: argparse.Namespace, ratio: float, seed: int) -> None:
    """Features of all pictures and the bank of those in ``folder``/train."""
    paths = [path for part in ("train", "test") for path in sorted((folder / part).iterdir())]
    size = args.image_size
    rows = [[p.stem, str(p), "", 0, 0, size, size, size, size, "", ""] for p in paths]
    tables.write_table(folder / "t.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
    rows = [[p.stem, "", 0 if p.parent.name == "train" else "", "", p.parent.name, "", ""] for p in paths]
    tables.write_table(folder / "s.csv", pd.DataFrame(rows, columns=tables.SPLITS), tables.SPLITS)
    run_stage(
        features, "--tables", folder / "t.csv", "--backbone", args.backbone, "--weights", args.weights,
        "--image-size", size, "--out", folder / "f.safetensors", "--threads", args.threads, "--device", "cpu",
    )  # fmt: skip
    run_stage(
        fit, "--features", folder / "f.safetensors", "--splits", folder / "s.csv", "--coreset-ratio", ratio,
        "--coreset-max", 10**9, "--seed", seed, "--out", folder / "b.safetensors", "--report", folder / "fit.json",
        "--threads", args.threads, "--device", "cpu",
    )  # fmt: skip


def defectflow_scores(folder: Path, args: argparse.Namespace, bank: torch.Tensor | None = None) -> np.ndarray:
    """Raw scores of the pictures in ``folder``/test, in the order of their names; with ``bank`` in place of its own."""
    banks = folder / "b.safetensors"
    if bank is not None:
        with safe_open(banks, "pt") as file:
            metadata = file.metadata()
        save_file({"all": bank.contiguous()}, banks, metadata)
    run_stage(
        score, "--features", folder / "f.safetensors", "--banks", banks, "--splits", folder / "s.csv",
        "--scores", folder / "scores.csv", "--maps", folder / "m.safetensors", "--threads", args.threads,
        "--device", "cpu",
    )  # fmt: skip
    return tables.read_table(folder / "scores.csv", tables.SCORES).sort_values("image_id")["raw_score"].to_numpy()


def run_stage(stage: ModuleType, *options: object) -> None:
    stage.main(stage.build_parser().parse_args([str(option) for option in options]))


def anomalib_run(folder: Path, args: argparse.Namespace, ratio: float, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """The same scores from anomalib, and its bank."""
    from anomalib.data import Folder, PredictDataset
    from anomalib.engine import Engine
    from lightning import seed_everything
    from torch.utils.data import DataLoader

    seed_everything(seed)
    torch.set_num_threads(args.threads)
    args.ratio = ratio
    model = anomalib_model(args)
    engine = Engine(
        default_root_dir=folder / "anomalib", accelerator="cpu", devices=1, enable_progress_bar=False,
        limit_val_batches=0,
    )  # fmt: skip
    data = Folder(
        name="x", root=folder, normal_dir="train", normal_split_ratio=0, test_split_mode="none", val_split_mode="none",
        num_workers=0, seed=seed,
    )  # fmt: skip
    engine.fit(model=model, datamodule=data)
    model.post_processor = None  # raw scores
    data = PredictDataset(path=folder / "test", image_size=(args.image_size, args.image_size))
    loader = DataLoader(data, batch_size=1, collate_fn=data.collate_fn)
    batches = engine.predict(model=model, dataloaders=loader)
    found = {Path(batch.image_path[0]).name: float(batch.pred_score) for batch in batches}
    return np.array([found[name] for name in sorted(found)]), model.model.memory_bank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mvtec", type=Path, help="folder with train/good and test/<defect>")
    source.add_argument("--run", type=Path, help="results/<dataset>/<segmenter>/<isolation>")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--splits", type=int, default=5, help="of a run's pictures")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    splits = [mvtec_split(args.mvtec)] if args.mvtec else [drawn_split(args.run, seed) for seed in range(args.splits)]
    print("AUROC with seeds 0 and 1; the last two columns: defectflow with anomalib's bank of seed 0")
    print("| ratio | split | learned | good, bad | anomalib | defectflow | same bank | scores differ, relative |")
    print("|---|---|---|---|---|---|---|---|")
    for ratio in args.ratios:
        means = []
        for number, (learned, judged) in enumerate(splits):
            labels = list(judged.values())
            ours, peer = [], []
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for part, paths in (("train", learned), ("test", list(judged))):
                    for i, path in enumerate(paths):
                        picture, _ = letterbox(read_rgb(path), (args.image_size, args.image_size))
                        write_png(folder / part / f"{part}{i:04}.png", picture)
                for seed in (0, 1) if ratio < 1 else (0,):
                    defectflow_fit(folder, args, ratio, seed)
                    ours.append(defectflow_scores(folder, args))
                    peer.append(anomalib_run(folder, args, ratio, seed))
                scores, bank = peer[0]
                same = defectflow_scores(folder, args, bank)
            found = [
                [roc_auc_score(labels, values) for values in runs]
                for runs in ([scores for scores, _ in peer], ours, [same])
            ]
            told = " | ".join(", ".join(f"{value:.4f}" for value in values) for values in found)
            differ = np.abs(same - scores).max() / scores.mean()
            sizes = f"{len(learned)} | {labels.count(0)}, {labels.count(1)}"
            print(f"| {ratio} | {number} | {sizes} | {told} | {differ:.1e} |", flush=True)
            means.append([mean(values) for values in found[:2]])
        told = " | ".join(f"{mean(values):.4f}" for values in zip(*means, strict=True))
        print(f"| {ratio} | mean | | | {told} | | |", flush=True)


if __name__ == "__main__":
    main()
