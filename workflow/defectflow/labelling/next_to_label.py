"""Stage next_to_label: list the photographs without a label whose labels would say most; see `next_labels`."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from defectflow.core import tables
from defectflow.core.arguments import add_threads
from defectflow.core.files import stage
from defectflow.core.parallel import in_threads
from defectflow.detection.feature_files import open_patches
from defectflow.labelling.next_labels import WHY, next_labels

COUNT = 20  # photographs listed


def main(args: argparse.Namespace) -> None:
    """Write next_to_label.csv."""
    torch.set_num_threads(args.threads)
    columns = ["filename", "raw_score", "label", "threshold", "image_id"]
    table = tables.read_table(args.predictions, columns)
    unknown = table["label"].isna()
    rows = []
    if unknown.any():
        look = looks(args.features, table["image_id"].tolist())
        # Photographs without a label have the threshold for new ones, or those of their folds.
        threshold = float(table.loc[unknown, "threshold"].median())
        score, label = (table[column].to_numpy(float) for column in ("raw_score", "label"))
        for place, one in enumerate(next_labels(score, label, threshold, look, COUNT), 1):
            row = table.iloc[one.row]
            rows.append([place, row["filename"], row["raw_score"], row["threshold"], WHY[one.why], row["image_id"]])
    tables.write_table(args.out, pd.DataFrame(rows, columns=tables.NEXT_TO_LABEL), tables.NEXT_TO_LABEL)


def looks(features: list[str], image_ids: list[str]) -> np.ndarray:
    """The mean patch of each photograph, scaled to unit length: float32 (n, d), NaN for one without patches."""
    files = open_patches(features)
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    places = [
        (row_of[item["image_id"]], file, i)
        for file in files
        for i, item in enumerate(file.items)
        if item["image_id"] in row_of and not item["copy_of"]
    ]
    result = np.full((len(image_ids), files[0].dimensions), np.nan, np.float32)
    means = in_threads(lambda place: place[1].patches(place[2]).mean(dim=0), places)
    for (row, *_), mean in zip(places, tqdm(means, total=len(places), desc="look", unit="image"), strict=True):
        result[row] = torch.nn.functional.normalize(mean, dim=0).numpy()
    return result


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.labelling.next_to_label", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--predictions", required=True, help="predictions.csv")
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="next_to_label.csv to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
