"""Stage screen: list the photographs without a label that stand far from all others; they are not learned from.

For sets whose photographs are taken as mostly good: see `far_photographs`. Photographs that are labelled bad are not
compared with; those labelled good are never listed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from defectflow.core import tables
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.files import stage
from defectflow.decision.decisions import file_name
from defectflow.detection.feature_files import open_patches
from defectflow.labelling.far_photographs import far_photographs
from defectflow.labelling.photograph_distances import compare


def main(args: argparse.Namespace) -> None:
    """Write candidates.csv."""
    torch.set_num_threads(args.threads)
    manifest = tables.read_table(args.manifest, ["image_id", "path", "label", "group"])
    known = manifest[manifest["label"] != 1].set_index("image_id")
    compared = compare(
        open_patches(args.features), known["group"].to_dict(), seed=args.seed, folder=args.out.resolve().parent
    )
    found = far_photographs(compared)
    ids = np.array(compared.image_ids, object)
    listed = found.far & known["label"].reindex(ids).isna().to_numpy()
    order = sorted(np.flatnonzero(listed), key=lambda row: (-found.distance[row], ids[row]))
    others = ~listed[compared.references]
    rows = []
    for row in order:
        nearest = compared.nearest(int(row), others)
        beside = "" if nearest is None else ids[nearest]
        names = [file_name(known.loc[name, "path"], name) if name else "" for name in (ids[row], beside)]
        rows.append([names[0], found.distance[row], found.limit, names[1], ids[row], beside])
    tables.write_table(args.out, pd.DataFrame(rows, columns=tables.CANDIDATES), tables.CANDIDATES)
    what = "one cloud" if found.compact else "many views"
    print(
        f"{len(rows)} of {len(ids)} photographs stand far from all others ({what}): not learned from, see {args.out}",
        file=sys.stderr,
    )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.labelling.screen", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--manifest", required=True, help="manifest.csv")
    add_threads(parser)
    add_seed(parser, "seed of the draw of photographs to compare with")
    parser.add_argument("--out", type=Path, required=True, help="candidates.csv to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
