"""Stage survey: decode, measure and hash the images of one shard.

It reads only pictures. Ingest, which sees all shards at once, reads labels and annotations and decides whether a
problem stops the run. So a corrected label does not cause pictures to be decoded again.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pandas as pd

from defectflow.core.arguments import add_threads
from defectflow.core.files import stage, write_json
from defectflow.core.tables import MANIFEST, write_table
from defectflow.images.bit_depth import add_option
from defectflow.images.image_checks import inspect_all
from defectflow.listing.folders import Folders
from defectflow.listing.image_names import id_maker, shard_of
from defectflow.listing.links import roots
from defectflow.sources.dataset import image_names
from defectflow.sources.source_options import add_folder_options, resolved_of


def main(args: argparse.Namespace) -> None:
    """Write the sound images of a shard as a table (tables.MANIFEST without labels) and a report on all images."""
    resolved = resolved_of(args)
    folders = Folders(resolved)
    shard, shards = (int(number) for number in args.shard.split("/"))
    image_id = id_maker(lambda: image_names(resolved, folders))
    names = sorted(name for name in image_names(resolved, folders) if shard_of(image_id(name), shards) == shard)
    paths = {name: os.path.join(resolved["images"], name) for name in names}
    with ThreadPoolExecutor(args.threads) as pool:
        pictures = inspect_all(paths, roots(resolved), pool, args.depth)
    rows = [
        {"image_id": image_id(name), "path": paths[name], "sha256": picture.sha256}
        | {"width": picture.size[0], "height": picture.size[1]}
        for name, picture in pictures.items()
        if not picture.problem
    ]
    table = pd.DataFrame(rows, columns=MANIFEST, dtype=object).fillna("").sort_values("image_id")
    write_json(args.report, {name: asdict(picture) for name, picture in pictures.items()})
    write_table(args.out, table, MANIFEST)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.data.survey", description=__doc__)
    add_folder_options(parser)
    parser.add_argument("--shard", default="0/1", metavar="K/N", help="only the images of shard K of N")
    add_option(parser)
    add_threads(parser, min(4, os.cpu_count() or 1), "decoding threads")
    parser.add_argument("--out", required=True, metavar="shard.csv")
    parser.add_argument("--report", required=True, metavar="shard.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
