"""How often the check of outlines rejects correct ones, and how often it finds wrong ones made from them.

python benchmarks/outlines.py FOLDER [FOLDER ...]   # each with images/, and annotations.json or masks/ (label maps)

Correct outlines are also made imprecise: reduced to a coarse polygon, drawn with an unsteady hand, too wide, too
narrow. Wrong ones are mirrored, turned, scaled, shifted, or those of another photograph, by their IoU with the correct
one; those with 0.85 or more are skipped. The last line compares the time per photograph with that of decoding it.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.annotations.coco import annotations_by_image, part_mask
from defectflow.annotations.outline_check import SUSPICIOUS, WRONG, fit
from defectflow.annotations.outline_edges import edge_maps, outline_of, reduced_size
from defectflow.annotations.outline_looker import EDGES, NOWHERE, OTHERS, read_small
from defectflow.images.exif_orientation import stored_size
from defectflow.images.read_write import read_rgb
from defectflow.parts.registration_frame import iou
from defectflow.sources.dataset import read_coco

CLOSE = 0.85  # IoU from which a wrong outline is as good as right


def photographs(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Paths and correct masks, bool (height, width); 255 in a label map does not count as a part."""
    if (folder / "masks").is_dir():
        for path in sorted((folder / "masks").iterdir()):
            label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            yield next((folder / "images").glob(f"{path.stem}.*")), (label > 0) & (label < 255)
        return
    coco = read_coco(folder / "annotations.json")
    by_image = annotations_by_image(coco)
    for entry in coco["images"]:
        path = folder / "images" / entry["file_name"]
        mask = part_mask(entry, by_image.get(entry["id"], []), *stored_size(path))[0]
        if mask is not None:
            yield path, mask


def crooked(mask: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Correct outlines, drawn imprecisely."""
    side = max(mask.shape)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for coarse in (True, False):
        drawn = np.zeros(mask.shape, np.uint8)
        for contour in contours:
            points = cv2.approxPolyDP(contour, 0.02 * side, True) if coarse else contour[:: max(1, len(contour) // 30)]
            points = points if coarse else points + rng.normal(0, 0.01 * side, points.shape)
            cv2.fillPoly(drawn, [np.round(points).astype(np.int32)], 1)
        yield drawn > 0
    reach = 2 * max(1, round(0.008 * side)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    for grow in (cv2.dilate, cv2.erode):
        yield grow(mask.astype(np.uint8), kernel) > 0


def wrong(mask: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Outlines that lie beside the part, with what was done to them."""
    height, width = mask.shape
    yield "turned or mirrored", mask[::-1, ::-1]
    yield "turned or mirrored", mask[:, ::-1]
    turned, other = np.rot90(mask), np.zeros_like(mask)
    part = turned[:height, :width]
    other[: part.shape[0], : part.shape[1]] = part
    yield "turned or mirrored", other
    for scale in (0.5, 1.5):
        yield "scaled", _warped(mask, [[scale, 0, 0], [0, scale, 0]])
    for share in (0.05, 0.1, 0.2):
        angle, reach = rng.uniform(0, 2 * np.pi), share * max(mask.shape)
        by = _warped(mask, [[1, 0, reach * np.cos(angle)], [0, 1, reach * np.sin(angle)]])
        yield "shifted by 5 %" if share == 0.05 else "shifted by 10 or 20 %", by


def _warped(mask: np.ndarray, matrix: list) -> np.ndarray:
    size = (mask.shape[1], mask.shape[0])
    return cv2.warpAffine(mask.astype(np.uint8), np.array(matrix, float), size, flags=cv2.INTER_NEAREST) > 0


def main() -> None:
    """Print a table for all folders together."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folders", type=Path, nargs="+")
    cli.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth photograph")
    cli.add_argument("--first", type=int, default=0, metavar="K", help="from the Kth on")
    args = cli.parse_args()
    cv2.setNumThreads(1)
    rng, seconds = np.random.default_rng(0), {"check": 0.0, "decode": 0.0}
    number: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {"stops": Counter(), "told": Counter()}
    for folder in args.folders:
        items = list(photographs(folder))[args.first :: args.every]
        shapes = [reduced_size(mask.shape[::-1]) for _, mask in items]
        outlines = [outline_of(mask) for _, mask in items]
        for k, (path, mask) in enumerate(items):
            alike = [j for j in rng.permutation(len(items)) if j != k and shapes[j] == shapes[k]][:OTHERS]
            others = [outlines[j] for j in alike]
            start = time.process_time()
            read_rgb(path)
            seconds["decode"] += time.process_time() - start
            start = time.process_time()
            maps = edge_maps(read_small(str(path)), shapes[k])
            fit(maps, outline_of(mask), others)
            seconds["check"] += time.process_time() - start
            drawn = [("right", mask), *(("right, crooked", one) for one in crooked(mask, rng)), *wrong(mask, rng)]
            pasted = [_like(items[j][1], mask) for j in alike[:1]]
            drawn += [(f"of another photograph, IoU {_class(iou(one, mask))}", one) for one in pasted]
            for kind, one in drawn:
                if not kind.startswith("right") and iou(one, mask) > CLOSE:
                    continue
                found = fit(maps, outline_of(one), others)
                number[kind] += 1
                if found:
                    nowhere = found.lead < NOWHERE and found.usual >= EDGES
                    counts["stops"][kind] += found.within(WRONG)
                    counts["told"][kind] += found.within(SUSPICIOUS) or nowhere
    print("| outlines | number | stop the run | stop it or are told |\n|---|---|---|---|")
    for kind, n in number.items():
        stops, told = (100 * counts[what][kind] / n for what in ("stops", "told"))
        print(f"| {kind} | {n} | {stops:.1f} % | {told:.1f} % |")
    n = number["right"]
    check, decode = (1000 * seconds[what] / n for what in ("check", "decode"))
    print(f"\n{check:.0f} ms for each photograph; decoding it takes {decode:.0f} ms")


def _class(value: float) -> str:
    """In which third of interest an IoU lies."""
    return "below 0.5" if value < 0.5 else "0.5 to 0.8" if value < 0.8 else "above 0.8"


def _like(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    size = (other.shape[1], other.shape[0])
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


if __name__ == "__main__":
    main()
