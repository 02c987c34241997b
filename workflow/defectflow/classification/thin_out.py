"""Stage thin_out: how kinds fare that are rarer and rarer, and what each way to help them brings.

In every fold the photographs to learn from are thinned out to an imbalance: the classes in the order of their numbers,
each rarer than the one before by the same factor, as many photographs as the set allows. The held-out side stays whole.
Writes a folder: imbalance.csv, a row for each imbalance and way, and classes.csv, the recall of every class in these.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.classification.cross_validation import class_names, labels_of
from defectflow.classification.descriptor_files import Descriptors, read_descriptors
from defectflow.classification.heads.fit_head import fit_head
from defectflow.classification.heads.residual_fusion import tiers
from defectflow.classification.settings import KindSettings
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.files import atomic_dir, stage
from defectflow.core.tables import write_table
from defectflow.metrics.metrics import wilson

IMBALANCES = (1, 10, 50)  # photographs of the most frequent class to one of the rarest
BALANCES = ("none", "effective_number", "logit_adjustment", "reslt")
REPEATS = 3  # draws of the photographs that stay
TIERS = ("many", "medium", "few")
COLUMNS = [
    "imbalance", "reached", "balance", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy",
    *(f"{tier}{end}" for tier in TIERS for end in ("", "_low", "_high")),
]  # fmt: skip
OF_CLASS = [
    "imbalance",
    "reached",
    "balance",
    "class",
    "tier",
    "learned_from",
    "n",
    "recall",
    "recall_low",
    "recall_high",
]


def wanted(counts: np.ndarray, imbalance: float) -> np.ndarray:
    """Photographs of each class for an imbalance, int (k,): geometric, at least 1 of each, as many as the set allows.

    >>> wanted(np.array([40, 20, 40]), 4).tolist()
    [40, 10, 20]
    """
    order = np.argsort(-counts, kind="stable")
    steps = np.empty(len(counts))
    steps[order] = np.arange(len(counts)) / max(1, len(counts) - 1)
    shares = imbalance**-steps
    result: np.ndarray = np.maximum(1, np.floor(shares * (counts / shares).min() + 1e-9)).astype(int)
    return result


def thinned(labels: np.ndarray, rows: np.ndarray, imbalance: float, rng: np.random.Generator) -> np.ndarray:
    """Those of ``rows`` that stay to learn from; ``labels``: int (n,), of all photographs."""
    present, classes = np.unique(labels[rows], return_inverse=True)
    keep = wanted(np.bincount(classes), imbalance)
    return np.concatenate([rng.permutation(rows[classes == k])[: keep[k]] for k in range(len(present))])


def measure(
    found: Descriptors, strength: float, imbalance: float, balance: str, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of COLUMNS, and one of OF_CLASS for every class; folds and draws pooled.

    Intervals are Wilson's, of as many photographs as there are: draws add none.
    """
    labels, names = labels_of(found), class_names(found)
    folds, k = found.known["fold"].to_numpy(int), len(names)
    head = KindSettings.from_dict({"balance": balance, "strength": strength}, "kinds").only_for("classify")
    hits, n, learned = np.zeros(k), np.bincount(labels, minlength=k), []
    for repeat in range(REPEATS):
        for fold in np.unique(folds):
            rng = np.random.default_rng([seed, repeat, fold])
            train, test = thinned(labels, np.flatnonzero(folds != fold), imbalance, rng), folds == fold
            features = found.held_out[fold]
            called = fit_head(features[train], labels[train], k, head, seed)(features[test]).argmax(axis=1)
            hits += np.bincount(labels[test][called == labels[test]], minlength=k) / REPEATS
            learned.append(np.bincount(labels[train], minlength=k))
    counts = np.mean(learned, axis=0)
    reached, recall, tier = float(counts.max() / counts.min()), hits / n, tiers(counts)
    about = {"imbalance": imbalance, "reached": reached, "balance": balance}
    row = about | _share("accuracy", hits.sum(), n.sum()) | {"balanced_accuracy": recall.mean()}
    for number, name in enumerate(TIERS):
        own = tier == number
        row |= _share(name, hits[own].sum(), n[own].sum()) | ({name: recall[own].mean()} if own.any() else {})
    of_class = [
        about | {"class": name, "tier": TIERS[tier[c]], "learned_from": counts[c], "n": int(n[c])}
        | _share("recall", hits[c], n[c]) for c, name in enumerate(names)
    ]  # fmt: skip
    return row, of_class


def _share(name: str, hits: float, n: int) -> dict[str, float]:
    low, high = wilson(hits, n) or (np.nan, np.nan)
    return {name: hits / n if n else np.nan, f"{name}_low": low, f"{name}_high": high}


def main(args: argparse.Namespace) -> None:
    """Measure, write both tables, print the first."""
    found = read_descriptors(args.descriptors)
    rows, of_classes = [], []
    pairs = [(imbalance, balance) for imbalance in IMBALANCES for balance in BALANCES]
    for imbalance, balance in tqdm(pairs, desc="thin_out", unit="row"):
        row, of_class = measure(found, args.strength, imbalance, balance, args.seed)
        rows.append(row)
        of_classes += of_class
    with atomic_dir(args.out) as folder:
        write_table(folder / "imbalance.csv", pd.DataFrame(rows).round(4), COLUMNS)
        write_table(folder / "classes.csv", pd.DataFrame(of_classes).round(4), OF_CLASS)
    for row in rows:
        if row["balance"] == BALANCES[0] and row["reached"] < 0.9 * row["imbalance"]:
            print(f"imbalance {row['imbalance']}: the set has too few photographs, {row['reached']:.1f} is reached")
        few = "" if np.isnan(row["few"]) else f", few {row['few']:.3f}"
        print(f"imbalance {row['imbalance']}, {row['balance']}: balanced {row['balanced_accuracy']:.3f}{few}")
    print(f"{args.out}/imbalance.csv")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.thin_out", description=__doc__)
    parser.add_argument("--descriptors", type=Path, required=True, help="file of the stage describe")
    parser.add_argument("--strength", type=float, default=0.01, help="of the linear head (%(default)s)")
    add_seed(parser)
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
