"""Stage next_to_label: list the photographs without a label whose labels would say most; see `next_labels`."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from defectflow.core import tables
from defectflow.core.files import stage
from defectflow.labelling.labels_that_say_most import WHY, next_labels

COUNT = 20  # photographs listed


def main(args: argparse.Namespace) -> None:
    """Write next_to_label.csv."""
    columns = ["filename", "raw_score", "label", "threshold", "image_id"]
    table = tables.read_table(args.predictions, columns)
    unknown = table["label"].isna()
    rows = []
    if unknown.any():
        known = load_file(args.looks)
        row_of = {image_id: row for row, image_id in enumerate(known["image_ids"].tobytes().decode().split("\n"))}
        rows_of = [row_of.get(image_id, -1) for image_id in table["image_id"]]
        look = np.concatenate([known["looks"], np.full_like(known["looks"][:1], np.nan)])[rows_of]
        # Photographs without a label have the threshold for new ones, or those of their folds.
        threshold = float(table.loc[unknown, "threshold"].median())
        score, label = (table[column].to_numpy(float) for column in ("raw_score", "label"))
        for place, one in enumerate(next_labels(score, label, threshold, look, COUNT), 1):
            row = table.iloc[one.row]
            rows.append([place, row["filename"], row["raw_score"], row["threshold"], WHY[one.why], row["image_id"]])
    tables.write_table(args.out, pd.DataFrame(rows, columns=tables.NEXT_TO_LABEL), tables.NEXT_TO_LABEL)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.labelling.next_to_label", description=__doc__)
    parser.add_argument("--looks", required=True, help="looks.safetensors of check_labels")
    parser.add_argument("--predictions", required=True, help="predictions.csv")
    parser.add_argument("--out", type=Path, required=True, help="next_to_label.csv to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
