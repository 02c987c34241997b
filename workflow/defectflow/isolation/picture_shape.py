"""Stage picture_shape: the common size of the isolated pictures of a set, and whether they are elongated."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from defectflow.core.files import stage, write_json
from defectflow.core.tables import read_parts
from defectflow.images.read_write import read_mask

LONG = 1.6  # longer over shorter side from which a picture is long: 16:9 is, 3:2 is not
ALIKE = 1.25  # factor by which the aspect ratio may differ from the median ...
MOST = 0.9  # ... in this share of the pictures; otherwise no single shape fits them
PART = 480  # pixels that the part gets along its longer side: about what a crop at 512 gives it
SIDES = (256, 320, 384, 448, 512, 640, 768, 896, 1024)  # coarse steps, so one more photograph rarely changes the choice
MOST_SIDE = SIDES[-1]
SAMPLE = 60  # pictures that the part is measured in
STEP = 8  # pixels: sides are rounded up to a multiple, so one more photograph rarely changes the result


def common_shape(width: pd.Series, height: pd.Series) -> dict[str, int | bool]:
    """Median sides of pictures in pixels, and whether most of them are elongated in the same way.

    Args:
        width, height: of each picture, in pixels.

    Returns:
        ``height`` and ``width``, rounded up to `STEP` (0 without pictures), and ``long``; and how many pictures may be
        added, removed or changed at once so that this surely stays: ``long_holds`` for ``long`` and ``sides_hold`` for
        the sides.

    >>> common_shape(pd.Series([1250] * 90 + [500] * 10), pd.Series([500] * 100))
    {'height': 504, 'width': 1256, 'long': True, 'long_holds': 0, 'sides_hold': 39}
    """
    if not len(width):
        return {"height": 0, "width": 0, "long": False, "long_holds": 0, "sides_hold": 0}
    shape = width / height
    middle = float(shape.median())
    alike = int((shape / middle).between(1 / ALIKE, ALIKE).sum())
    sides = {name: _side(float(side.median())) for name, side in (("height", height), ("width", width))}
    is_long = bool(max(middle, 1 / middle) >= LONG and alike >= MOST * len(shape))
    holds = {
        "long_holds": _holds(shape, lambda medians: _stays_long(medians, middle, alike, len(shape), is_long)),
        "sides_hold": min(_holds(side, lambda medians: len({*map(_side, medians)}) == 1) for side in (height, width)),
    }
    return {**sides, "long": is_long, **holds}


def _side(length: float) -> int:
    return math.ceil(length / STEP) * STEP


def _holds(values: pd.Series, stays: Callable[[np.ndarray], bool]) -> int:
    """How many values may change so that ``stays`` holds for all that the median can become, within these.

    The median of what is left and of what is new lies among the so many values on either side of it.
    """
    ordered = np.sort(values.to_numpy(float))
    below, above = (len(ordered) - 1) // 2, len(ordered) // 2
    holds = -1
    while below - holds - 1 >= 0 and stays(ordered[below - holds - 1 : above + holds + 2]):
        holds += 1
    return max(0, holds)


def _stays_long(medians: np.ndarray, middle: float, alike: int, count: int, is_long: bool) -> bool:
    """Whether pictures stay long, or not long, where the median of their shapes may become any of these."""
    least, most = float(medians[0]), float(medians[-1])
    if not is_long and max(most, 1 / least) < LONG:
        return True
    changed = len(medians) // 2  # pictures, at least
    if least != most:
        return False
    if is_long:
        return alike - changed >= MOST * (count + changed)
    return alike + changed < MOST * max(1, count - changed)


def auto_size(height: int, width: int, long: bool, parts: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The side of the network's input for `image_size: auto`, and why.

    The part gets about the pixels that it has in a crop at 512, or as many as it has in the pictures, and the side is
    at most `MOST_SIDE`. Of long pictures the shorter side counts.

    Args:
        height, width: of most pictures, in pixels.
        long: whether they are long.
        parts: (height, width) of the box around the part in some of the pictures, in their pixels; none: the whole.

    Returns:
        ``image_size`` in pixels and ``reason``.

    >>> auto_size(1080, 1920, False, [(300, 400)])["image_size"], auto_size(400, 400, False, [])["image_size"]
    (1024, 384)
    """
    part = [round(float(np.median(side))) for side in zip(*parts, strict=True)] if parts else [height, width]
    kind = min if long else max  # the side that the input's side stands for
    own, across = kind(height, width), kind(part)
    wanted = own * min(1.0, PART / across)
    chosen = max((one for one in SIDES if one <= min(own, wanted * 1.1)), default=max(64, own // 32 * 32))
    what = "the part is" if parts else "taken whole, the part is"
    shown = f"{across * chosen / own:.0f} at {chosen}"
    why = f"{what} {part[1]} x {part[0]} pixels in pictures of {width} x {height}, and {shown}"
    if wanted > MOST_SIDE:
        why += f" (more than {MOST_SIDE} would take more than four times the time and the memory of 512)"
    elif wanted == own:
        why += " (pictures are never enlarged)"
    return {"image_size": chosen, "reason": why}


def part_boxes(paths: Sequence[str]) -> list[tuple[int, int]]:
    """(height, width) of the box around the part in at most `SAMPLE` of the pictures of ISOLATED tables."""
    masks = [path for table in paths for part in read_parts(table, ["mask"]) for path in part["mask"] if path]
    boxes = []
    for path in masks[:: -(-len(masks) // SAMPLE) or 1]:
        rows, columns = (np.flatnonzero(read_mask(path).any(axis=axis)) for axis in (1, 0))
        if len(rows):
            boxes.append((int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)))
    return boxes


def main(args: argparse.Namespace) -> None:
    """Write the shape."""
    columns = ["x0", "y0", "x1", "y1"]
    windows = pd.concat([part for path in args.tables for part in read_parts(path, columns)])
    width, height = windows["x1"] - windows["x0"], windows["y1"] - windows["y0"]
    if args.tight and (width == height).all():  # the pictures are squares of this size, whatever the window
        width = height = pd.Series([args.tight] * len(windows))
    shape: dict[str, Any] = common_shape(width, height)
    if args.auto_size:
        tall, wide = (int(side.median()) if len(side) else SIDES[0] for side in (height, width))
        shape["auto"] = auto_size(tall, wide, bool(shape["long"]), part_boxes(args.tables))
        print(f"image_size: auto is {shape['auto']['image_size']}: {shape['auto']['reason']}", file=sys.stderr)
    write_json(args.out, shape)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.isolation.picture_shape", description=__doc__)
    parser.add_argument("--tables", nargs="+", required=True, help="ISOLATED tables of all shards")
    parser.add_argument(
        "--tight", type=int, help="side of the pictures in pixels, if the isolation scales windows to it"
    )
    parser.add_argument("--auto-size", action="store_true", help="also choose a size for image_size: auto")
    parser.add_argument("--out", required=True, help="JSON to write: height, width, long, long_holds, sides_hold")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
