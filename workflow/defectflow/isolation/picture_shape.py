"""Stage picture_shape: the common size of the isolated pictures of a set, and whether they are elongated."""

import argparse
import math

import pandas as pd

from defectflow.core.files import stage, write_json
from defectflow.core.tables import read_parts

LONG = 1.6  # longer over shorter side from which a picture is long: 16:9 is, 3:2 is not
ALIKE = 1.25  # factor by which the aspect ratio may differ from the median ...
MOST = 0.9  # ... in this share of the pictures; otherwise no single shape fits them
STEP = 8  # pixels: sides are rounded up to a multiple, so one more photograph rarely changes the result


def common_shape(width: pd.Series, height: pd.Series) -> dict[str, int | bool]:
    """Median sides of pictures in pixels, and whether most of them are elongated in the same way.

    Args:
        width, height: of each picture, in pixels.

    Returns:
        ``height`` and ``width``, rounded up to `STEP` (0 without pictures), and ``long``.

    >>> common_shape(pd.Series([1250] * 9 + [500]), pd.Series([500] * 10))
    {'height': 504, 'width': 1256, 'long': True}
    """
    if not len(width):
        return {"height": 0, "width": 0, "long": False}
    shape = width / height
    middle = float(shape.median())
    alike = float((shape / middle).between(1 / ALIKE, ALIKE).mean())
    sides = {name: math.ceil(side.median() / STEP) * STEP for name, side in (("height", height), ("width", width))}
    return {**sides, "long": bool(max(middle, 1 / middle) >= LONG and alike >= MOST)}


def main(args: argparse.Namespace) -> None:
    """Write the shape."""
    columns = ["x0", "y0", "x1", "y1"]
    windows = pd.concat([part for path in args.tables for part in read_parts(path, columns)])
    width, height = windows["x1"] - windows["x0"], windows["y1"] - windows["y0"]
    if args.tight and (width == height).all():  # the pictures are squares of this size, whatever the window
        width = height = pd.Series([args.tight] * len(windows))
    write_json(args.out, common_shape(width, height))


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.isolation.picture_shape", description=__doc__)
    parser.add_argument("--tables", nargs="+", required=True, help="ISOLATED tables of all shards")
    parser.add_argument(
        "--tight", type=int, help="side of the pictures in pixels, if the isolation scales windows to it"
    )
    parser.add_argument("--out", required=True, help="JSON to write: height, width, long")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
