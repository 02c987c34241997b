"""Stage vary: compare the variants of a study on the same held-out photographs.

Writes a folder: study.csv and study.html.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.classification.cross_validation import held_out_logits, labels_of
from defectflow.classification.descriptor_files import Descriptors, read_descriptors
from defectflow.classification.kind_figures import RESAMPLES, accuracy_of, balanced
from defectflow.classification.settings import KindSettings
from defectflow.config.settings_flag import read_settings
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.core.tables import write_table
from defectflow.reporting.html_pages import write_page

FIGURES = [
    "n", "accuracy", "accuracy_low", "accuracy_high", "worst_fold", "best_fold", "balanced_accuracy",
    "balanced_low", "balanced_high", "kind_if_bad", "kind_if_bad_low", "kind_if_bad_high", "difference",
    "difference_low", "difference_high", "trained_network",
]  # fmt: skip


def difference(right: np.ndarray, first: np.ndarray, units: np.ndarray, seed: int) -> list[float]:
    """Accuracy minus that of the first variant, and its 95 % interval by a bootstrap of whole units.

    Args:
        right, first: bool (n,).
        units: (n,), unit of each; photographs of one unit are drawn together.
    """
    gain = right.astype(float) - first.astype(float)
    _, number = np.unique(units, return_inverse=True)
    sums, sizes = np.bincount(number, gain), np.bincount(number)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    return [float(gain.mean()), float(low), float(high)]


def row_of(found: Descriptors, settings: Any, seed: int, first: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray]:
    """FIGURES of a variant, and which photographs it classifies correctly; ``first``: those of the first variant."""
    labels, folds = labels_of(found), found.known["fold"].to_numpy(int)
    logits = held_out_logits(found, settings, seed)
    right, bad = logits.argmax(axis=1) == labels, labels > 0
    all_of, kind = accuracy_of(right), accuracy_of((1 + logits[:, 1:].argmax(axis=1) == labels)[bad])
    value, span = balanced(labels, right, seed)
    groups = found.known["group"].where(found.known["group"] != "", found.known["image_id"]).to_numpy(str)
    apart = difference(right, right if first is None else first, groups, seed)
    of_folds = [float(right[folds == fold].mean()) for fold in np.unique(folds)]
    figures = [
        all_of["n"], all_of["accuracy"], *all_of["interval"], min(of_folds), max(of_folds), value, *span,
        kind["accuracy"], *kind["interval"], *apart, found.about["network"]["trained"],
    ]  # fmt: skip
    return dict(zip(FIGURES, figures, strict=True)), right


def study(networks: dict[str, Path], variants: list[dict[str, Any]], seed: int) -> pd.DataFrame:
    """The table of a study: the columns of its axes, then FIGURES; the others are compared with the first row.

    Args:
        networks: file of descriptors of each network.
        variants: network, axes and settings (as the stage classify reads them) of each.
        seed: of heads and of the bootstrap.
    """
    found = {name: read_descriptors(path) for name, path in networks.items()}
    rows, first = [], None
    for variant in tqdm(variants, desc="study", unit="variant"):
        settings = read_settings(json.dumps(variant["settings"]), KindSettings, "classify")
        figures, right = row_of(found[variant["network"]], settings, seed, first)
        first = right if first is None else first
        rows.append(variant["axes"] | figures)
    return pd.DataFrame(rows, columns=[*variants[0]["axes"], *FIGURES])


def main(args: argparse.Namespace) -> None:
    """Evaluate every variant, write the table and the page."""
    variants = json.loads(args.variants)
    if len(variants) < 2:
        raise UserError("kinds.study varies nothing (set e.g. kinds: {study: {head: [linear, nearest]}})")
    networks = dict(name.split("=", 1) for name in args.descriptors)
    table = study({name: Path(path) for name, path in networks.items()}, variants, args.seed)
    axes = list(variants[0]["axes"])
    with atomic_dir(args.out) as folder:
        write_table(folder / "study.csv", table.round(6), list(table.columns))
        order = table.sort_values("accuracy", ascending=False, kind="stable")
        write_page(folder / "study.html", "study.html", name=args.name, axes=axes, rows=order.to_dict("records"),
                   n=int(table["n"][0]), own=table.iloc[0].to_dict())  # fmt: skip
    best = table.iloc[int(table["accuracy"].argmax())]
    said = ", ".join(f"{axis} {best[axis]}" for axis in axes)
    print(f"{args.out}/study.html: {len(table)} variants; best {best['accuracy']:.3f}: {said}")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.vary", description=__doc__)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--descriptors", nargs="+", required=True, metavar="NETWORK=FILE", help="of every network")
    parser.add_argument(
        "--variants", required=True, help="list of {network, axes, settings} as JSON, that of the config first"
    )
    add_seed(parser)
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
