"""Stage categories: the categories of one benchmark side by side, with their mean and the published figures."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from defectflow.core.files import UserError, read_json, stage
from defectflow.core.tables import read_table, write_table

# PatchCore on MVTec AD: the paper (Roth et al. 2022; WideResNet-50, 10 % bank, 224 px; AU-PRO as mean only; the pixel
# AUROC of transistor is not quoted alike everywhere and left out) and anomalib's README (256 px, 10 %).
PUBLISHED = Path(__file__).parent / "published" / "mvtec_ad.csv"
OURS = ["image_auroc", "pixel_auroc", "au_pro"]
COLUMNS = ["category", "n_good", "n_bad", *OURS]
PEERS = {"paper": "paper", "anomalib_wrn50": "anomalib WRN50", "anomalib_r18": "anomalib R18"}


def row_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of one metrics.json; pixel figures are those of the full frame, as in all publications."""
    image, pixel = metrics["image"], metrics["pixel"]["full_frame"] or {}
    return {
        "n_good": image["n_good"],
        "n_bad": image["n_bad"],
        "image_auroc": image["auroc"],
        "pixel_auroc": pixel.get("auroc"),
        "au_pro": pixel.get("au_pro"),
    }


def with_mean(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Rows of COLUMNS, a row with their mean, and the published figures of each category beside them.

    The published mean is computed over the categories here, or is the one in the publication if all are here.
    """
    mean = {"category": "mean", **rows[OURS].mean(), **rows[["n_good", "n_bad"]].sum()}
    table = pd.concat([rows, pd.DataFrame([mean])], ignore_index=True)
    table = table.merge(published, on="category", how="left")
    peers = published.columns[1:]
    if set(rows["category"]) != set(published["category"]) - {"mean"}:
        known = table.loc[table["category"] != "mean", peers]
        # A mean over fewer categories than ours would not be comparable.
        table.loc[table["category"] == "mean", peers] = known.mean().where(known.notna().all()).to_numpy()
    return table


def text(table: pd.DataFrame) -> str:
    """The table for a terminal, figures in percent: image AUROC / pixel AUROC / AU-PRO."""
    kinds = ["image_auroc", "pixel_auroc", "au_pro"]

    def figures(row: pd.Series, prefix: str) -> str:
        values = [row.get(f"{prefix}{kind}") for kind in kinds]
        return " / ".join("   -" if pd.isna(value) else f"{100 * value:4.1f}" for value in values)

    lines = ["image AUROC / pixel AUROC / AU-PRO, %"]
    lines.append(f"{'category':<14}{'good':>5}{'bad':>5}   {'here':<20}" + "".join(f"{n:<20}" for n in PEERS.values()))
    for _, row in table.iterrows():
        beside = "".join(f"{figures(row, prefix):<20}" for prefix in ("", *(f"{peer}_" for peer in PEERS)))
        lines.append(f"{row['category']:<14}{int(row['n_good']):>5}{int(row['n_bad']):>5}   {beside}".rstrip())
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    """Read every metrics.json, write the table and print it."""
    if len(args.names) != len(args.metrics):
        raise UserError(f"--names: {len(args.names)} for {len(args.metrics)} files of metrics (give one for each)")
    rows = []
    for name, path in zip(args.names, args.metrics, strict=True):
        try:
            rows.append({"category": name, **row_of(read_json(path))})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a metrics file of the evaluate stage ({error})") from None
    numbers = dict.fromkeys(OURS, float)
    table = with_mean(pd.DataFrame(rows, columns=COLUMNS).astype(numbers), read_table(PUBLISHED))
    write_table(args.out, table, list(table.columns))
    print(text(table))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.reporting.categories", description=__doc__)
    parser.add_argument("--names", nargs="+", required=True, help="of the categories")
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each, in this order")
    parser.add_argument("--out", type=Path, required=True, help="table to write (.csv)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
