"""Outlines of the part drawn at the desk, read from and written to the COCO file of the data set."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectflow.annotations.coco import annotations_by_image, part_mask
from defectflow.annotations.outline_set import reading_of
from defectflow.core.files import UserError, read_json, write_json
from defectflow.desk.pictures.thumbnails import to_look_at
from defectflow.desk.project import Project
from defectflow.images.exif_orientation import stored_size
from defectflow.listing.image_names import is_image
from defectflow.segmentation.outline import add_to_coco
from defectflow.sources.annotation_kinds import is_box
from defectflow.sources.dataset import read_coco

SIDE = 1024  # pixels, longer side of the picture to draw on
LARGEST = 4_000_000  # bytes of an outline as PNG
OUTLINES = "annotations.json"


def photograph_path(project: Project, name: str) -> Path:
    """The file of a photograph by its name below photographs/.

    Raises:
        UserError: there is no such photograph.
    """
    path = project.path_inside(name, project.photographs)
    if not is_image(name) or not path.is_file():
        raise UserError(f"{name[:100]!r}: not a photograph of this desk")
    return path


def reduced(image: np.ndarray) -> np.ndarray:
    """A photograph reduced for drawing: its longer side SIDE pixels at most."""
    scale = SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def annotations_file(project: Project) -> Path:
    """The COCO file of the outlines: the one named in the entry of the data set, or a new one.

    Raises:
        UserError: the entry names several, or one outside the folder.
    """
    named = project.settings()["datasets"][project.dataset].get("annotations")
    if isinstance(named, list):
        named = named[0] if len(named) == 1 else "" if named else None
    if named == "":
        raise UserError("config.yaml names several annotation files (use your annotation tool, or name only one)")
    return project.path_inside(named or OUTLINES)


def content_of(project: Project) -> dict[str, Any]:
    path = annotations_file(project)
    if not path.is_file():
        return {"images": [], "annotations": [], "categories": []}
    read_coco(path)  # checks its form
    content: dict[str, Any] = read_json(path)
    if not isinstance(content, dict) or "images" not in content:
        raise UserError(f"{path}: outlines of another tool than COCO (change them there)")
    return content


def category_of(project: Project) -> str | None:
    """The category that the data set names for the part; None: all in the COCO file are it."""
    category: str | None = project.settings()["datasets"][project.dataset].get("category")
    return category


def outlined(project: Project) -> set[str]:
    """Names of the photographs that have an outline of the part in the COCO file."""
    with suppress(UserError):
        if (path := annotations_file(project)).is_file():
            coco = read_coco(path)
            drawn_on = annotations_by_image(coco, category_of(project))
            return {str(one["file_name"]) for one in coco["images"] if one["id"] in drawn_on}
    return set()


def outline_of(project: Project, name: str) -> np.ndarray | None:
    """The outline of a photograph in the COCO file, bool (height, width) of the upright photograph, or None.

    Its frame, size and unit are found as in a run, see `outline_set.reading_of`.
    """
    path, folder = annotations_file(project), project.photographs
    if not path.is_file():
        return None
    coco = read_coco(path)
    by_image = annotations_by_image(coco, category_of(project))
    entries, outlines, sizes = {}, {}, {}
    for entry in coco["images"]:
        one, drawn = str(entry["file_name"]), [an for an in by_image.get(entry["id"], []) if not is_box(an)]
        with suppress(UserError):  # an image that is not here, or not readable
            if drawn:
                sizes[one] = stored_size(photograph_path(project, one))
                entries[one], outlines[one] = entry, drawn
    if name not in outlines:
        return None
    reading = reading_of(name, str(folder), entries, outlines, sizes)
    return part_mask(entries[name], outlines[name], *sizes[name], reading)[0] if reading else None


def drawn_mask(photograph: Path, body: bytes) -> np.ndarray:
    """What a person has drawn on the reduced picture of a photograph, bool (height, width) of the upright photograph.

    Args:
        photograph: its file.
        body: a PNG of the size of the picture that the person has drawn on; what is not black is drawn.

    Raises:
        UserError: it is no such PNG.
    """
    image = to_look_at(photograph)
    size = reduced(image).shape[:2]
    if len(body) > LARGEST or body[:8] != b"\x89PNG\r\n\x1a\n" or _png_size(body) != size:
        raise UserError(f"what is drawn is a PNG of {size[1]} x {size[0]} pixels")
    told = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)
    if told is None or told.shape != size:
        raise UserError(f"what is drawn is a PNG of {size[1]} x {size[0]} pixels")
    full: np.ndarray = cv2.resize((told > 127).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return full >= 0.5


def save_outline(project: Project, name: str, body: bytes) -> dict[str, Any]:
    """Write the outline of a photograph into the COCO file, and name the file in the entry of the data set.

    Args:
        name: of the photograph.
        body: a PNG of the size of the picture that was drawn on; white is the part.

    Raises:
        UserError: it is not such a PNG, or the part is empty or the whole photograph.
    """
    full = drawn_mask(photograph_path(project, name), body)
    share = float(full.mean())
    if not 0 < share < 1:
        raise UserError("the outline is empty, or the whole photograph (outline the part)")
    path = annotations_file(project)
    with project.lock:
        content = add_to_coco(path, project.photographs / name, full, category_of(project), True, name)
        write_json(path, content)
        entry = project.settings()["datasets"][project.dataset]
        if not entry.get("annotations"):
            project.change_entry({"annotations": path.relative_to(project.folder).as_posix()})
    return {"share": share, "outlined": len(outlined(project)), "file": path.name}


def remove_outline(project: Project, name: str) -> dict[str, Any]:
    """Remove the outline of the part from the COCO file; other categories stay, an empty file goes and is not named.

    Raises:
        UserError: it has none.
    """
    with project.lock:
        content, path = content_of(project), annotations_file(project)
        entry = next((one for one in content["images"] if one["file_name"] == name), None)
        if entry is None or name not in outlined(project):
            raise UserError(f"{name[:100]!r}: has no outline")
        drawn = annotations_by_image(read_coco(path), category_of(project))[entry["id"]]
        content["annotations"] = [one for one in content["annotations"] if one not in drawn]
        if not any(one["image_id"] == entry["id"] for one in content["annotations"]):
            content["images"] = [one for one in content["images"] if one["id"] != entry["id"]]
        if content["annotations"]:
            write_json(path, content)
        else:
            project.change_entry({"annotations": None})
            path.unlink()
    return {"outlined": len(outlined(project))}


def _png_size(body: bytes) -> tuple[int, int]:
    """(height, width) that a PNG declares, before it is decoded."""
    return int.from_bytes(body[20:24], "big"), int.from_bytes(body[16:20], "big")
