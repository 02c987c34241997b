"""Make one outline from a few coordinates and add it to a COCO file, without an annotation tool.

Give points on the part and on the background, as clicks at the desk: SAM and a random walker draw the outline. Or give
a box around the part: GrabCut (Rother et al. 2004) draws it, or the network of --checkpoint or --encoder. On a
cluttered background, where this fails, give the corners of the outline with --polygon. Coordinates are pixels of the
upright photograph; (0, 0) is the upper left one. The workflow reads the COCO file: put it into the folder of the data
set.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectflow.annotations.coco import encode
from defectflow.core.files import UserError, read_json, stage, write_json
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_photograph, write_png
from defectflow.segmentation.promptable_network import Network, Point, load_network
from defectflow.sources.dataset import read_coco

SIDE = 512  # pixels, longest side of GrabCut's picture
PREVIEW = 1600  # pixels, longest side of the preview
DISC = 0.006  # radius of a click, share of the longest side
ROUNDS = 5
NO_BOX = (0, 0, 1, 1)  # ignored by GrabCut if it starts from a mask
SPECK = 0.002  # holes smaller than this share of the outline are filled
VARIANTS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}  # in names of official checkpoints
INSIDE, OUTSIDE, BOX = (60, 220, 60), (235, 70, 70), (70, 140, 255)


@dataclass(frozen=True)
class Clicks:
    """What the user marked, in pixels of the upright photograph.

    Attributes:
        box: x0, y0, x1, y1, or None.
        inside, outside: points (x, y) on the part and on the background.
        polygon: corners (x, y) of the outline itself, in order.
    """

    box: tuple[float, float, float, float] | None
    inside: Sequence[Point] = ()
    outside: Sequence[Point] = ()
    polygon: Sequence[Point] = ()

    def check(self, size: tuple[int, int]) -> None:
        """Raise a UserError for marks outside a photograph of ``size`` (height, width)."""
        height, width = size
        if self.polygon and (self.box or self.inside or self.outside or len(self.polygon) < 3):
            raise UserError("--polygon takes at least three corners, and no box or points in addition")
        if self.box is None and not self.inside and not self.polygon:
            raise UserError("no part is marked (give --box x0,y0,x1,y1, --points x,y ..., or both)")
        for x, y in (*self.inside, *self.outside, *self.polygon):
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"point {x:g},{y:g} is outside the photograph ({width} x {height} pixels, upright)")
        if self.box is None:
            return
        x0, y0, x1, y1 = self.box
        told = f"box {x0:g},{y0:g},{x1:g},{y1:g}"
        if min(x0, y0) < 0 or x1 > width or y1 > height:
            raise UserError(f"{told} extends beyond the photograph ({width} x {height} pixels, upright)")
        if x1 - x0 < 4 or y1 - y0 < 4:
            raise UserError(f"{told} is too small (x0,y0 is the upper left corner, x1,y1 the lower right one)")
        for x, y in self.inside:
            if not (x0 <= x < x1 and y0 <= y < y1):
                raise UserError(f"point {x:g},{y:g} is outside the box (widen the box, or leave the point out)")

    def scaled(self, x: float, y: float) -> "Clicks":
        """The same in a picture that is ``x`` times as wide and ``y`` times as high."""
        points = ([((a + 0.5) * x - 0.5, (b + 0.5) * y - 0.5) for a, b in p] for p in (self.inside, self.outside))
        box = self.box and (self.box[0] * x, self.box[1] * y, self.box[2] * x, self.box[3] * y)
        return Clicks(box, *points)

    def shares(self, size: tuple[int, int]) -> "Clicks":
        """The same as shares of width and height; ``size``: (height, width)."""
        height, width = size
        points = ([((x + 0.5) / width, (y + 0.5) / height) for x, y in p] for p in (self.inside, self.outside))
        box = self.box and (self.box[0] / width, self.box[1] / height, self.box[2] / width, self.box[3] / height)
        return Clicks(box, *points)


def by_grabcut(image: np.ndarray, clicks: Clicks) -> np.ndarray:
    """The part marked by ``clicks`` in an RGB uint8 photograph (height, width, 3), as a bool mask of its size."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    height, width = small.shape[:2]
    own = clicks.scaled(width / image.shape[1], height / image.shape[0])
    radius = max(2, round(DISC * max(height, width)))
    marks = np.zeros((height, width), np.int32)  # 1 part, 2 background, 0 unknown
    if own.box is None:
        marks[[0, -1]] = marks[:, [0, -1]] = 2
    else:
        x0, y0, x1, y1 = (round(v) for v in own.box)
        marks[:] = 2
        marks[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 0
    for value, points in ((1, own.inside), (2, own.outside)):
        for x, y in points:
            cv2.circle(marks, (round(x), round(y)), radius, value, -1)
    labels = np.where(marks == 1, cv2.GC_FGD, np.where(marks == 2, cv2.GC_BGD, cv2.GC_PR_FGD)).astype(np.uint8)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    if own.box is None:  # without a box, GrabCut starts from the region that grows from the points up to strong edges
        region = cv2.watershed(cv2.GaussianBlur(bgr, (0, 0), 2), marks.copy())
        labels[(labels == cv2.GC_PR_FGD) & (region != 1)] = cv2.GC_PR_BGD
    cv2.setRNGSeed(0)  # its clusters start at random
    if (labels & 1).all() or not (labels & 1).any():
        return np.zeros(image.shape[:2], bool)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr, labels, NO_BOX, models[0], models[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = (labels & 1).astype(np.float32)
    return cv2.resize(found, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) >= 0.5


def by_network(image: np.ndarray, clicks: Clicks, network: Network) -> np.ndarray:
    """As :func:`by_grabcut`, by the best proposal of a promptable network, see `Proposals.best`."""
    own = clicks.shares(image.shape[:2])
    found = network.clicked(network.look(image), own.inside, own.outside, box=own.box)
    logits = found.best(own.inside, own.outside)
    return cv2.resize(logits, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0


def by_clicks(image: np.ndarray, clicks: Clicks, files: Mapping[str, str], model: str) -> np.ndarray:
    """As :func:`by_grabcut`, from points alone, as the desk does it; ``files``, ``model``: see `load_network`."""
    from defectflow.segmentation.clicked_outline import Clickable, ClickNetworks  # which imports this module

    return Clickable.of(image, ClickNetworks.load(files, model)).mask(clicks.inside, clicks.outside)


def tidy(mask: np.ndarray, clicks: Clicks) -> np.ndarray:
    """Keep the pieces of a bool mask that contain a point, or else the largest, and fill small holes."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    if len(areas) == 1:
        return mask
    areas[0] = 0
    kept = {int(labels[int(y), int(x)]) for x, y in clicks.inside} - {0} or {int(areas.argmax())}
    mask = np.isin(labels, list(kept))
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8))
    small = [k for k in range(1, len(stats)) if stats[k, cv2.CC_STAT_AREA] < SPECK * mask.sum()]
    filled = mask | np.isin(holes, small)
    for x, y in clicks.outside:
        filled[int(y), int(x)] = mask[int(y), int(x)]
    return filled


def add_to_coco(
    path: Path,
    photo: Path,
    mask: np.ndarray,
    category: str | None = None,
    replace: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """The content of a COCO file, new or that of ``path``, with the outline of one photograph added.

    Args:
        path: the file.
        photo: the photograph; its name in the file is relative to the folder of ``path``, or to images/ in it.
        mask: bool (height, width), upright.
        category: of the outline; None: the only one in the file, or "part".
        replace: whether existing outlines of the photograph are replaced.
        name: of the photograph in the file, if different.

    Raises:
        UserError: the file is not COCO, has several categories and none is chosen, or has an outline of the photograph.
    """
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    if path.exists():
        read_coco(path)  # checks its form
        content = read_json(path)
        if not isinstance(content, dict) or "images" not in content:
            raise UserError(f"{path}: outlines of another tool than COCO (write a new file: --out)")
    categories = content["categories"] = content.get("categories") or []
    names = {str(one.get("name")): one.get("id") for one in categories if isinstance(one, dict)}
    if category is None and len(names) > 1:
        raise UserError(f"{path}: it has the categories {', '.join(sorted(names))} (choose one: --category NAME)")
    if categories or not content["annotations"]:
        category = category or next(iter(names), "part")
        if category not in names:
            names[category] = _next_id(categories)
            categories.append({"id": names[category], "name": category})
    elif category:  # to list one would hide the outlines of no category, or of another number
        raise UserError(f"{path}: it lists no categories (leave --category out)")
    of_category = {"category_id": names[category]} if category else {}
    same = _spelled(path, photo)
    name = name or next(iter(same), photo.name)
    entry = next((one for one in content["images"] if os.path.normpath(str(one["file_name"])) in (name, *same)), None)
    height, width = mask.shape
    if entry is None:
        entry = {"id": _next_id(content["images"]), "file_name": name, "width": width, "height": height}
        content["images"].append(entry)
    own = {"image_id": entry["id"]} | of_category  # damage may be outlined too, as another category
    drawn = [one for one in content["annotations"] if own.items() <= one.items()]
    listed = entry.get("width"), entry.get("height")
    if listed != (width, height):
        others = any(one["image_id"] == entry["id"] and one not in drawn for one in content["annotations"])
        if others or not replace:
            told = f"{path}: it lists {name} with {listed[0]} x {listed[1]} pixels, upright it has"
            raise UserError(f"{told} {width} x {height} (write a new file: --out)")
        entry["width"], entry["height"] = width, height  # whatever the old outline was drawn in, the new one is upright
    if drawn and not replace:
        raise UserError(f"{path}: {name} already has an outline (add --replace to replace it)")
    content["annotations"] = [one for one in content["annotations"] if one not in drawn]
    x, y, box_width, box_height = cv2.boundingRect(mask.view(np.uint8))
    annotation = {"id": _next_id([*content["annotations"], *drawn])} | own | {"area": int(mask.sum()), "iscrowd": 0}
    content["annotations"].append(annotation | {"segmentation": encode(mask), "bbox": [x, y, box_width, box_height]})
    return content


def _next_id(entries: Sequence[Any]) -> int:
    ids = [one.get("id") for one in entries if isinstance(one, dict)]
    return 1 + max((one for one in ids if isinstance(one, int)), default=0)


def _spelled(path: Path, photo: Path) -> list[str]:
    """Names of a photograph in a COCO file, relative to images/ next to the file, and to its folder."""
    real, folder = photo.resolve(), path.resolve().parent
    return [real.relative_to(r).as_posix() for r in ((folder / "images").resolve(), folder) if real.is_relative_to(r)]


def preview_of(image: np.ndarray, mask: np.ndarray, clicks: Clicks) -> np.ndarray:
    """The photograph, PREVIEW pixels at most, with the outline and the clicks; RGB uint8."""
    scale = min(1.0, PREVIEW / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    picture[small == 0] = (picture[small == 0] * 0.55).astype(np.uint8)
    contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, INSIDE, 2)
    own = clicks.scaled(scale, scale)
    for points, colour in ((own.inside, INSIDE), (own.outside, OUTSIDE)):
        for x, y in points:
            cv2.circle(picture, (round(x), round(y)), 6, (0, 0, 0), -1)
            cv2.circle(picture, (round(x), round(y)), 4, colour, -1)
    if own.box:
        x0, y0, x1, y1 = (round(v) for v in own.box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), BOX, 2)
    return picture


def variant_of(checkpoint: str, model: str | None) -> str:
    """Configuration of a checkpoint, derived from its file name if none is given.

    Raises:
        UserError: the file name does not contain the variant.
    """
    found = model or next((f"sam2.1_hiera_{v}" for k, v in VARIANTS.items() if k in Path(checkpoint).name), None)
    if found is None:
        raise UserError(f"{checkpoint}: its name does not contain the variant (give --model, e.g. sam2.1_hiera_t)")
    return found


def main(args: argparse.Namespace) -> None:
    """Make the outline, add it to the COCO file, write the preview."""
    photo = Path(args.photo)
    image = read_photograph(photo, args.depth)
    clicks = Clicks(args.box, args.points, args.without, args.polygon)
    try:
        clicks.check(image.shape[:2])
    except UserError as error:
        raise UserError(f"{photo}: {error}") from None
    files = {key: path for key in ("checkpoint", "encoder", "decoder") if (path := getattr(args, key))}
    if bool(args.encoder) != bool(args.decoder) or len(files) == 3:
        raise UserError("--encoder and --decoder are given together, and not with --checkpoint")
    model = variant_of(args.checkpoint, args.model) if args.checkpoint else "nano"
    beside = photo.parent.parent if photo.parent.name == "images" else photo.parent
    out = Path(args.out) if args.out else beside / "annotations.json"
    if clicks.polygon:
        corners = np.round(clicks.polygon).astype(np.int32)
        mask = cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), [corners], 1) > 0
    elif clicks.box is None:
        mask = by_clicks(image, clicks, files, model)
    elif files:
        mask = by_network(image, clicks, load_network(files, model))
    else:
        mask = by_grabcut(image, clicks)
    mask = tidy(mask, clicks)
    if not mask.any():
        raise UserError(f"{photo}: the outline is empty (draw the box closer, add --points, or give --polygon)")
    content = add_to_coco(out, photo, mask, args.category, args.replace)
    preview = Path(args.preview or f"results/outlines/{photo.stem}.png")
    preview.parent.mkdir(parents=True, exist_ok=True)
    write_png(preview, preview_of(image, mask, clicks))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content)
    share, count = float(mask.mean()), len({one["image_id"] for one in content["annotations"]})
    print(f"outline of {share:.1%} of {os.fspath(photo)}: look at {preview}")
    print(f"written to {out} (photographs with an outline there: {count})")
    if share > 0.9 or any(mask[int(y), int(x)] for x, y in clicks.outside):
        print("WARNING: it includes background: add --not points there, or a closer --box", file=sys.stderr)


def _numbers(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        raise argparse.ArgumentTypeError(f"{text!r} is not {'x,y' if count == 2 else 'x0,y0,x1,y1'} in pixels")
    return values


def _point(text: str) -> Any:
    return _numbers(text, 2)


def _box(text: str) -> Any:
    return _numbers(text, 4)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog="python -m defectflow.segmentation.outline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photo", help="the photograph")
    parser.add_argument("--box", type=_box, metavar="X0,Y0,X1,Y1", help="a box around the whole part")
    parser.add_argument("--points", type=_point, nargs="+", default=[], metavar="X,Y", help="points on the part")
    beside = "points on the background, or in a hole"
    parser.add_argument("--not", type=_point, nargs="+", default=[], metavar="X,Y", dest="without", help=beside)
    parser.add_argument(
        "--polygon", type=_point, nargs="+", default=[], metavar="X,Y", help="the corners of the outline, in order"
    )
    parser.add_argument("--checkpoint", help="local file of SAM 2.1 (default: nano with points, GrabCut with a box)")
    parser.add_argument("--encoder", metavar="ONNX", help="encoder of SAM 1 (MobileSAM, for example), with --decoder")
    parser.add_argument("--decoder", metavar="ONNX", help="its decoder")
    parser.add_argument("--model", help="its variant, e.g. sam2.1_hiera_t (default: from the file name)")
    parser.add_argument(
        "--out",
        metavar="COCO",
        help="file to add to, created if missing (default: annotations.json next to images/, or next to PHOTO)",
    )
    parser.add_argument("--category", help='category of the part in the file (default: the only one, or "part")')
    parser.add_argument("--replace", action="store_true", help="replace an existing outline of the photograph")
    parser.add_argument("--preview", metavar="PNG", help="picture to look at (default: results/outlines/NAME.png)")
    add_option(parser)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
