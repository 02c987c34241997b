"""Stage isolate: from photographs and part masks, make pictures of the part with uniform geometry and light."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_threads
from defectflow.core.files import UserError, atomic_dir, sha256_of, stage
from defectflow.core.tables import CONTENT, ISOLATED, MANIFEST, MASKS, read_table, write_table
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask, read_rgb, write_png
from defectflow.isolation.crop_and_background import isolate_part
from defectflow.isolation.outlined_extent import window_of
from defectflow.isolation.settings import IsolationSettings


def main(args: argparse.Namespace) -> None:
    """Isolate the parts of one shard; write pictures, masks and a table (tables.ISOLATED)."""
    settings = read_settings(args.settings, IsolationSettings, "isolate")
    rows = read_table(args.manifest, MANIFEST)
    found = read_table(args.masks, MASKS).set_index("image_id") if args.masks else pd.DataFrame(columns=MASKS)
    masks, doubtful = found["mask"], found["doubtful"]
    if len(found) and (found["source"] == "whole").all():  # as with segmenter none
        settings, masks, args.masks = (
            replace(settings, background="keep", normalise=["none"], crop=False, tight=None),
            {},
            None,
        )
    size = centre = None
    if settings.cuts and len(rows) and not args.masks:
        which = "crop: true" if settings.crop else "tight"
        raise UserError(f"isolation with {which} needs masks (choose a segmenter other than none)")
    if settings.crop and len(rows):
        size, centre = window_of(args.pairs, args.prior, settings.margin)

    out_dir = Path(args.out_dir)
    unchanged = settings.keeps_all
    cv2.setNumThreads(1)

    with atomic_dir(out_dir) as temporary:

        def one(row: Any) -> dict[str, Any]:
            image_id = row.image_id
            if unchanged:
                window, turn = (0, 0, int(row.width), int(row.height)), 0.0
                image_path, mask_path = row.path, masks.get(image_id, "")
                if args.depth:  # later stages read 8-bit files
                    image_path = str(out_dir / f"{image_id}.png")
                    write_png(temporary / f"{image_id}.png", read_rgb(row.path, args.depth))
                digests = [row.sha256, args.depth or "", sha256_of(mask_path) if mask_path else ""]
            else:
                image = read_rgb(row.path, args.depth)
                whole = np.zeros(image.shape[:2], bool)
                mask = read_mask(masks[image_id]) if args.masks else whole
                image, mask, window, turn = isolate_part(image, mask, settings, size, centre)
                image_path, mask_path = str(out_dir / f"{image_id}.png"), ""
                write_png(temporary / f"{image_id}.png", image)
                digests = [sha256_of(temporary / f"{image_id}.png")]
                if args.masks:
                    name = f"{image_id}~mask.png"  # no id has a "~", so no picture has this name
                    mask_path = str(out_dir / name)
                    write_png(temporary / name, mask)
                    digests.append(sha256_of(temporary / name))
            record: dict[str, Any] = dict(zip(("x0", "y0", "x1", "y1"), window, strict=True))
            record |= {"image_id": image_id, "image": image_path, "mask": mask_path, "copy_of": "", "kind": ""}
            record["turn"] = turn
            record["doubtful"] = int(doubtful.get(image_id, 0))
            record[CONTENT] = "".join(digest[:16] for digest in digests)
            return record | {"width": int(row.width), "height": int(row.height)}

        with ThreadPoolExecutor(args.threads) as pool:
            records = list(tqdm(pool.map(one, rows.itertuples()), total=len(rows), desc="isolate", unit="image"))
    columns = [*ISOLATED, CONTENT]
    write_table(args.table, pd.DataFrame(records, columns=columns), columns)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.isolation.isolate", description=__doc__)
    parser.add_argument("--manifest", required=True, help="table of the images (manifest.csv, or that of one shard)")
    parser.add_argument("--masks", help="table of their masks; without it the whole picture counts as the part")
    parser.add_argument("--pairs", help="pairs.csv, needed by crop for the size of the window")
    parser.add_argument("--prior", help="prior.safetensors, instead of pairs.csv if few photographs are outlined")
    add_settings(parser, IsolationSettings, "isolate")
    add_option(parser)
    add_threads(parser, 1)
    parser.add_argument("--out-dir", required=True)
    parser.add_argument("--table", required=True)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
