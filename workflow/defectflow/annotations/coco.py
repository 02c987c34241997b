"""COCO annotations to masks: polygons, compressed and uncompressed RLE, several per image, EXIF-rotated photographs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from defectflow.annotations.outline_orientation_and_size import (
    STORED,
    UPRIGHT,
    Listed,
    Reading,
    extent_of,
    same_aspect,
    settle,
    told_size,
)
from defectflow.annotations.painted_masks import decode_painted, is_painted
from defectflow.core.files import UserError
from defectflow.core.records import Coco, CocoAnnotation, CocoImage, Id, Rle
from defectflow.images.exif_orientation import turned_size, upright
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.annotation_kinds import is_outline
from defectflow.sources.dataset import category_ids

BARE_RUNS = "outlines are bare run lengths (RLE without its size): read as RLE"
HOLE = 0.05  # a mask that covers the whole rim of the picture and leaves out at least this share of it may be inverted
BY_ROWS = "run row by row and not column by column: read by rows"


def annotations_by_image(coco: Coco, category: str | None = None) -> dict[Id, list[CocoAnnotation]]:
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


def entries_by_name(coco: Coco, names: Iterable[str]) -> tuple[dict[str, CocoImage], list[str]]:
    """Find the image that each entry of the COCO file means.

    Args:
        coco: what ``dataset.read_coco`` returned.
        names: names of all images relative to the image folder.

    Returns:
        {name: entry} in the order of the file, and one line per entry that fits no image or comes twice.
    """
    matcher = Matcher(names, ((str(entry["file_name"]), entry.get("_folder", "")) for entry in coco["images"]))
    found: dict[str, CocoImage] = {}
    ids: set[Id] = set()
    problems: list[str] = []
    for entry in coco["images"]:
        name, reason = matcher.find(str(entry["file_name"]), entry.get("_folder", ""))
        if name in found:
            reason = "listed twice"
        elif entry["id"] in ids:
            reason = f"its id {entry['id']} is that of another image"
        if name is None or reason:
            problems.append(f"image {entry['file_name']}: {reason}")
            continue
        ids.add(entry["id"])
        found[name] = entry
    return found, problems


def part_mask(
    entry: CocoImage,
    annotations: Sequence[CocoAnnotation],
    raw_size: tuple[int, int],
    orientation: int,
    reading: Reading | None = None,
    notes: list[str] | None = None,
) -> tuple[np.ndarray | None, int, list[str]]:
    """Union of the annotations of one image, in the frame of the upright picture.

    Args:
        entry: the image in the COCO file.
        annotations: those of the image.
        raw_size: (width, height) of the pixels as stored.
        orientation: EXIF orientation, 1 to 8.
        reading: of the coordinates; None: the likeliest for this image alone, by `outline_orientation_and_size.settle`.
        notes: gets a line for each correction of an RLE.

    Returns:
        bool mask of the upright picture (None: nothing usable), number of annotations used, one line per problem.
    """
    listed = listed_image(entry, annotations, raw_size, orientation)
    if reading is None:
        choice = settle({"": listed})[""]
        if choice.readings and (choice.confirm or not choice.problem):
            reading = choice.readings[0]
        elif listed.told not in dict(listed.frames()).values():
            return None, 0, [choice.problem]
        else:  # outlines outside of the picture are reported one by one
            reading = next(Reading(frame, size) for frame, size in listed.frames() if size == listed.told)
    upright_size, mask, used, problems = listed.upright_size, None, 0, []
    for annotation in annotations:
        name = f"annotation {annotation.get('id', '?')}"
        try:
            part, frame, note = _part(annotation.get("segmentation"), listed, reading)
        except UserError as error:
            problems.append(f"{name}: {error}")
            continue
        if not part.any():
            problems.append(f"{name}: its mask is empty")
            continue
        if is_inverted(part):
            text = "its mask covers the whole rim of the picture and not the inside: the ground, not the part?"
            problems.append(f"{name}: {text} (export the mask of the part)")
            continue
        part = upright(part, orientation) if frame == STORED else part
        mask = part if mask is None else mask | part
        used += 1
        if note and notes is not None and note not in notes:
            notes.append(note)
    assert mask is None or mask.shape == upright_size[::-1]
    return mask, used, problems


def listed_image(
    entry: CocoImage, annotations: Sequence[CocoAnnotation], raw_size: tuple[int, int], orientation: int
) -> Listed:
    """What `outline_orientation_and_size.settle` needs to know about an image; malformed outlines are ignored."""
    polygons: list[Sequence[float]] = []
    sizes: list[object] = []
    for annotation in annotations:
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, dict):
            sizes.append(segmentation.get("size"))
        elif isinstance(segmentation, list) and is_outline(segmentation) and not is_counts(segmentation, raw_size):
            for polygon in _polygons(segmentation):
                with suppress(UserError):
                    polygons.append(_points(polygon).ravel().tolist())
    told = told_size(entry)
    frames = (raw_size, turned_size(raw_size, orientation))
    turned = not polygons and told in frames and frames[0] != frames[1]  # an RLE belongs to the frame of its size
    size = next(iter(sizes), None)
    if _is_size(size) and (told is None or (turned and (size[1], size[0]) in frames)):
        told = (size[1], size[0])
    return Listed(raw_size, orientation, told, extent_of(polygons), bool(sizes))


def is_counts(segmentation: object, size: tuple[int, int]) -> TypeGuard[list[Any]]:
    """Whether a list is an RLE without its size: run lengths for a picture of ``size``."""
    if not isinstance(segmentation, list) or not segmentation:
        return False
    runs = segmentation[0] if len(segmentation) == 1 and isinstance(segmentation[0], list) else segmentation
    return all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == size[0] * size[1]


def decode(segmentation: object, width: int, height: int) -> np.ndarray:
    """Decode one ``segmentation`` (list of polygons, or RLE dict) to a bool mask (height, width).

    Raises:
        UserError: it is missing, malformed or of another size.

    >>> decode({"size": [2, 3], "counts": [2, 3, 1]}, width=3, height=2).astype(int).tolist()  # runs down the columns
    [[0, 1, 1], [0, 1, 0]]
    """
    if isinstance(segmentation, dict):
        return _decode_rle(segmentation, width, height)
    return decode_polygons(segmentation, width, height, (width, height))


def decode_polygons(segmentation: object, width: int, height: int, unit: tuple[float, float]) -> np.ndarray:
    """Decode a list of polygons to a bool mask (height, width); ``unit`` is that size in the unit of the coordinates.

    Raises:
        UserError: it is missing or malformed.
    """
    if not isinstance(segmentation, list) or not segmentation:
        raise UserError("it has no outline (a box alone is not enough: export polygons or masks)")
    from pycocotools import mask as mask_utils

    rles = []
    for polygon in _polygons(segmentation):
        points = _points(polygon) * (width / unit[0], height / unit[1])
        # With a point far outside, the rasteriser would walk (and allocate) all the way to it.
        limits = np.array([width, height])
        rles += mask_utils.frPyObjects([points.clip(-limits, 2 * limits).ravel().tolist()], height, width)
    merged = mask_utils.merge(rles)
    return _decode_rle({"size": merged["size"], "counts": merged["counts"].decode("ascii")}, width, height)


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Encode a bool mask (height, width) as compressed RLE ``{"size": [height, width], "counts": str}``."""
    from pycocotools import mask as mask_utils

    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _polygons(segmentation: list[Any]) -> list[Any]:
    """The polygons of a list that holds several polygons, or a single one as numbers or as points [x, y]."""
    if not isinstance(segmentation[0], list):
        return [segmentation]
    alone = len(segmentation) > 2 and all(isinstance(point, list) and len(point) == 2 for point in segmentation)
    return [segmentation] if alone else segmentation


