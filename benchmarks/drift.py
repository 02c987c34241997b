"""How soon drift is noticed on real photographs, and how often where nothing has changed.

FOLDER holds good photographs of one part. Again and again a part of them, drawn at random, stands for the run, and the
others for what arrives: first as they are, then changed. No photograph stands for both, and none arrives twice. Nothing
is masked. A new lot is simulated: the same parts, 6 % lighter and with a grain of 2 %.

    python benchmarks/drift.py data/casting/train/good
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.images.read_write import read_rgb
from defectflow.inspection.measures import measure, shift, small
from defectflow.inspection.photo_sources import photographs
from defectflow.monitoring.control_chart import PER_ALARM, differing, ewma, excursions, limit, normal_scores

REFERENCE, AFTER, DRAWS = 60, 50, 100
NAMES = ("exposure", "sharpness", "x", "y", "grain")


def moved(photo: np.ndarray) -> np.ndarray:
    """The camera moved by 5 % of the width."""
    way = np.array([[1, 0, 0.05 * photo.shape[1]], [0, 1, 0]], np.float32)
    return cv2.warpAffine(photo, way, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def new_lot(photo: np.ndarray) -> np.ndarray:
    """The same part with another finish."""
    grain = np.random.default_rng(0).normal(0, 0.02 * 255, (photo.shape[0] // 2 + 1, photo.shape[1] // 2 + 1))
    grain = cv2.resize(grain, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return (photo * 1.06 + grain[..., None]).clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda photo: photo,
    "darker by 20 %": lambda photo: (photo * 0.8).astype(np.uint8),
    "blurred, sigma 0.2 % of the width": lambda photo: cv2.GaussianBlur(photo, (0, 0), 0.002 * photo.shape[1]),
    "camera moved by 5 % of the width": moved,
    "new lot": new_lot,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=int, default=REFERENCE, help="good photographs of the run (%(default)s)")
    args = parser.parse_args()
    photos = [read_rgb(path) for path in photographs([args.folder])]
    if len(photos) < args.reference + 2 * AFTER:
        parser.error(f"{args.folder}: {len(photos)} photographs, and it takes {args.reference + 2 * AFTER}")
    tables = {name: measured([function(photo) for photo in photos], photos) for name, function in CHANGES.items()}
    height = limit(args.reference, len(NAMES))
    print(f"{args.reference} photographs stand for the run, {len(photos) - args.reference} for what arrives")
    print(f"| change | noticed within {AFTER} photographs | median number | by |")
    print("|---|---|---|---|")
    for change, table in tables.items():
        first, alarms, seen = [], 0, 0
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(len(photos))
            known, before, after = np.split(order, [args.reference, len(photos) - AFTER])
            stream = np.concatenate([tables["nothing"][before], table[after]])
            found = []
            for column, name in enumerate(NAMES):
                values, reference = stream[:, column], tables["nothing"][known, column]
                path = ewma(normal_scores(values, reference))
                ends = [alarm.noticed for alarm in excursions(path, height)]
                ends += [block.last for block in differing(values, reference, len(NAMES))]
                alarms += len(ends)
                found += [(end - len(before) + 1, name) for end in ends if end >= len(before)]
            seen += len(stream)
            first += [min(found)] if found else []
        if change == "nothing":
            print(f"| nothing | {alarms * PER_ALARM / seen:.2f} false alarms in {PER_ALARM} photographs | | |")
            continue
        by = [name for _, name in first]
        names = ", ".join(f"{name} {by.count(name)}" for name in sorted(set(by), key=by.count)[::-1])
        print(f"| {change} | {len(first)} of {DRAWS} | {np.median([number for number, _ in first])} | {names} |")


def measured(photos: list[np.ndarray], good: list[np.ndarray]) -> np.ndarray:
    """NAMES of each photograph, float64 (n, 5)."""
    reference = np.mean([small(photo) for photo in good], axis=0).astype(np.float32)
    rows = [measure(photo)._replace(**shift(reference, small(photo))) for photo in photos]
    return np.array([[getattr(row, name) for name in NAMES] for row in rows])


if __name__ == "__main__":
    main()
