"""Stage leaderboard: the main figures of several runs side by side, best AUROC first."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from defectflow.files import UserError, read_json, stage
from defectflow.tables import write_table

RECIPE = ["dataset", "segmenter", "isolation", "detector"]
COLUMNS = [
    "main", *RECIPE, "held_out_iou", "auroc", "auroc_low", "auroc_high", "group_out_auroc", "average_precision", "f1",
    "accuracy", "precision", "recall", "pixel_auroc", "au_pro", "threshold", "n_samples",
]  # fmt: skip


def held_out_iou(segmentation: dict[str, Any]) -> float | None:
    """Mean held-out IoU of the masks a run used: of the segmenter that most of its masks come from."""
    sources = segmentation.get("masks", {}).get("sources", {})
    if not sources:
        return None
    source = max(sorted(sources), key=lambda name: sources[name])
    for report in (segmentation.get("train", {}), segmentation.get("prior", {})):
        if isinstance(entry := report.get(source), dict) and entry.get("iou_mean") is not None:
            return entry["iou_mean"]
    return None


def row_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of one metrics.json in the columns of the leaderboard; pixel figures are those of the full
    frame, the only ones that runs with and without masks have in common.
    """
    pixel = metrics["pixel"]["full_frame"] or {}
    low, high = metrics["confidence_intervals"]["auroc"] or (None, None)
    return {
        **{key: metrics[key] for key in ("auroc", "f1", "accuracy", "precision", "recall", "n_samples")},
        "average_precision": metrics["image"]["average_precision"],
        "held_out_iou": held_out_iou(metrics["segmentation"]),
        "auroc_low": low,
        "auroc_high": high,
        "group_out_auroc": metrics["image"].get("leave_group_out", {}).get("auroc"),
        "pixel_auroc": pixel.get("auroc"),
        "au_pro": pixel.get("au_pro"),
        "threshold": metrics["threshold"]["value"],
    }


def main(args: argparse.Namespace) -> None:
    """Read every metrics.json, write the table."""
    rows = []
    for path in args.metrics:
        recipe = path.parent.parts[-4:]
        if len(recipe) < 4:
            raise UserError(f"{path}: expected .../dataset/segmenter/isolation/detector/{path.name}")
        try:
            figures = row_of(read_json(path))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a metrics file of the evaluate stage ({error})") from None
        rows.append({**dict(zip(RECIPE, recipe, strict=True)), "main": int("/".join(recipe) == args.main), **figures})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.astype({"auroc": float}).sort_values(
        ["dataset", "auroc", *RECIPE[1:]], ascending=[True, False, True, True, True], kind="stable"
    )
    write_table(args.out, table, COLUMNS)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.leaderboard", description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each run")
    parser.add_argument("--main", help="dataset/segmenter/isolation/detector of the run to mark in column main")
    parser.add_argument("--out", type=Path, required=True, help="leaderboard.csv to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