def _points(polygon: Any) -> np.ndarray:
    """Points float64 (n, 2) of a polygon x1, y1, x2, y2, ..."""
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3:
        points = points.ravel()
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise UserError("a polygon needs at least 3 points x1, y1, x2, y2, ...")
    return points.reshape(-1, 2)


def _part(segmentation: object, listed: Listed, reading: Reading) -> tuple[np.ndarray, str, str]:
    """One outline as a bool mask of a frame, that frame, and what was corrected."""
    sizes = dict(listed.frames())
    if is_counts(segmentation, listed.raw_size):
        runs = segmentation[0] if isinstance(segmentation[0], list) else segmentation
        order = sorted(sizes.items(), key=lambda one: one[0] != reading.frame)
        candidates = [(_unrolled(runs, *size, by), frame, by) for frame, size in order for by in "CR"]
        mask, frame, by = min(candidates, key=lambda one: raggedness(one[0]))
        return mask, frame, BARE_RUNS + (f", {BY_ROWS}" if by == "R" else "")
    if not isinstance(segmentation, dict):
        width, height = sizes[reading.frame]
        return decode_polygons(segmentation, width, height, reading.unit), reading.frame, ""
    size = segmentation.get("size")
    if not _is_size(size):
        raise UserError("its RLE has no size [height, width]")
    height, width = size
    painted = is_painted(segmentation)
    runs = [] if painted else _sound_runs(segmentation, width, height)
    mask, note = decode_painted(segmentation) if painted else _unrolled(runs, width, height, "C"), ""
    if (
        not painted
        and raggedness(mask) > 4
        and raggedness(other := _unrolled(runs, width, height, "R")) < raggedness(mask) / 2
    ):
        mask, note = other, f"RLE {BY_ROWS}"
    frames = [frame for frame, known in sizes.items() if known == (width, height)]
    if frames:
        return mask, reading.frame if reading.frame in frames else frames[0], note
    if not painted and listed.orientation == 1 and (height, width) == sizes[UPRIGHT]:
        # Width and height were exchanged: in the size only, or rows were written instead of columns.
        mask = min((_unrolled(runs, height, width, order) for order in "CR"), key=raggedness)
        return mask, UPRIGHT, "RLE with width and height exchanged: corrected"
    frames = [frame for frame, known in sizes.items() if same_aspect((width, height), known)]
    if not frames:
        image = "x".join(map(str, sizes[UPRIGHT]))
        raise UserError(f"sizes disagree: its RLE is {width}x{height}, its image {image}")
    frame = reading.frame if reading.frame in frames else frames[0]
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(sizes[frame], Image.Resampling.BILINEAR)
    return np.asarray(scaled) >= 128, frame, f"RLE of another size than the picture ({width}x{height}): scaled"


