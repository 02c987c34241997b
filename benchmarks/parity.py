"""Scores, image AUROC, pixel AUROC and AU-PRO of defectflow's stages against stock anomalib's `fit` and `predict`.

Every picture is brought to the size of the network's input once, as PNG; both read the same files, use the same
weights and score images by the re-weighted maximum, over all patches. Where a coreset starts, and the projection it is
selected in, are random: each program fits with ``--seeds`` seeds. This shows how much a seed changes and, with many
seeds, whether the programs differ by more. Then defectflow scores with the bank of anomalib's first fit, which must
give the same scores, and so must the whole bank (ratio 1).

    python benchmarks/parity.py --mvtec data/mvtec/* --weights resnet18.safetensors --ratios 0.1
    python benchmarks/parity.py --run results/hawk/template/zero_out --weights resnet18.safetensors --splits 5

Pixel figures, where an MVTec folder has ground truth, are on maps of the size of the network's input, as each program
makes them of its patch scores. An MVTec folder has its split; of a run's isolated pictures, one half of the good ones,
drawn anew for each split, is learned, and the other half is judged with the bad ones.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.core import tables
from defectflow.core.anomaly_maps import load_maps, smooth_map
from defectflow.detection import features, fit, score
from defectflow.images.read_write import letterbox, read_mask, read_rgb, write_png
from defectflow.metrics.pixel_curves import PixelCurves
from fit import anomalib_model


class Split(NamedTuple):
    """What is compared on: paths of pictures.

    Attributes:
        name: to print.
        learned: good pictures.
        judged: pictures and their labels.
        truths: ground-truth mask of each bad picture; empty where there are none.
    """

    name: str
    learned: list[str]
    judged: dict[str, int]
    truths: dict[str, Path]


class Result(NamedTuple):
    """Raw scores of the judged pictures, float (n,), and their maps, float (n, size, size)."""

    scores: np.ndarray
    maps: np.ndarray


def mvtec_split(folder: Path) -> Split:
    """The split of a folder in the MVTec layout."""
    judged = {str(path): int(path.parent.name != "good") for path in sorted(folder.glob("test/*/*"))}
    truths = {}
    for path in map(Path, judged):
        found = sorted((folder / "ground_truth" / path.parent.name).glob(f"{path.stem}*.png"))
        truths |= {str(path): found[0]} if found else {}
    return Split(folder.name, sorted(map(str, folder.glob("train/good/*"))), judged, truths)


def drawn_split(run: Path, seed: int) -> Split:
    """One half of a run's good pictures to learn; the other half and the bad ones to judge."""
    table = pd.concat([tables.read_table(path, tables.ISOLATED) for path in sorted(run.glob("images/*.csv"))])
    labels = tables.read_table(run.parents[1] / "splits.csv", tables.SPLITS).set_index("image_id")["label"]
    label = table["image_id"].map(labels)
    good, bad = sorted(table.loc[label == 0, "image"]), sorted(table.loc[label == 1, "image"])
    good = [good[i] for i in np.random.default_rng(seed).permutation(len(good))]
    learned = len(good) // 2
    return Split(str(seed), good[:learned], dict.fromkeys(good[learned:], 0) | dict.fromkeys(bad, 1), {})


def areas(split: Split, result: Result) -> list[float]:
    """Image AUROC, and with ground truth pixel AUROC and AU-PRO."""
    found = [roc_auc_score(list(split.judged.values()), result.scores)]
    if split.truths:
        size = result.maps.shape[1:]
        curves = PixelCurves(result.maps.min(), result.maps.max())
        for path, heat in zip(split.judged, result.maps, strict=True):
            truth = split.truths.get(path)
            if split.judged[path] and truth is None:
                continue  # a bad picture without a mask counts in no pixel figure
            curves.add(heat, letterbox(read_mask(truth), size)[0] > 0 if truth else None)
        figures = curves.figures()
        found += [figures["auroc"], figures["au_pro"]]
    return found


