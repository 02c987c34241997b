"""Photographs without labels, and with wrong ones: what a few bad photographs cost, and whether they are found.

    python benchmarks/label_noise.py unlabelled ../inspection/cookie results/demo/template/crop/patchcore/features
    python benchmarks/label_noise.py flipped ../inspection/casting --good 110 --bad 40

A set is a folder of photographs that the workflow takes as ``path`` of a data set, seen whole at --image-size pixels,
or the folder ``features`` of a finished run below results/<name>/, whose patches are taken as they are.

- unlabelled: PatchCore learns from six tenths of the good photographs and some bad ones beside them, 0, 5, 10 and 20 %
  of all it learns from. The other photographs are the test, the same at each share: bad ones that are mixed in at any
  share are in none. AUROC of the bank without bad ones, and what is lost by the plain bank, and by the bank without the
  photographs that stand far from all others (`labelling.far_photographs`). No label is seen but by the AUROC. Mean, and
  smallest to largest, over the seeds.
- labeller: a set of the good photographs and a quarter as many bad ones, none with a label; somebody labels 20 of them,
  five at a time as `labels_that_say_most` lists them, or 20 or 40 at random. The threshold has the largest F1 on the
  labelled ones. F1 of the verdicts on all photographs; mean and standard deviation over the seeds (of the random ones,
  each seed is a mean of ten draws). Scores are distances from the photographs that do not stand far from the others.
- flipped: one label in twenty is turned over. The share of these among the first tenth of the photographs as
  `labelling.doubtful_labels` lists them, and how many it lists; mean and smallest over the seeds.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

import numpy as np
import pandas as pd
import torch
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core.tables import read_table
from defectflow.decision.chosen_threshold import calibrate
from defectflow.detection.feature_files import PatchFile, open_patches, write_patches
from defectflow.images.read_write import letterbox, read_rgb
from defectflow.labelling.doubtful_labels import doubtful_labels
from defectflow.labelling.far_photographs import far_photographs
from defectflow.labelling.labels_that_say_most import next_labels
from defectflow.labelling.photograph_distances import Compared, compare
from defectflow.methods.detector import GoodPatches
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.sources.dataset import image_paths, image_rows
from defectflow.sources.dataset_entry import resolve
from sklearn.metrics import roc_auc_score

SHARES = (0.0, 0.05, 0.1, 0.2)


class Set(NamedTuple):
    """Photographs of a set: their patch files, names, and labels (1 bad)."""

    name: str
    files: list[PatchFile]
    places: dict[str, tuple[PatchFile, int]]
    label: dict[str, int]


def load(path: Path, args: argparse.Namespace) -> Set:
    """The labelled photographs of a folder, or of the features of a run; a sample where --good or --bad asks for it."""
    if path.name == "features":
        dataset = path.parents[3]
        files = open_patches(sorted(path.glob("*.safetensors")))
        table = read_table(dataset / "manifest.csv", ["image_id", "label"], lambda part: part["label"].notna())
        label = dict(zip(table["image_id"], table["label"].astype(int), strict=True))
        name = dataset.name
    else:
        files, label = [embed(path, args)], {}
        name, label = path.name, {item["image_id"]: item["label"] for item in files[0].items}
    places = {
        item["image_id"]: (file, i)
        for file in files
        for i, item in enumerate(file.items)
        if item["image_id"] in label and not item["copy_of"] and file.present[i]
    }
    rng = np.random.default_rng(0)
    kept: list[str] = []
    for kind, most in ((0, args.good), (1, args.bad)):
        own = sorted(image_id for image_id in places if label[image_id] == kind)
        kept += sorted(rng.permutation(own)[:most]) if most else own
    return Set(name, files, {image_id: places[image_id] for image_id in kept}, {i: label[i] for i in kept})


def embed(path: Path, args: argparse.Namespace) -> PatchFile:
    """Patches of the labelled photographs of a folder, in a file that is used again."""
    target = args.cache / f"{path.name}-{args.image_size}.safetensors"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        resolved = resolve({"path": str(path)})
        paths = image_paths(resolved)
        rows, _ = image_rows(resolved, paths)
        known = [name for name in paths if rows[name]["label"]]
        network, size = PatchEmbedder("patch-nano", ["layer2", "layer3"]), args.image_size
        items = [
            {"image_id": name, "copy_of": "", "kind": "", "label": int(rows[name]["label"]), "doubtful": False}
            for name in known
        ]
        first = network(np.zeros((1, size, size, 3), np.uint8))
        config = {"items": items, "grid": list(first.shape[1:3]), "backbone": "patch-nano"}
        with write_patches(target, config, first.shape[3], torch.float16) as writer:
            for name in known:
                patches = network(letterbox(read_rgb(paths[name]), (size, size))[0][None])[0].flatten(0, 1)
                writer.add(patches, np.arange(len(patches)), np.zeros((2, 3)), True)
    return PatchFile(target)


def part(compared: Compared, rows: np.ndarray, references: np.ndarray) -> Compared:
    """Some of the photographs, compared with some; both are rows of ``compared``, whose references are all."""
    place = {int(row): k for k, row in enumerate(rows)}
    own = np.array([place[int(row)] for row in references], int)
    cells = compared.cells[np.ix_(rows, np.arange(compared.cells.shape[1]), references)]
    return Compared([compared.image_ids[row] for row in rows], own, cells, compared.whole[np.ix_(rows, references)])


def auroc_of(data: Set, learned: list[str], judged: list[str], settings: PatchCoreSettings) -> float:
    """AUROC on ``judged`` of a bank of all patches of ``learned``."""
    read = [file.patches(i) for file, i in (data.places[name] for name in learned)]
    owner = torch.repeat_interleave(torch.arange(len(read)), torch.tensor([len(patches) for patches in read]))
    patches, table = torch.cat(read), pd.DataFrame({"image_id": learned})
    empty = torch.zeros(len(patches), dtype=torch.int64)
    good = GoodPatches(
        patches, empty, owner, table, 0, len(patches), torch.stack([p.mean(dim=0) for p in read]), (1, 1)
    )
    tensors = PatchCore.fit(good, settings)(torch.ones(len(read), dtype=torch.bool))
    bank = PatchCore(tensors, PatchCore.metadata(settings), settings)
    scores = [bank.judge(file.patches(i), file.position(i))[0] for file, i in (data.places[name] for name in judged)]
    return float(roc_auc_score([data.label[name] for name in judged], scores))


def auroc_of_cells(data: Set, compared: Compared, learned: list[str], judged: list[str]) -> float:
    """The same by the cells that photographs are compared by: a bank of means of patches."""
    row_of = {name: row for row, name in enumerate(compared.image_ids)}
    bank = np.zeros(len(compared.references), bool)
    bank[[row_of[name] for name in learned]] = True
    scores = compared.farthest_cell(bank, lambda count: 1)[[row_of[name] for name in judged]]
    return float(roc_auc_score([data.label[name] for name in judged], scores))


def unlabelled(
    data: Set, compared: Compared, seed: int, settings: PatchCoreSettings, cells: bool
) -> dict[float, dict[str, float]]:
    """Losses at each share of bad ones, and the AUROC of the clean bank."""

    def auroc(learned: list[str]) -> float:
        if cells:
            return auroc_of_cells(data, compared, learned, judged)
        return auroc_of(data, learned, judged, settings)

    rng, row_of = np.random.default_rng(seed), {name: row for row, name in enumerate(compared.image_ids)}
    good, bad = (rng.permutation([n for n in data.places if data.label[n] == kind]).tolist() for kind in (0, 1))
    count = round(0.6 * len(good))
    pool = round(0.25 * count)
    judged = good[count:] + bad[pool:]
    clean = auroc(good[:count])
    result = {}
    for share in SHARES:
        mixed = good[:count] + bad[: round(share / (1 - share) * count)]
        rows = np.array(sorted(row_of[name] for name in mixed))
        found = far_photographs(part(compared, rows, rows))
        far = {compared.image_ids[row] for row in rows[found.far]}
        plain = clean if not share else auroc(mixed)
        kept = [name for name in mixed if name not in far]
        result[share] = {
            "clean": clean,
            "plain": clean - plain,
            "robust": clean - (auroc(kept) if far else plain),
            "bad left out": np.mean([name in far for name in mixed[count:]]) if share else np.nan,
            "good left out": np.mean([name in far for name in mixed[:count]]),
            "compact": found.compact,
        }
    return result


def flipped(data: Set, compared: Compared, seed: int) -> tuple[float, int]:
    """Share of the turned labels among the first tenth listed, and the length of the list."""
    names, rng = compared.image_ids, np.random.default_rng(seed)
    label = np.array([data.label[name] for name in names], float)
    turned = rng.permutation(len(names))[: max(2, round(0.05 * len(names)))]
    label[turned] = 1 - label[turned]
    rows = np.arange(len(names))
    found = doubtful_labels(part(compared, rows, np.flatnonzero(label == 0)), label)
    first = set(found["image_id"][: -(-len(names) // 10)])
    return float(np.mean([names[row] in first for row in turned])), len(found)


def labeller(data: Set, compared: Compared, look: np.ndarray, seed: int) -> dict[str, float]:
    """F1 after labels of each kind."""
    rng = np.random.default_rng(seed)
    bad = rng.permutation([row for row, name in enumerate(compared.image_ids) if data.label[name]])
    good = np.array([row for row, name in enumerate(compared.image_ids) if not data.label[name]])
    rows = np.sort(np.concatenate([good, bad[: round(0.25 * len(good))]]))
    own = part(compared, rows, rows)
    far = far_photographs(own)
    score = own.farthest_cell(~far.far, lambda count: 1)
    label = np.array([data.label[compared.image_ids[row]] for row in rows])
    usual = np.sort(score[~far.far])
    start = usual[int(np.ceil(0.95 * len(usual))) - 1]

    def f1_of(known: np.ndarray) -> float:
        called = score >= calibrate(score[known], label[known]).value
        return float(2 * (called & (label == 1)).sum() / (called.sum() + label.sum()))

    told = np.full(len(rows), np.nan)
    while np.isfinite(told).sum() < 20:
        for one in next_labels(score, told, start, look[rows], 5):
            told[one.row] = label[one.row]
    result = {"next 20": f1_of(np.isfinite(told)), "all": f1_of(label >= 0)}
    for count in (20, 40):
        result[f"random {count}"] = np.mean([f1_of(rng.permutation(len(rows))[:count]) for _ in range(10)])
    return result


def plot(lost: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw what is lost at each share, by set: the plain bank and the robust one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(lost), figsize=(2.4 * len(lost), 2.6), sharey=True, layout="constrained")
    for axis, (name, curves) in zip(np.atleast_1d(axes), lost.items(), strict=True):
        for (kind, values), colour in zip(curves.items(), ("#c2410c", "#1d6fb8"), strict=True):
            axis.plot([f"{share:.0%}" for share in SHARES], values, marker="o", markersize=4, color=colour, label=kind)
        axis.axhline(0, color="#999999", linewidth=0.8, zorder=0)
        axis.set_title(name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("AUROC lost")
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=8)
    figure.supxlabel("bad photographs among those that are learned from", fontsize=9)
    figure.savefig(path, dpi=120)


def spread(values: list[float], show: Callable[[float], str] = "{:.3f}".format) -> str:
    """Mean, and smallest to largest."""
    return f"{show(float(np.mean(values)))} ({show(min(values))} to {show(max(values))})"


def main() -> None:
    """Print the table as Markdown, each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["unlabelled", "labeller", "flipped"])
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--good", type=int, help="take so many good photographs of each set")
    parser.add_argument("--bad", type=int, help="and so many bad ones")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--coreset", type=int, default=10_000, help="largest number of patches in a bank")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="unlabelled: also draw the losses")
    parser.add_argument(
        "--cells", action="store_true", help="unlabelled: a bank of cells of 2 x 2 patches or more: fast"
    )
    parser.add_argument("--cache", type=Path, default=Path("results/benchmarks/label_noise"), metavar="FOLDER")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    settings = PatchCoreSettings(coreset_max=args.coreset)
    if args.what == "unlabelled":
        print("| set | bad | AUROC, clean bank | lost, plain bank | lost, robust bank | bad left out | good left out |")
        print("|---|---|---|---|---|---|---|")
    elif args.what == "labeller":
        print("| set | F1, 20 labels as listed | 20 at random | 40 at random | all |\n|---|---|---|---|---|")
    else:
        print("| set | photographs | turned, in the first tenth | listed |\n|---|---|---|---|")
    lost: dict[str, dict[str, list[float]]] = {}
    for path in args.sets:
        data = load(path, args)
        # Every photograph is a reference: parts of them are drawn for each seed.
        from defectflow.labelling import photograph_distances

        photograph_distances.REFERENCES = len(data.places)
        compared = compare(data.files, dict.fromkeys(data.places, ""))
        if args.what == "labeller":
            means = [data.places[name][0].patches(data.places[name][1]).mean(dim=0) for name in compared.image_ids]
            look = torch.nn.functional.normalize(torch.stack(means), dim=1).numpy()
            found = [labeller(data, compared, look, seed) for seed in range(args.seeds)]
            cells = [[one[key] for one in found] for key in ("next 20", "random 20", "random 40", "all")]
            shown = " | ".join(f"{np.mean(cell):.3f} ± {np.std(cell):.3f}" for cell in cells)
            print(f"| {data.name} | {shown} |", flush=True)
            continue
        if args.what == "flipped":
            turned = [flipped(data, compared, seed) for seed in range(args.seeds)]
            first, listed = ([float(run[k]) for run in turned] for k in (0, 1))
            print(f"| {data.name} | {len(data.places)} | {spread(first, '{:.2f}'.format)} | {np.mean(listed):.0f} |")
            continue
        runs = [unlabelled(data, compared, seed, settings, args.cells) for seed in range(args.seeds)]
        for share in SHARES:
            own = {key: [float(run[share][key]) for run in runs] for key in runs[0][share]}
            curves = lost.setdefault(data.name, {"plain bank": [], "without those that stand far": []})
            for curve, key in zip(curves.values(), ("plain", "robust"), strict=True):
                curve.append(float(np.mean(own[key])))
            print(
                f"| {data.name} | {share:.0%} | {np.mean(own['clean']):.3f} | {spread(own['plain'])} | "
                f"{spread(own['robust'])} | {np.mean(own['bad left out']):.0%} | {np.mean(own['good left out']):.0%} |",
                flush=True,
            )
    if args.plot and lost:
        plot(lost, args.plot)


if __name__ == "__main__":
    main()
