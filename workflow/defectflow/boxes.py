"""Stage boxes: the damaged regions of every scored image, as a table and as COCO results.

A region lies above the pixel threshold of its image (map_threshold in predictions.csv), which was chosen on other
images. Boxes and pixels are those of the upright photograph.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.anomaly_maps import full_resolution, load_maps
from defectflow.coco import entries_by_name
from defectflow.dataset import read_coco
from defectflow.files import stage, write_json
from defectflow.images import read_mask
from defectflow.regions import coco_result, find_regions
from defectflow.tables import REGIONS, read_table, write_table
from defectflow.threads import in_order


def coco_ids(names: Mapping[str, str], annotations: Path | None) -> dict[str, Any]:
    """{image_id: id in the COCO file}; images that are not in it are numbered on from its largest number.

    Args:
        names: {image_id: name relative to the image folder}.
        annotations: COCO file of the data set; None: images are numbered from 1, by name.
    """
    known: dict[str, Any] = {}
    if annotations:
        entries, _ = entries_by_name(read_coco(annotations), names.values())
        known = {name: entry["id"] for name, entry in entries.items()}
    last = max((number for number in known.values() if isinstance(number, int)), default=0)
    for name in sorted(set(names.values()) - known.keys()):
        last += 1
        known[name] = last
    return {image_id: known[name] for image_id, name in names.items()}


def main(args: argparse.Namespace) -> None:
    """Find the regions of all images, several at a time; write regions.csv and regions.json."""
    cv2.setNumThreads(1)
    options = {key: getattr(args, key) for key in ("min_area", "max_area", "merge", "max_aspect")}
    sizes = read_table(args.manifest, ["image_id", "height", "width"]).set_index("image_id")
    predictions = read_table(args.predictions, ["image_id", "filename", "map_threshold"])
    masks = [read_table(path, ["image_id", "mask"]) for path in args.masks]
    part = {image_id: path for table in masks for image_id, path in zip(table["image_id"], table["mask"], strict=True)}
    maps = load_maps(args.maps)
    images = predictions[predictions["image_id"].isin(list(maps)) & predictions["map_threshold"].notna()]
    ids = coco_ids(dict(zip(images["image_id"], images["filename"], strict=True)), args.annotations)

    def search(image: Any) -> tuple[list[list], list[dict[str, Any]]]:
        size = int(sizes.at[image.image_id, "height"]), int(sizes.at[image.image_id, "width"])
        entry = maps[image.image_id]
        heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size)
        mask = read_mask(part[image.image_id]) if part.get(image.image_id) else np.ones(size, bool)
        regions = find_regions(heat, image.map_threshold, mask, **options)
        rows = [[image.image_id, n, *region.box, region.area, region.score] for n, region in enumerate(regions, 1)]
        return rows, [coco_result(region, ids[image.image_id], size) for region in regions]

    table, results = [], []
    found = in_order(search, images.itertuples(), max(args.threads, 1))
    for rows, entries in tqdm(found, total=len(images), desc="boxes", unit="image"):
        table += rows
        results += entries
    write_table(args.table, pd.DataFrame(table, columns=REGIONS), REGIONS)
    write_json(args.coco, results)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.boxes", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--annotations", type=Path, help="COCO file of the data set, for its image ids")
    parser.add_argument("--min-area", type=float, default=0.0001, help="share of the photograph (%(default)s)")
    parser.add_argument("--max-area", type=float, default=1.0, help="share of the photograph (%(default)s)")
    parser.add_argument("--merge", type=float, default=0.01, help="gap, share of the longer side (%(default)s)")
    parser.add_argument("--max-aspect", type=float, help="length over width at most (default: any)")
    parser.add_argument("--threads", type=int, default=1, help="images at a time")
    parser.add_argument("--table", type=Path, required=True, help="regions.csv to write")
    parser.add_argument("--coco", type=Path, required=True, help="regions.json to write: a list of COCO results")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
