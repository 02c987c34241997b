"""COCO annotations to masks: polygons, compressed and uncompressed RLE, several per image, EXIF-rotated photographs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectflow.dataset import category_ids
from defectflow.files import UserError
from defectflow.images import orientation_of
from defectflow.naming import Matcher
from defectflow.picture_files import UNREADABLE, unreadable


def annotations_by_image(coco: Mapping[str, list], category: str | None = None) -> dict[Any, list[dict]]:
    """Map image id to its annotations (of one category), in the order of the file; unknown categories are left out.

    Args:
        coco: what ``dataset.read_coco`` returned.
        category: name of a category, None for all that the file lists (for any if it lists none).

    Raises:
        UserError: there is no such category.
    """
    allowed = category_ids(coco, category)
    found = defaultdict(list)
    for annotation in coco["annotations"]:
        if allowed is None or annotation.get("category_id") in allowed:
            found[annotation["image_id"]].append(annotation)
    return dict(found)


def entries_by_name(coco: Mapping[str, list], names: Iterable[str]) -> tuple[dict[str, dict], list[str]]:
    """Find the image that each entry of the COCO file means.

    Args:
        coco: what ``dataset.read_coco`` returned.
        names: names of all images relative to the image folder.

    Returns:
        {name: entry} in the order of the file, and one line per entry that fits no image or comes twice.
    """
    matcher = Matcher(names, (str(entry["file_name"]) for entry in coco["images"]))
    found, ids, problems = {}, set(), []
    for entry in coco["images"]:
        name, reason = matcher.find(str(entry["file_name"]))
        if name in found:
            reason = "listed twice"
        elif entry["id"] in ids:
            reason = f"its id {entry['id']} is that of another image"
        if reason:
            problems.append(f"image {entry['file_name']}: {reason}")
            continue
        ids.add(entry["id"])
        found[name] = entry
    return found, problems


def part_mask(
    entry: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], raw_size: tuple[int, int], orientation: int
) -> tuple[np.ndarray | None, int, list[str]]:
    """Union of the annotations of one image, in the frame of the upright picture.

    Annotations refer to the upright picture if their size is that of the upright picture; if it is only that of the
    pixels as stored, the mask is turned along with the picture.

    Args:
        entry: the image in the COCO file.
        annotations: those of the image.
        raw_size: (width, height) of the pixels as stored.
        orientation: EXIF orientation, 1 to 8.

    Returns:
        bool mask of the upright picture (None: nothing usable), number of annotations used, one line per problem.
    """
    upright_size = turned_size(raw_size, orientation)
    size = annotated_size(entry, annotations) or upright_size
    if size not in (upright_size, raw_size):
        stored = f" ({raw_size[0]}x{raw_size[1]} before EXIF rotation)" if raw_size != upright_size else ""
        text = f"sizes disagree: annotated as {size[0]}x{size[1]}, the picture has {upright_size[0]}x{upright_size[1]}"
        return None, 0, [text + stored]
    mask, used, problems = np.zeros(size[::-1], bool), 0, []
    for annotation in annotations:
        name = f"annotation {annotation.get('id', '?')}"
        try:
            part = decode(annotation.get("segmentation"), *size)
        except UserError as error:
            problems.append(f"{name}: {error}")
            continue
        if not part.any():
            problems.append(f"{name}: its mask is empty")
            continue
        mask |= part
        used += 1
    if not used:
        return None, 0, problems
    return (mask if size == upright_size else upright(mask, orientation)), used, problems


def decode(segmentation: Any, width: int, height: int) -> np.ndarray:
    """Decode one ``segmentation`` (list of polygons, or RLE dict) to a bool mask (height, width).

    Raises:
        UserError: it is missing, malformed or of another size.
    """
    if isinstance(segmentation, dict):
        return _decode_rle(segmentation, width, height)
    if not isinstance(segmentation, list) or not segmentation:
        raise UserError("it has no outline (a box alone is not enough: export polygons or masks)")
    from pycocotools import mask as mask_utils

    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    rles = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            points = np.empty(0)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise UserError("a polygon needs at least 3 points x1, y1, x2, y2, ...")
        # A point far outside would make the rasteriser walk (and allocate) all the way to it.
        limits = np.tile([width, height], len(points) // 2)
        rles += mask_utils.frPyObjects([points.clip(-limits, 2 * limits).tolist()], height, width)
    merged = mask_utils.merge(rles)
    return _decode_rle({"size": merged["size"], "counts": merged["counts"].decode("ascii")}, width, height)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode a bool mask (height, width) as compressed RLE ``{"size": [height, width], "counts": str}``."""
    from pycocotools import mask as mask_utils

    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def annotated_size(entry: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """(width, height) the annotations of an image refer to: from its entry, else from an RLE; None if not told."""
    width, height = entry.get("width"), entry.get("height")
    if width and height:
        return int(width), int(height)
    for annotation in annotations:
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, dict) and _is_size(segmentation.get("size")):
            return int(segmentation["size"][1]), int(segmentation["size"][0])
    return None


def stored_size(path: str | Path) -> tuple[tuple[int, int], int]:
    """((width, height) of the pixels as stored, EXIF orientation 1 to 8) of an image file, from its header.

    Raises:
        UserError: not a readable image.
    """
    try:
        with Image.open(path) as image:
            return image.size, orientation_of(image)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the upright picture, from that of the stored one."""
    return size[::-1] if orientation >= 5 else size


def upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (height, width, ...) as stored into the upright picture (EXIF 2.32, tag 0x0112)."""
    turns = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    return np.ascontiguousarray(turns[orientation](mask)) if orientation in turns else mask


def _decode_rle(rle: Mapping[str, Any], width: int, height: int) -> np.ndarray:
    """Decode RLE (column by column, starting with background); every run is checked, which pycocotools does not do."""
    size, counts = rle.get("size"), rle.get("counts")
    if not _is_size(size):
        raise UserError("its RLE has no size [height, width]")
    if [int(side) for side in size] != [height, width]:
        raise UserError(f"sizes disagree: its RLE is {size[1]}x{size[0]}, its image {width}x{height}")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise UserError("its RLE counts are malformed")
    if sum(runs) != width * height:
        raise UserError(f"its RLE covers {sum(runs)} of {width * height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _runs(counts: str) -> list[int]:
    """Run lengths in a compressed RLE string: 5 bits per character plus 48, from the third on as differences to the
    run before the last (cocoapi, maskApi.c, rleFrString)."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise UserError("its RLE counts are malformed")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _is_size(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
