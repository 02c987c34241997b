"""Stage sam_pairs: COCO annotations to pairs of sa_000001.jpg and sa_000001.json in the form of SA-1B.

One merged annotation per image, the part. JPEG files that need no rotation are copied byte for byte; others are
written upright as JPEG of quality 95. pairs.csv maps the pairs to image ids.
"""

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from defectflow.annotations.coco import encode, entries_by_name
from defectflow.annotations.outline_set import settle_outlines
from defectflow.core.arguments import add_threads
from defectflow.core.files import UserError, atomic_dir, sha256_of, stage, write_json
from defectflow.core.records import CocoImage, Rle
from defectflow.core.tables import CONTENT, PAIRS, write_table
from defectflow.images.bit_depth import add_option
from defectflow.images.exif_orientation import stored_size
from defectflow.images.image_checks import inspect_all
from defectflow.images.read_write import read_rgb
from defectflow.listing.annotation_files import name_of
from defectflow.listing.folders import Folders
from defectflow.listing.image_names import id_maker
from defectflow.listing.links import roots
from defectflow.sources.dataset import image_names, read_coco, row_reader
from defectflow.sources.source_options import add_annotation_options, add_folder_options, resolved_of


def pair_name(number: int) -> str:
    """Name of a pair without suffix: the official loader reads the number behind the last "_"."""
    return f"sa_{number:06d}"


class SamAnnotation(TypedDict):
    """An annotation as SA-1B has them, without id; boxes are [x, y, width, height] in pixels."""

    segmentation: Rle
    area: int
    bbox: list[int]
    predicted_iou: float
    stability_score: float
    crop_box: list[int]
    point_coords: list[list[float]]


def annotation_of(mask: np.ndarray) -> SamAnnotation:
    """The SA-1B annotation of a bool mask (height, width), without id; bbox is [x, y, width, height] in pixels."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(xs[0]), int(ys[0])
    return {
        "segmentation": encode(mask),
        "area": int(mask.sum()),
        "bbox": [x, y, int(xs[-1]) - x + 1, int(ys[-1]) - y + 1],
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "point_coords": [],
    }


def write_pair(folder: Path, source: str, number: int, annotation: SamAnnotation, depth: str | None = None) -> None:
    """Write one picture and its JSON; a JPEG that stands upright is copied, any other image re-encoded."""
    target = folder / f"{pair_name(number)}.jpg"
    with Image.open(source) as image:
        as_it_is = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and stored_size(source)[1] == 1
    if as_it_is:
        shutil.copyfile(source, target)
    else:
        Image.fromarray(read_rgb(source, depth)).save(target, quality=95)
    width, height = annotation["crop_box"][2:]
    about = {"image_id": number, "width": width, "height": height, "file_name": target.name}
    write_json(target.with_suffix(".json"), {"image": about, "annotations": [{"id": number} | annotation]})


def main(args: argparse.Namespace) -> None:
    """Write the pairs of every sound image that the COCO file lists, and their table (tables.PAIRS)."""
    resolved = resolved_of(args)
    folders = Folders(resolved)
    coco = read_coco(args.annotations, resolved["images"])
    row, _ = row_reader(resolved, image_names(resolved, folders), folders)
    image_id_of = id_maker(lambda: image_names(resolved, folders))
    entries = entries_by_name(coco, image_names(resolved, folders))[0]
    paths = {name: os.path.join(resolved["images"], name) for name in entries}
    with ThreadPoolExecutor(args.threads) as pool:
        pictures = inspect_all(paths, roots(resolved), pool, args.depth)
    settled = settle_outlines(resolved | {"depth": args.depth}, coco, entries, pictures, args.threads)
    for fault in settled.problems:
        tqdm.write(f"{fault.text} (left out)", file=sys.stderr)
    listed = sorted((image_id_of(name), name, entry) for name, entry in entries.items() if not pictures[name].problem)

    def prepare(item: tuple[str, str, CocoImage]) -> tuple[int, SamAnnotation | None]:
        image_id, name, entry = item
        mask, used, problems = settled.mask(name, entry, pictures[name])
        for problem in problems:
            tqdm.write(f"{image_id}: {problem} (left out)", file=sys.stderr)
        return used, None if mask is None else annotation_of(mask)

    def write(pair: tuple[str, int, SamAnnotation]) -> str:
        write_pair(folder, *pair, args.depth)
        return "".join(sha256_of(folder / f"{pair_name(pair[1])}.{suffix}")[:16] for suffix in ("jpg", "json"))

    records: list[dict[str, Any]] = []
    pairs: list[tuple[str, int, SamAnnotation]] = []
    with atomic_dir(args.out) as folder, ThreadPoolExecutor(args.threads) as pool:
        found = tqdm(pool.map(prepare, listed), desc="sam_pairs: outlines", total=len(listed), unit="image")
        for (image_id, name, _), (used, annotation) in zip(listed, found, strict=True):
            width, height = pictures[name].size
            known = {"image_id": image_id, "path": paths[name], "group": row(name)["group"], "width": width}
            records.append(known | {"height": height, "pair": "", "n_annotations": used})
            if annotation:
                pairs.append((paths[name], len(pairs) + 1, annotation))
                box = dict(zip(PAIRS[-4:], annotation["bbox"], strict=True))
                records[-1] |= {"pair": pair_name(len(pairs)), "area": annotation["area"], **box}
        done = list(tqdm(pool.map(write, pairs), desc="sam_pairs", total=len(pairs), unit="pair"))
        if not pairs:
            raise UserError(
                f"{name_of(args.annotations)}: no sound image of {resolved['images']} has a usable annotation "
                "(correct the outlines, or set segmenter: none)"
            )
        table = pd.DataFrame(records, columns=PAIRS).assign(**{CONTENT: ""})
        table[PAIRS[-5:]] = table[PAIRS[-5:]].astype("Int64")
        table.loc[table["pair"] != "", CONTENT] = done
    write_table(args.table, table, [*PAIRS, CONTENT])
    print(f"{len(pairs)} pairs, {len(records) - len(pairs)} listed images without annotation")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_options(parser)
    add_annotation_options(parser)
    add_option(parser)
    add_threads(parser, min(4, os.cpu_count() or 1), "decoding threads")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the pairs; replaced")
    parser.add_argument("--table", required=True, metavar="pairs.csv")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
