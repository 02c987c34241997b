"""The tables of docs/kinds.md, in Markdown, from what `snakemake imbalance` and `snakemake study` have written.

python benchmarks/kinds.py --imbalance results/casting/none/none/kind_imbalance/imbalance.csv
"""

import argparse
from pathlib import Path

import pandas as pd

TIERS = ("many", "medium", "few")


def text(row: dict, name: str) -> str:
    """A figure with its interval; "" without one."""
    if pd.isna(row[name]):
        return ""
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def print_imbalance(table: pd.DataFrame) -> None:
    """Recall of frequent and rare classes at every imbalance."""
    print("| imbalance | balance | accuracy | balanced | recall, many | medium | few |\n|---|---|---|---|---|---|---|")
    for row in table.to_dict("records"):
        at = f"{row['imbalance']:g}"
        at += f" ({row['reached']:.0f} reached)" if row["reached"] < 0.9 * row["imbalance"] else ""
        cells = [text(row, tier) for tier in TIERS]
        figures = f"{row['accuracy']:.3f} | {row['balanced_accuracy']:.3f} | {' | '.join(cells)}"
        print(f"| {at} | `{row['balance']}` | {figures} |")


def print_study(table: pd.DataFrame) -> None:
    """A study, the settings of the config first."""
    axes = list(table.columns[: list(table.columns).index("n")])
    print(f"| {' | '.join(axes)} | accuracy | kind, if bad | difference |\n|{'---|' * (len(axes) + 3)}")
    for row in table.to_dict("records"):
        cells = [*(str(row[axis]) for axis in axes), text(row, "accuracy"), text(row, "kind_if_bad")]
        cells.append(f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})")
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imbalance", type=Path, help="imbalance.csv")
    parser.add_argument("--study", type=Path, help="study.csv")
    args = parser.parse_args()
    if args.imbalance:
        print_imbalance(pd.read_csv(args.imbalance))
    if args.study:
        print_study(pd.read_csv(args.study))


if __name__ == "__main__":
    main()
