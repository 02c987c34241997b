"""Stage boxes: the damaged regions of every scored image, as a table and as COCO results.

A region lies above the pixel threshold of its image (map_threshold in predictions.csv), which was chosen on other
images. An image that is called bad and has no region gets its peak, with a mark that says so. Boxes and pixels refer to
the upright photograph.
"""

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.annotations.coco import entries_by_name
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.anomaly_maps import full_resolution, load_maps
from defectflow.core.arguments import add_threads
from defectflow.core.files import json_list_writer, stage
from defectflow.core.parallel import in_order
from defectflow.core.records import CocoResult
from defectflow.core.tables import REGIONS, ROWS, index_of, read_parts, table_writer
from defectflow.decision.damaged_regions import coco_result, find_damage
from defectflow.decision.region_settings import RegionSettings
from defectflow.images.read_write import read_mask
from defectflow.sources.dataset import read_coco


def coco_ids(
    names: Iterable[str], annotations: Path | Sequence[str] | None, images: str | None = None
) -> dict[str, Any]:
    """{name: id} of those of these images that are in the COCO files of the data set (None: there is none).

    ``images``: folder of the photographs, among which the files may lie.
    """
    if not annotations:
        return {}
    entries, _ = entries_by_name(read_coco(annotations, images), names)
    return {name: entry["id"] for name, entry in entries.items()}


def numbering(known: Mapping[str, Any]) -> Callable[[str], Any]:
    """A function from the name of an image to its id: the ``known`` one, or a new one above the largest known id."""
    new = itertools.count(max((number for number in known.values() if isinstance(number, int)), default=0) + 1)
    return lambda name: known[name] if name in known else next(new)


def main(args: argparse.Namespace) -> None:
    """Find the regions of all images, several at a time; write regions.csv and regions.json."""
    cv2.setNumThreads(1)
    options = read_settings(args.settings, RegionSettings, "boxes").read_by("boxes")
    sizes = index_of([args.manifest], ["height", "width"])
    masks, maps = index_of(args.masks, ["mask"]), load_maps(args.maps)

    def images() -> Iterator[Any]:
        for part in read_parts(args.predictions, ["image_id", "filename", "predicted_label", "map_threshold"]):
            judged = part[part["map_threshold"].notna() | (part["predicted_label"] == 1)]
            yield from (row for row in judged.itertuples() if row.image_id in maps)

    def search(job: tuple[Any, Any]) -> tuple[list[list[Any]], list[CocoResult]]:
        image, number = job
        size, (path,) = sizes[image.image_id], masks.get(image.image_id, ("",))
        entry = maps[image.image_id]
        heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size, entry.sigma)
        mask = read_mask(path) if path else np.ones(size, bool)
        level = None if np.isnan(image.map_threshold) else image.map_threshold
        regions = find_damage(heat, level, mask, image.predicted_label == 1, **options)
        rows = [[image.image_id, n, *r.box, r.area, r.score, r.mark] for n, r in enumerate(regions, 1)]
        return rows, [coco_result(region, number, size) for region in regions]

    number = numbering(coco_ids((image.filename for image in images()), args.annotations, args.images))
    jobs = ((image, number(image.filename)) for image in images())
    with table_writer(args.table, REGIONS) as add_rows, json_list_writer(args.coco) as add_result:
        found = in_order(search, jobs, max(args.threads, 1))
        rows: list[list[Any]] = []
        for more, results in tqdm(found, total=len(maps), desc="boxes", unit="image"):
            for result in results:
                add_result(result)
            rows += more
            if len(rows) >= ROWS:
                add_rows(pd.DataFrame(rows, columns=REGIONS))
                rows.clear()
        add_rows(pd.DataFrame(rows, columns=REGIONS))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.evaluation.boxes", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--annotations", nargs="+", help="COCO files of the data set, to read their image ids")
    parser.add_argument("--images", help="folder of the photographs, which may contain those files")
    add_settings(parser, RegionSettings, "boxes")
    add_threads(parser, 1, "images at a time")
    parser.add_argument("--table", type=Path, required=True, help="regions.csv to write")
    parser.add_argument("--coco", type=Path, required=True, help="regions.json to write: a list of COCO results")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