def defectflow_fit(folder: Path, args: argparse.Namespace, ratio: float, seed: int) -> None:
    """Features of all pictures and the bank of those in ``folder``/train."""
    paths = [path for part in ("train", "test") for path in sorted((folder / part).iterdir())]
    size = args.image_size
    rows = [[p.stem, str(p), "", 0, 0, size, size, 0.0, size, size, "", "", 0] for p in paths]
    tables.write_table(folder / "t.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
    rows = [[p.stem, "", 0 if p.parent.name == "train" else "", "", p.parent.name, "", ""] for p in paths]
    tables.write_table(folder / "s.csv", pd.DataFrame(rows, columns=tables.SPLITS), tables.SPLITS)
    run_stage(
        features, "--tables", folder / "t.csv", "--weights", args.weights,
        "--settings", json.dumps({"backbone": args.backbone, "image_size": size}),
        "--out", folder / "f.safetensors", "--threads", args.threads, "--device", "cpu",
    )  # fmt: skip
    run_stage(
        fit, "--features", folder / "f.safetensors", "--splits", folder / "s.csv", "--settings",
        json.dumps({"method": "patchcore", "coreset_ratio": ratio, "coreset_max": 10**9}),
        "--seed", seed, "--out", folder / "b.safetensors", "--report", folder / "fit.json",
        "--threads", args.threads, "--device", "cpu",
    )  # fmt: skip


def defectflow_result(folder: Path, args: argparse.Namespace, bank: torch.Tensor | None = None) -> Result:
    """Scores of the pictures in ``folder``/test, in the order of their names; with ``bank`` in place of its own."""
    banks = folder / "b.safetensors"
    if bank is not None:
        with safe_open(banks, "pt") as file:
            metadata = file.metadata()
        save_file({"all": bank.contiguous()}, banks, metadata)
    run_stage(
        score, "--features", folder / "f.safetensors", "--banks", banks, "--splits", folder / "s.csv",
        "--settings", '{"method": "patchcore"}', "--scores", folder / "scores.csv", "--maps", folder / "m.safetensors",
        "--threads", args.threads,
        "--device", "cpu",
    )  # fmt: skip
    table = tables.read_table(folder / "scores.csv", tables.SCORES).sort_values("image_id")
    maps = load_maps([folder / "m.safetensors"])
    smooth = [smooth_map(maps[i].grid_map, maps[i].input_size) for i in table["image_id"]]
    return Result(table["raw_score"].to_numpy(), np.stack(smooth))


def run_stage(stage: ModuleType, *options: object) -> None:
    stage.main(stage.build_parser().parse_args([str(option) for option in options]))


def anomalib_run(folder: Path, args: argparse.Namespace, ratio: float, seed: int) -> tuple[Result, torch.Tensor]:
    """The same from anomalib, and its bank."""
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
    batches = sorted(batches, key=lambda batch: Path(batch.image_path[0]).name)
    maps = np.stack([batch.anomaly_map.squeeze().float().numpy() for batch in batches])
    return Result(np.array([float(batch.pred_score) for batch in batches]), maps), model.model.memory_bank


def compare(split: Split, ratio: float, args: argparse.Namespace) -> tuple[list[list[float]], list[list[float]], str]:
    """`areas` of anomalib's fits and of ours, and the text on ours with anomalib's first bank."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, paths in (("train", split.learned), ("test", list(split.judged))):
            for i, path in enumerate(paths):
                picture, _ = letterbox(read_rgb(path), (args.image_size, args.image_size))
                write_png(folder / part / f"{part}{i:04}.png", picture)
        ours, peers = [], []
        for seed in range(args.seeds if ratio < 1 else 1):
            defectflow_fit(folder, args, ratio, seed)
            ours.append(defectflow_result(folder, args))
            peers.append(anomalib_run(folder, args, ratio, seed))
        peer, bank = peers[0]
        same = defectflow_result(folder, args, bank)
    differ = np.abs(same.scores - peer.scores).max() / peer.scores.mean()
    told = " / ".join(f"{value:.4f}" for value in areas(split, same)) + f" | {differ:.1e}"
    return [areas(split, result) for result, _ in peers], [areas(split, result) for result in ours], told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mvtec", type=Path, nargs="+", help="folders with train/good and test/<defect>")
    source.add_argument("--run", type=Path, help="results/<dataset>/<segmenter>/<isolation>")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--splits", type=int, default=5, help="of a run's pictures")
    parser.add_argument("--seeds", type=int, default=2, help="fits of each program")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.mvtec:
        splits = [mvtec_split(folder) for folder in args.mvtec]
    else:
        splits = [drawn_split(args.run, seed) for seed in range(args.splits)]
    print("image AUROC / pixel AUROC / AU-PRO of each seed; same bank: defectflow with anomalib's of seed 0")
    print("| ratio | split | learned | good, bad | anomalib | defectflow | same bank | scores differ, relative |")
    print("|---|---|---|---|---|---|---|---|")

    def text(values: list[float]) -> str:
        return " / ".join(f"{value:.4f}" for value in values)

    for ratio in args.ratios:
        means = []
        for split in splits:
            peers, ours, told = compare(split, ratio, args)
            labels = list(split.judged.values())
            sizes = f"{len(split.learned)} | {labels.count(0)}, {labels.count(1)}"
            runs = " | ".join(", ".join(map(text, found)) for found in (peers, ours))
            print(f"| {ratio} | {split.name} | {sizes} | {runs} | {told} |", flush=True)
            means.append([np.mean(peers, axis=0), np.mean(ours, axis=0)])
            if len(peers) > 2:
                spreads = [np.std(found, axis=0, ddof=1) / len(found) ** 0.5 for found in (peers, ours)]
                told = " | ".join(f"{text(m)} ± {text(s)}" for m, s in zip(means[-1], spreads, strict=True))
                print(f"| {ratio} | {split.name}, mean ± standard error | | | {told} | | |", flush=True)
        if len({len(peer) for peer, _ in means}) == 1:
            told = " | ".join(text(values) for values in np.mean(means, axis=0))
            print(f"| {ratio} | mean | | | {told} | | |", flush=True)


if __name__ == "__main__":
    main()
