"""Stage part_sheet: a sheet of photographs with the outline of their masks, doubtful ones first."""

import argparse
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectflow.core.files import atomic, stage
from defectflow.core.tables import MANIFEST, MASKS, read_table
from defectflow.drawing.overlay_images import BAD, DIM, GOOD, INK, Cell, contact_sheet
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask, read_rgb

SHOWN, SIDE = 24, 320  # number of photographs; pixels, width of each
SHADE = 0.35  # brightness of the background


def drawn(image: np.ndarray, mask: np.ndarray, width: int = SIDE) -> np.ndarray:
    """A photograph (uint8 RGB) at ``width``, its background darkened and the part outlined; mask: bool of its size."""
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    shaded = np.where(small[..., None], picture, (picture * SHADE).astype(np.uint8))
    lines, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shaded, lines, -1, (255, 0, 255), 1)
    return shaded


def chosen(table: pd.DataFrame, most: int = SHOWN) -> pd.DataFrame:
    """At most ``most`` rows of a MASKS table: up to half absent or doubtful, the others evenly spread."""
    flagged = (table["present"] == 0) | (table["doubtful"] == 1)
    bad = table[flagged].head(most // 2)
    sound = table[~flagged]
    return pd.concat(
        [bad, sound.iloc[np.unique(np.linspace(0, len(sound) - 1, min(most - len(bad), len(sound))).astype(int))]]
    )


def main(args: argparse.Namespace) -> None:
    """Draw the sheet."""
    images = pd.concat([read_table(path, MANIFEST) for path in args.images]).set_index("image_id")
    masks = pd.concat([read_table(path, MASKS) for path in args.masks]).sort_values("image_id")
    cells: Sequence[Cell] = [cell(row, images["path"][row.image_id], args.depth) for row in chosen(masks).itertuples()]
    whole = (masks["source"] == "whole").all()
    sources = ", ".join(f"{n} by {name}" for name, n in masks["source"].value_counts().items())
    flagged = int(((masks["present"] == 0) | (masks["doubtful"] == 1)).sum())
    head = "no part was found: whole photographs are judged" if whole else f"{sources}; {flagged} absent or doubtful"
    sheet = contact_sheet("The part in each photograph", [(head, cells)])
    with atomic(args.out) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].data)


def cell(row: Any, path: str, depth: str | None) -> Cell:
    """One photograph of the sheet; ``row``: of a MASKS table."""
    flagged = not row.present or row.doubtful
    lines = ((row.image_id, INK), (row.reason or f"area {row.area:.1%}", DIM))
    return Cell(drawn(read_rgb(path, depth), read_mask(row.mask)), lines, BAD if flagged else GOOD)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.segmentation.part_sheet", description=__doc__)
    parser.add_argument("--images", nargs="+", required=True, help="tables of the photographs of every shard")
    parser.add_argument("--masks", nargs="+", required=True, help="tables of their masks")
    add_option(parser)
    parser.add_argument("--out", required=True, help="PNG to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
