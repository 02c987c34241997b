"""What is done for rare kinds of defects, and what it brings: the tables in docs/kinds.md.

Reads files of descriptors that `snakemake kinds` has made. In every fold the training side is thinned out to an
imbalance, classes by their names from the most to the least frequent one; the held-out side stays whole. Writes
imbalance.csv and prints tables; with --study also that of a study.csv.

    python benchmarks/kinds.py results/casting/none/none/kind_descriptors/own.safetensors --out imbalance.csv
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from defectflow.classification.cross_validation import class_names, labels_of
from defectflow.classification.descriptor_files import Descriptors, read_descriptors
from defectflow.classification.heads import fit_head
from defectflow.classification.residual_fusion import tiers
from defectflow.classification.settings import KindSettings
from defectflow.metrics.metrics import wilson

BALANCES = ("none", "effective_number", "logit_adjustment", "reslt")
TIERS = ("many", "medium", "few")


def wanted(counts: np.ndarray, imbalance: float) -> np.ndarray:
    """Photographs of each class for an imbalance: geometric from the largest to the smallest, at least 1 of each.

    The numbers are as large as the set allows.
    """
    steps = np.arange(len(counts)) / max(1, len(counts) - 1)
    shares = imbalance**-steps
    result: np.ndarray = np.maximum(1, np.floor(shares * (counts / shares).min() + 1e-9)).astype(int)
    return result


def thinned(labels: np.ndarray, rows: np.ndarray, imbalance: float, rng: np.random.Generator) -> np.ndarray:
    """Rows that stay of those to learn from."""
    counts = np.bincount(labels[rows])
    keep = wanted(counts, imbalance)
    return np.concatenate([rng.permutation(rows[labels[rows] == k])[: keep[k]] for k in range(len(keep))])


def measure(found: Descriptors, imbalance: float, balance: str, repeats: int, with_good: bool) -> list[dict]:
    """Recall by tier, accuracy and balanced accuracy of every repeat pooled."""
    labels, names = labels_of(found), class_names(found)
    folds = found.known["fold"].to_numpy(int)
    used = np.ones(len(labels), bool) if with_good else labels > 0
    labels = labels - (0 if with_good else 1)
    names = names if with_good else names[1:]
    settings = KindSettings.from_dict({"balance": balance}, "kinds").only_for("classify")
    hits, n, tier = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names), int)
    for repeat in range(repeats):
        for fold in np.unique(folds):
            rng = np.random.default_rng([repeat, fold])
            train = thinned(labels, np.flatnonzero(used & (folds != fold)), imbalance, rng)
            test = np.flatnonzero(used & (folds == fold))
            features = found.held_out[fold]
            called = fit_head(features[train], labels[train], len(names), settings, repeat)(features[test]).argmax(
                axis=1
            )
            n += np.bincount(labels[test], minlength=len(names))
            hits += np.bincount(labels[test][called == labels[test]], minlength=len(names))
            tier = tiers(np.bincount(labels[train], minlength=len(names)))
    recall = hits / n
    row = {"imbalance": imbalance, "balance": balance, "accuracy": hits.sum() / n.sum(), "balanced": recall.mean()}
    for number, name in enumerate(TIERS):
        own = tier == number
        row[name] = recall[own].mean() if own.any() else np.nan
        low, high = wilson(hits[own].sum() / repeats, round(n[own].sum() / repeats)) if own.any() else (np.nan, np.nan)
        row |= {f"{name}_low": low, f"{name}_high": high}
    return [row]


def text(value: float, low: float, high: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("descriptors", type=Path)
    parser.add_argument("--imbalances", type=float, nargs="+", default=[1, 10, 50])
    parser.add_argument("--repeats", type=int, default=5, help="draws of the photographs that stay")
    parser.add_argument("--kinds-alone", action="store_true", help="without good photographs")
    parser.add_argument("--study", type=Path, help="study.csv, to print as a table")
    parser.add_argument("--out", type=Path, default=Path("imbalance.csv"))
    args = parser.parse_args()
    found = read_descriptors(args.descriptors)
    rows = []
    for imbalance in args.imbalances:
        for balance in BALANCES:
            rows += measure(found, imbalance, balance, args.repeats, not args.kinds_alone)
    table = pd.DataFrame(rows)
    table.round(4).to_csv(args.out, index=False)
    print("| imbalance | balance | accuracy | balanced | recall, many | medium | few |\n|---|---|---|---|---|---|---|")
    for row in table.itertuples():
        cells = [text(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))) for name in TIERS]
        print(
            f"| {row.imbalance:g} | `{row.balance}` | {row.accuracy:.3f} | {row.balanced:.3f} | {' | '.join(cells)} |"
        )
    if args.study:
        print_study(pd.read_csv(args.study))


def print_study(table: pd.DataFrame) -> None:
    """A study as a Markdown table, the settings of the config first."""
    axes = list(table.columns[: list(table.columns).index("n")])
    print(f"\n| {' | '.join(axes)} | accuracy | kind, if bad | difference |\n|{'---|' * (len(axes) + 3)}")
    for row in table.to_dict("records"):
        cells = [str(row[axis]) for axis in axes]
        cells.append(text(row["accuracy"], row["accuracy_low"], row["accuracy_high"]))
        cells.append(text(row["kind_if_bad"], row["kind_if_bad_low"], row["kind_if_bad_high"]))
        cells.append(f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
