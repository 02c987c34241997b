"""Decide how to read the outlines of a data set: which reading to use for each image, what to correct, what is wrong.

The sizes decide first (`outline_orientation_and_size`). If two readings fit, clear edges of the photograph decide.
Finally every outline is compared with its alternatives (`outline_looker`). All stages that decode outlines use this
module, so that they get the same masks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from defectflow.annotations.coco import annotations_by_image, listed_image, part_mask
from defectflow.annotations.outline_looker import CHECKED, SHEET, Looker, Suspect
from defectflow.annotations.outline_orientation_and_size import Reading, settle
from defectflow.core.records import Coco, CocoAnnotation, CocoImage, DataSet, Id
from defectflow.images.image_checks import Picture
from defectflow.listing.annotation_files import name_of
from defectflow.sources.annotation_kinds import is_box, is_rectangle
from defectflow.sources.dataset import Notice, Problem

ALIKE = 12  # images that vote on how the outlines of a single one are read


class Settled(NamedTuple):
    """What was found out about the outlines of a data set.

    Attributes:
        readings: {name: reading} of the images whose outlines are to be used.
        outlines: {name: annotations that have an outline}, of the images that have one.
        problems: of single images; `readings` lacks these.
        notices: corrections and skipped outlines, one for each kind.
        suspects: outlines to draw, the wrong ones first.
    """

    readings: dict[str, Reading]
    outlines: dict[str, list[CocoAnnotation]]
    problems: list[Problem]
    notices: list[Notice]
    suspects: list[Suspect]

    def mask(self, name: str, entry: CocoImage, picture: Picture) -> tuple[np.ndarray | None, int, list[str]]:
        """What `coco.part_mask` returns for an image; nothing for one whose outlines are not to be used."""
        if name not in self.readings:
            return None, 0, []
        return part_mask(entry, self.outlines[name], picture.raw_size, picture.orientation, self.readings[name])


def settle_outlines(
    resolved: DataSet,
    coco: Coco,
    entries: Mapping[str, CocoImage],
    pictures: Mapping[str, Picture],
    threads: int = 1,
) -> Settled:
    """Find frame, size and unit of the outlines of a data set, and check that they match their photographs.

    Args:
        resolved: the data set: images, annotations, category, and depth if its photographs have one.
        coco: its COCO file, as ``dataset.read_coco`` returned it.
        entries: {name: image in the COCO file}, as ``coco.entries_by_name`` finds them.
        pictures: measurements of each image.
        threads: photographs to examine at a time.
    """
    source, folder = name_of(resolved["annotations"]), str(resolved["images"])
    by_image, shared = annotations_by_image(coco, resolved["category"]), shared_ids(coco)
    problems: list[Problem] = []
    outlines, listed, boxed = {}, {}, []
    for name, entry in entries.items():
        annotations, picture = by_image.get(entry["id"], []), pictures[name]
        if annotations and entry["id"] in shared:
            others = ", ".join(shared[entry["id"]])
            text = f"its annotations may be those of another image: id {entry['id']} is that of {others}"
            problems.append(Problem(source, f"{name}: {text} (give each image an id of its own)", "annotation"))
            continue
        drawn = [annotation for annotation in annotations if not is_box(annotation)]
        if len(drawn) < len(annotations):
            boxed.append((name, bool(drawn)))
        if drawn and not picture.problem:
            outlines[name] = drawn
            listed[name] = listed_image(entry, drawn, picture.raw_size, picture.orientation)
    told: dict[str, list[str]] = defaultdict(list)
    for name, outlined in boxed:
        also = "; their outlines are used" if outlined else ": box only, no mask is learned from it (export polygons)"
        told[f"boxes without an outline{also}"].append(name)
    if not outlines and not problems:
        which = f" of category {resolved['category']}" if resolved["category"] else ""
        told[f"no outline{which} in it: no mask is learned"] = []
    choices = settle(listed)
    looker = Looker(folder, entries, outlines, listed, pictures, threads, resolved.get("depth"))
    looker.read({name: choice for name, choice in choices.items() if choice.readings})
    readings = {}
    for name, choice in choices.items():
        reading, doubt = looker.decide(name, choice)
        if reading is None:
            problems.append(Problem(source, f"{name}: {choice.problem}{looker.hint(name)}", "annotation"))
            continue
        readings[name] = reading
        for note in filter(None, (reading.note, doubt, *looker.notes[name])):
            told[note].append(name)
    suspects = looker.look(readings)
    boxes = _boxes(suspects, readings, outlines)
    doubtful = []
    for name, text, surely, _ in suspects:
        if boxes or surely:
            del readings[name]
        if surely and not boxes:
            problems.append(Problem(source, f"{name}: its outline does not match the part: {text}", "annotation"))
        elif not boxes:
            doubtful.append(name)
    if boxes:
        problems.append(Problem(source, boxes, "annotation"))
        readings = {}
    if doubtful:
        text = next(text for name, text, *_ in suspects if name == doubtful[0])
        which = "" if len(doubtful) == 1 else f"of {doubtful[0]}, "
        told[f"the outline may not match the part ({which}{text}): look at the sheet of outlines"] = doubtful
    told |= {text: [] for text in coco.get("notes", [])}
    notices = [Notice(source, f"{among(names)}: {text}" if names else text, "masks") for text, names in told.items()]
    if looker.left:
        text = f"{looker.left} outlines were not compared with their photographs, {CHECKED} others were"
        notices.append(Notice(source, text, "masks"))
    shown = sorted(suspects, key=lambda one: not one[2])[:SHEET]
    return Settled(readings, outlines, problems, notices, [suspect for *_, suspect in shown])


def reading_of(
    name: str,
    folder: str,
    entries: Mapping[str, CocoImage],
    outlines: Mapping[str, list[CocoAnnotation]],
    sizes: Mapping[str, tuple[tuple[int, int], int]],
) -> Reading | None:
    """How the outlines of one image are to be read, as `settle_outlines` finds it; None: in no way.

    The outline is not checked against its photograph. Where two readings fit, the edges of this image and of ALIKE
    others decide.

    Args:
        name: of the image.
        folder: of the photographs.
        entries: {name: image in the COCO file}.
        outlines: {name: annotations that have an outline}.
        sizes: {name: size and EXIF orientation as `exif_orientation.stored_size` returns them}, of all with an outline.
    """
    listed = {one: listed_image(entries[one], outlines[one], *sizes[one]) for one in outlines}
    choices = settle(listed)
    open_ones = [one for one, choice in choices.items() if len(choice.readings) > 1 or choice.confirm]
    looked_at = {one: choices[one] for one in dict.fromkeys([name, *open_ones[:ALIKE]]) if one in open_ones}
    pictures = {one: Picture(raw_size=size, orientation=turn) for one, (size, turn) in sizes.items()}
    looker = Looker(folder, entries, outlines, listed, pictures, 1)
    if name in looked_at:
        looker.read(looked_at)
    return looker.decide(name, choices[name])[0]


def shared_ids(coco: Coco) -> dict[Id, list[str]]:
    """{id: file names} of ids that several images of a COCO file share: annotations may belong to any."""
    names = defaultdict(list)
    for entry in coco["images"]:
        names[entry["id"]].append(str(entry["file_name"]))
    return {number: found for number, found in names.items() if len(set(found)) > 1}


def among(names: Sequence[str]) -> str:
    """A few names and how many there are: `12 images (a.jpg, b.jpg, c.jpg, ...)`."""
    if len(names) == 1:
        return names[0]
    return f"{len(names)} images ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _boxes(
    suspects: Sequence[object], readings: Mapping[str, Reading], outlines: Mapping[str, list[CocoAnnotation]]
) -> str:
    """The warning if all outlines of a set are upright rectangles and many do not follow edges; else ""."""
    drawn = [annotation.get("segmentation") for name in readings for annotation in outlines[name]]
    if not suspects or 4 * len(suspects) < len(readings) or not all(map(is_rectangle, drawn)):
        return ""
    return (
        f"all {len(drawn)} outlines are upright rectangles that do not follow the edges of the pictures: boxes? "
        "(draw outlines, or leave `annotations` out)"
    )