def raggedness(mask: np.ndarray) -> float:
    """How ragged a mask is: changes between neighbouring pixels per column and row that it occupies.

    A filled shape has two changes in each; runs in the wrong order give stripes, with many.
    """
    columns, rows = mask.any(0).sum(), mask.any(1).sum()
    changes = np.count_nonzero(mask[:, 1:] != mask[:, :-1]) + np.count_nonzero(mask[1:] != mask[:-1])
    return float(changes / max(1, columns + rows))


def is_inverted(mask: np.ndarray) -> bool:
    """Whether a mask may be that of the background: it covers the whole rim of the picture and not the inside."""
    rim = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(side.all() for side in rim) and mask.mean() <= 1 - HOLE


def _unrolled(runs: Sequence[int], width: int, height: int, order: str) -> np.ndarray:
    """Run lengths, starting with background, as a bool mask: by columns ("C", as COCO has it) or by rows ("R")."""
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask = values.reshape(width, height).T if order == "C" else values.reshape(height, width)
    return np.ascontiguousarray(mask)


def _decode_rle(rle: Mapping[str, object], width: int, height: int) -> np.ndarray:
    """Decode RLE of this size."""
    size = rle.get("size")
    if not _is_size(size):
        raise UserError("its RLE has no size [height, width]")
    if [int(side) for side in size] != [height, width]:
        raise UserError(f"sizes disagree: its RLE is {size[1]}x{size[0]}, its image {width}x{height}")
    return _unrolled(_sound_runs(rle, width, height), width, height, "C")


def _sound_runs(rle: Mapping[str, object], width: int, height: int) -> list[int]:
    """Run lengths of an RLE; every run is checked, which pycocotools does not do."""
    counts = rle.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise UserError("its RLE counts are malformed")
    if sum(runs) != width * height:
        raise UserError(f"its RLE covers {sum(runs)} of {width * height} pixels")
    return runs


def _runs(counts: str) -> list[int]:
    """Run lengths in a compressed RLE string: 5 bits per character plus 48, from the fourth on as differences to the
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


def _is_size(size: object) -> TypeGuard[list[int]]:
    return isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
