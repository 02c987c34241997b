"""Measure the values of 16-bit files: a JSON list of paths on stdin, a list of `bit_depth.Values` on stdout.

Called by `bit_depth` when a workflow starts; null stands for a file that cannot be read or has no such values.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm

from defectflow.images.sixteen_to_eight_bits import measure, numbers_of


def values_of(path: str) -> list[int] | None:
    """The values of one file as a list, or None."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            return list(measure(numbers_of(image, path)))
    except Exception:  # the stage that reads a broken file reports it
        return None


def main() -> None:
    """Answer for all paths on stdin."""
    paths = json.load(sys.stdin)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = tqdm(pool.map(values_of, paths), total=len(paths), desc="bit depth", unit="image", disable=None)
        json.dump(list(found), sys.stdout)


if __name__ == "__main__":
    main()
