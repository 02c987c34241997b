"""A data set on disk: its images, their labels from folders and labels.csv, its COCO file.

Standard library only: the Snakefile imports this module through ``preflight``. A data set is given as the dict that
``preflight.resolve`` returns: layout, images, annotations, labels, category.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from defectflow.core.files import UserError, nearest_path, read_json
from defectflow.core.records import Coco, CocoImage, DataSet, Id
from defectflow.label_formats.label_files import read_tool
from defectflow.listing.annotation_files import folder_of, merged, paths
from defectflow.listing.archives import archives_in, unpack
from defectflow.listing.folders import Folders, subfolders, tells_labels
from defectflow.listing.image_names import leaves
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.feedback import by_photograph, read_feedback
from defectflow.sources.labels_csv import LABEL_COLUMNS, read_labels, second_row


class Problem(NamedTuple):
    """Something wrong with one file; ``left_out`` says what is dropped for it: image, annotation, label or mask."""

    file: str
    text: str
    left_out: str


class Notice(NamedTuple):
    """A correction or skipped file that did not stop the run, for one file or the whole set.

    ``figure`` names the figures it affects ("masks", "verdicts" or "pixels"), so that metrics.json repeats it; "" for
    none.
    """

    file: str
    text: str
    figure: str = ""


def image_paths(resolved: DataSet, folders: Folders | None = None) -> dict[str, str]:
    """{relative name: path} of the images of a data set, sorted by name; see `image_names`."""
    folder = str(resolved["images"])
    return {name: os.path.join(folder, name) for name in sorted(image_names(resolved, folders))}


def image_names(resolved: DataSet, folders: Folders | None = None) -> Iterator[str]:
    """Yield the names of the images of a data set (MVTec: of those in train/ and test/), relative to its folder.

    ``folders``: how its folders are read, if known.

    Raises:
        UserError: the folder is absent or holds no image, or a name is not UTF-8 (tables are UTF-8).
    """
    folder = str(resolved["images"])
    if not os.path.isdir(folder):
        what = "not a folder" if os.path.exists(folder) else f"no such folder{nearest_path(folder)}"
        raise UserError(f"{folder}: {what} (correct `path` or `images` of the data set in the config)")
    empty = True
    for name in (folders or Folders(resolved)).photographs():
        empty = False
        try:
            name.encode()
        except UnicodeEncodeError:
            told = os.fsencode(name).decode(errors="backslashreplace")
            raise UserError(f"{folder}: the name {told} is not UTF-8 (rename the file)") from None
        yield name
    if empty and (packed := archives_in(folder)):
        raise UserError(f"{folder}: no images in this folder ({unpack(packed[0], folder)})")
    if empty:
        raise UserError(f"{folder}: no images in this folder (.jpg, .png, .tif and others; point `images` at them)")


def image_rows(
    resolved: DataSet, names: Iterable[str], folders: Folders | None = None
) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """What folders and labels.csv say of each image, {name: row}, and the problems; see `row_reader`."""
    names = sorted(names)
    row, problems = row_reader(resolved, names, folders)
    return {name: row(name) for name in names}, problems


def row_reader(
    resolved: DataSet, names: Iterable[str], folders: Folders | None = None
) -> tuple[Callable[[str], dict[str, str]], list[Problem]]:
    """What folders (MVTec layout), labels.csv and people say of an image; filled cells of labels.csv take precedence.

    Args:
        resolved: the data set.
        names: of all its images.
        folders: how its folders are read, if known.

    Returns:
        A function from name to {label, defect_type, group, mask (a path), split}, every value a str, "" if unknown,
        and ``said`` where the table of feedback alone has the label; and a problem for each row of labels.csv that
        matches no image or is a duplicate, and of the feedback that contradicts the labels.

    Raises:
        UserError: labels.csv cannot be read, has a wrong column or a wrong value.
    """
    folders = folders or Folders(resolved)
    labels = read_labels(resolved["labels"]) if resolved["labels"] else []
    matcher = Matcher(names, (given["filename"] for given in labels), str(resolved["images"]))
    filled: dict[str, dict[str, str]] = {}
    first: dict[str, dict[str, str]] = {}
    base = os.path.dirname(str(resolved["labels"]))
    problems: list[Problem] = []
    for given in labels:
        name, reason = matcher.find(given["filename"])
        if name is None or name in filled:
            text = f"{given['filename']}: {reason if name is None else second_row(first[name], given, filled[name])}"
            problems.append(Problem(str(resolved["labels"]), text, "label"))
            continue
        first[name] = given
        filled[name] = {column: given[column] for column in LABEL_COLUMNS[1:] if given[column]}
        if "mask" in filled[name]:
            if leaves(filled[name]["mask"]):
                text = f"{given['filename']}: the path of the mask leaves the folder of labels.csv"
                problems.append(Problem(str(resolved["labels"]), text, "mask"))
                del filled[name]["mask"]
            else:
                filled[name]["mask"] = os.path.join(base, filled[name]["mask"].replace("\\", "/"))

    def row(name: str) -> dict[str, str]:
        told, said = folders.row(name), filled.get(name, {})
        if said.get("label") == "0" and told.get("defect_type"):
            told = told | {"defect_type": ""}  # a kind that the folder gives is none of a good photograph
        return dict.fromkeys(LABEL_COLUMNS[1:], "") | told | said

    table, images = resolved.get("feedback"), str(resolved["images"])
    if table:
        rows = read_feedback(table, [images], least=0)
        about, others = by_photograph(rows, images, names)
        text = f"is no photograph of {images} (copy it there, or take the row out)"
        problems += [Problem(table, f"line {one.line}: {one.path} {text}", "label") for one in others]
        for name, said in about.items():
            known, label = row(name), str(int(said.bad))
            if known["label"] not in ("", label):
                words = ("good", "bad") if said.bad else ("bad", "good")
                text = (
                    f"line {said.line}: {name} is said to be {words[1]} and labelled {words[0]} (correct one of them)"
                )
                problems.append(Problem(table, text, "label"))
                continue
            filled.setdefault(name, {})["label"] = label
            filled[name] |= {} if known["label"] else {"said": label}
            masks = [f"line {one.line}" for one in rows if one.sha256 == said.sha256 and one.mask]
            if masks and os.path.exists(known["mask"]) and not os.path.samefile(str(said.mask), known["mask"]):
                masks.append(known["mask"])
            if len(masks) > 1:
                text = f"{name} has several masks: {', '.join(masks)} (draw all of its damage into one, and keep that)"
                problems.append(Problem(table, text, "mask"))
            elif masks:
                filled[name]["mask"] = str(said.mask)
    return row, problems


def read_coco(path: str | Path | Sequence[str], images: str | Path | None = None) -> Coco:
    """Read a COCO file and check its form: lists ``images``, ``annotations`` and ``categories`` (may be empty).

    Annotations of other tools are read into the same form, see `label_files.read_tool`.

    Args:
        path: the file or folder, or several that are read as one (see `annotation_files.merged`).
        images: folder of the photographs; an entry of a file that lies in a folder below it gets the name of that
            folder as ``_folder``, for `match_names_to_photographs.Matcher`.

    Raises:
        UserError: the file is absent, malformed, of no known tool, or holds no image or no annotation.
    """
    files = paths(path if isinstance(path, str | Sequence) else str(path))
    found = []
    for file in files:
        found.append((file, _read_coco(file)))
        for image in found[-1][1]["images"]:
            image["_folder"] = folder_of(file, images)
            if images and os.path.isdir(file):
                image.update(_inside(image, file, images))
    return found[0][1] if len(files) == 1 else merged(found)


def _inside(image: CocoImage, folder: str, images: str | Path) -> CocoImage:
    """An image of a file in this folder; a name with `../` that leads to the photographs is made relative to them."""
    name = str(image["file_name"])
    below = os.path.relpath(os.path.join(folder, name), images).replace(os.sep, "/")
    return image if not name.startswith("../") or leaves(below) else image | {"file_name": below, "_folder": ""}


def _read_coco(path: str) -> Coco:
    if tool := read_tool(path):
        return tool
    coco = read_json(path)
    if not isinstance(coco, dict) or not all(isinstance(coco.get(key), list) for key in ("images", "annotations")):
        raise UserError(f"{path}: not a COCO file (it needs the lists `images` and `annotations`)")
    for key in ("images", "annotations"):
        if not coco[key]:
            raise UserError(f"{path}: the list `{key}` is empty (export it again, or leave `annotations` out)")
    needed = {"images": ("id", "file_name"), "annotations": ("image_id",)}
    for key, fields in needed.items():
        for number, item in enumerate(coco[key]):
            missing = [f for f in fields if not isinstance(item, dict) or not isinstance(item.get(f), int | str)]
            if missing:
                raise UserError(f"{path}: {key}[{number}] has no valid {missing[0]!r} (not a COCO file?)")
    for number, image in enumerate(coco["images"]):
        for side in ("width", "height"):
            if image.get(side) is not None and not (isinstance(image[side], int | float) and image[side] >= 0):
                raise UserError(f"{path}: images[{number}] has no valid {side!r} (pixels, or leave it out)")
    categories = list(filter(lambda one: isinstance(one, dict), coco.get("categories") or []))
    return {"images": coco["images"], "annotations": coco["annotations"], "categories": categories}


def category_ids(coco: Coco, category: str | None, source: object = "COCO file") -> set[Id | None] | None:
    """Ids of the categories named ``category``, or of all if it is None; None (any id) if the file lists no category.

    Raises:
        UserError: there is no such category.
    """
    if category is None:
        return {c.get("id") for c in coco["categories"]} or None
    ids = {c.get("id") for c in coco["categories"] if c.get("name") == category}
    if not ids:
        names = [str(c.get("name")) for c in coco["categories"]]
        near = difflib.get_close_matches(category, names, 1)
        hint = f"{near[0]}? " if near else ""
        raise UserError(f"{source}: no category {category!r} ({hint}it has: {', '.join(names) or 'none'})")
    return ids


def categories(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The data sets that one entry of ``datasets:`` stands for, by name.

    With ``categories: all`` or a list of folders, each folder of ``path`` that is in the MVTec layout becomes the data
    set `<name>-<folder>`; without, the entry stands for itself.

    Raises:
        UserError: a requested category is not in the MVTec layout, or none is; a folder name is unusable for results.
    """
    wanted, root = entry.get("categories"), entry.get("path")
    if wanted is None:
        return {name: dict(entry)}
    if not root or not os.path.isdir(root):
        near = nearest_path(root) if root else ""
        raise UserError(f"{root}: no such folder{near} (categories of data set {name!r} are looked for there)")
    found = [folder for folder, path in subfolders(root).items() if tells_labels(path, entry.get("good") or ())]
    if wanted == "all":
        wanted = found
    for folder in wanted:
        if folder not in found:
            raise UserError(f"{root}/{folder}: not in the MVTec layout (known: {', '.join(found) or 'none'})")
        if not re.fullmatch(r"[\w.+-]+", folder, re.ASCII):
            raise UserError(f"{root}/{folder}: the name becomes a folder of results (use letters, digits, - and _)")
    if not wanted:
        raise UserError(f"{root}: no folder in it has train/good (give the folder that holds the categories)")
    rest = {key: value for key, value in entry.items() if key != "categories"}
    return {f"{name}-{folder}": rest | {"path": os.path.join(root, folder)} for folder in wanted}
