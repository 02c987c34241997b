"""Stage normal_embed: what a centroid detector has learned, and its threshold, in one small JSON file.

To score a photograph elsewhere, only this file and the backbone are needed: fit the isolated picture into
``fitted_size`` (height, width; padded with black, or where there is a ``rim`` with the picture mirrored, by as many
pixels at least), cut ``input_size`` from its middle, divide by 255, subtract ``mean``, divide by ``std``; concatenate
the maps of ``layers`` (3 x 3 averages, enlarged to the grid of the first); average over the cells of the part, scale
to unit length, and the score is 1 - the product with ``centroid``. The photograph is bad if the score is at least
``threshold``.
"""

import argparse
from pathlib import Path

from defectflow.backbones.input_statistics import input_statistics
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError, read_json, stage, write_json

KEPT = ("backbone", "layers", "precision", "fitted_size", "input_size", "foreground_only", "dilation")


def main(args: argparse.Namespace) -> None:
    """Write the centroid of all good images, the settings it was made with, and the threshold."""
    banks = BankFile(args.banks)
    metadata = banks.settings
    if metadata["method"] != "centroid":
        raise UserError(f"{args.banks}: fitted by {metadata['method']} (give the banks of a centroid detector)")
    threshold = read_json(args.metrics)["threshold"]
    write_json(
        args.out,
        {
            **{key: metadata[key] for key in (*KEPT, "rim") if key in (*KEPT, *metadata)},
            **dict(zip(("mean", "std"), input_statistics(metadata["backbone"]), strict=True)),
            "centroid": [float(f"{value:.9g}") for value in banks.tensors("all")[""][0]],
            "threshold": threshold["value"],
            "threshold_strategy": {"name": threshold["strategy"], **threshold["options"]},
        },
    )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.normal_embed", description=__doc__)
    parser.add_argument("--banks", type=Path, required=True, help="banks of the fit stage")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json: the threshold")
    parser.add_argument("--out", type=Path, required=True, help="normal_embed.json to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
