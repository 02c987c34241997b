"""Stage export_labels: the part and the damaged regions of a run as labels, in the form of a tool or training program.

The part is the mask of the run; a defect is a region above the pixel threshold. A region on a photograph that is
labelled good is a false alarm and is left out. What was left out is counted and named. Labels belong to the upright
picture.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from defectflow.annotations.coco import decode
from defectflow.core.arguments import add_threads
from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.core.parallel import in_order
from defectflow.core.tables import index_of, read_parts
from defectflow.evaluation.scored_images import damage_index
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask
from defectflow.label_export.labelled import DEFECT, PART, Labelled, Shape
from defectflow.label_export.polygons import polygons
from defectflow.label_export.tool_files import write_coco, write_cvat, write_label_studio, write_labelme
from defectflow.label_export.training_folders import (
    write_mvtec,
    write_pascal_voc,
    write_yolo_detect,
    write_yolo_segment,
)

Writer = Callable[[Path, Sequence[Labelled], str], None]
WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "yolo_segment": write_yolo_segment,
    "yolo_detect": write_yolo_detect,
    "pascal_voc": write_pascal_voc,
    "mvtec": write_mvtec,
    "labelme": write_labelme,
    "label_studio": write_label_studio,
    "cvat": write_cvat,
}
# A training program takes a photograph without labels as one without defects; a person who corrects labels does not.
TRAINS = {"yolo_segment", "yolo_detect", "pascal_voc", "mvtec"}
NAMED = 3  # photographs named in a line on many


def reason_against(one: Labelled, judged: bool, format: str) -> str:
    """Why a photograph is left out of a data set to train on; "" if it is not."""
    if format not in TRAINS or one.label == "0":
        return ""
    if format == "mvtec" and not one.label:
        return "unlabelled, and folders tell the label"
    if not judged:
        return "neither labelled good nor judged"
    if one.label == "1" and not (format == "mvtec" and one.truth) and all(s.label != DEFECT for s in one.shapes):
        return "labelled bad, and no region was found on it (draw it by hand)"
    return ""


def main(args: argparse.Namespace) -> None:
    """Collect the shapes of all photographs, several at a time, and write them."""
    cv2.setNumThreads(1)
    masks, damage = index_of(args.masks, ["mask"]), damage_index(*args.regions)
    judged = index_of([args.predictions], [], lambda part: part["raw_score"].notna(), by=["raw_score"])
    told: dict[str, list[str]] = defaultdict(list)

    def rows() -> Iterator[Any]:
        for part in read_parts(args.manifest):
            yield from part.itertuples()

    def labelled(row: Any) -> tuple[Labelled, int, str]:
        label = "" if np.isnan(row.label) else str(int(row.label))
        shapes = []
        (path,) = masks.get(row.image_id, ("",))
        if path and (outline := polygons(read_mask(path))):
            shapes.append(Shape(PART, outline))
        text, mark = damage.get(row.image_id, ("[[], []]", ""))
        regions = [] if mark else json.loads(text)[1]
        if label != "0":
            shapes += [Shape(DEFECT, polygons(decode(region, row.width, row.height))) for region in regions]
        name = str(Path(row.path).relative_to(args.images).as_posix())
        one = Labelled(
            row.image_id, name, row.path, row.width, row.height, label, row.defect_type, row.group, row.split, row.mask,
            shapes, args.depth,
        )  # fmt: skip
        return one, len(regions), mark

    total = sum(1 for _ in rows())
    photographs = []
    for one, regions, mark in tqdm(in_order(labelled, rows(), max(args.threads, 1)), desc="export", total=total):
        if reason := reason_against(one, one.image_id in judged, args.format):
            told[f"left out: {reason}"].append(one.name)
            continue
        if one.label == "0" and regions:
            told["labelled good: their regions, false alarms, are left out"].append(one.name)
        elif mark and one.label != "0":
            told["called bad without a region: no defect is outlined"].append(one.name)
        photographs.append(one)
    if not any(one.shapes for one in photographs):
        raise UserError(f"{args.manifest}: no mask of the part and no region to export (choose a segmenter with masks)")
    with atomic_dir(args.out) as folder:
        WRITERS[args.format](folder, photographs, args.images)
    for text, names in told.items():
        more = ", ..." if len(names) > NAMED else ""
        print(f"  {counted(len(names), 'photograph')} {text} ({', '.join(names[:NAMED])}{more})", file=sys.stderr)
    shapes = list(itertools.chain.from_iterable(one.shapes for one in photographs))
    found = [sum(shape.label == label for shape in shapes) for label in (PART, DEFECT)]
    print(
        f"{args.out}: {counted(len(photographs), 'photograph')}, {counted(found[0], 'part')}, "
        f"{counted(found[1], 'defect')}, as {args.format}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.label_export.export_labels", description=__doc__)
    parser.add_argument("--format", choices=list(WRITERS), required=True, help="what to write")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--regions", type=Path, nargs=2, required=True, help="regions.csv and regions.json")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--images", required=True, help="folder of the photographs")
    add_option(parser)
    add_threads(parser, 1, "images at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
