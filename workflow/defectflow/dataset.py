"""A data set as it lies on disk: its images, what folders and labels.csv say of them, its COCO file.

Standard library only: the Snakefile imports this module through ``preflight``. A data set is given as the dict that
``preflight.resolve`` returns: layout, images, annotations, labels, category.
"""

import csv
import difflib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from defectflow.files import UserError, read_json
from defectflow.naming import Matcher, is_image, leaves, scan

LABEL_COLUMNS = ("filename", "label", "defect_type", "group", "mask", "split")
# Spreadsheets and pandas write 0 and 1 as 0.0 and 1.0 when other cells of the column are empty.
LABELS = {"": "", "0": "0", "0.0": "0", "good": "0", "1": "1", "1.0": "1", "bad": "1"}


class Problem(NamedTuple):
    """Something wrong with one file; ``left_out`` says what goes without it: image, annotation, label or mask."""

    file: str
    text: str
    left_out: str


class Notice(NamedTuple):
    """Something about one file, or about the whole set, that was put right or passed over without stopping the run.

    ``figure`` says which figures it bears on, masks, verdicts or pixels, so that metrics.json repeats it; "" for none.
    """

    file: str
    text: str
    figure: str = ""


def image_paths(resolved: Mapping[str, str | None]) -> dict[str, str]:
    """{relative name: path} of the images of a data set, sorted by name; see `image_names`."""
    folder = str(resolved["images"])
    return {name: os.path.join(folder, name) for name in sorted(image_names(resolved))}


def image_names(resolved: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the names of the images of a data set (MVTec: of those in train/ and test/), relative to its folder.

    Raises:
        UserError: the folder is absent or holds no image, or a name is not UTF-8, as tables are.
    """
    folder = str(resolved["images"])
    if not os.path.isdir(folder):
        what = "not a folder" if os.path.exists(folder) else "no such folder"
        raise UserError(f"{folder}: {what} (correct `path` or `images` of the data set in the config)")
    empty = True
    for name, _ in scan(folder):
        if _belongs(resolved, name):
            empty = False
            try:
                name.encode()
            except UnicodeEncodeError:
                told = os.fsencode(name).decode(errors="backslashreplace")
                raise UserError(f"{folder}: the name {told} is not UTF-8 (rename the file)") from None
            yield name
    if empty:
        raise UserError(f"{folder}: no images in this folder (.jpg, .png, .tif and others; point `images` at them)")


def image_rows(
    resolved: Mapping[str, str | None], names: Iterable[str]
) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """What folders and labels.csv say of each image, {name: row}, and the problems; see `row_reader`."""
    names = sorted(names)
    row, problems = row_reader(resolved, names)
    return {name: row(name) for name in names}, problems


def row_reader(
    resolved: Mapping[str, str | None], names: Iterable[str]
) -> tuple[Callable[[str], dict[str, str]], list[Problem]]:
    """What folders (MVTec layout) and labels.csv say of an image; filled cells of labels.csv win.

    Args:
        resolved: the data set.
        names: of all its images.

    Returns:
        A function from name to {label, defect_type, group, mask (a path), split}, every value a str, "" where unknown;
        and the rows of labels.csv that fit no image or come twice.

    Raises:
        UserError: labels.csv cannot be read, has a wrong column or a wrong value.
    """
    labels = read_labels(resolved["labels"]) if resolved["labels"] else []
    matcher, filled = Matcher(names, (given["filename"] for given in labels)), {}
    base = os.path.dirname(str(resolved["labels"]))
    problems: list[Problem] = []
    for given in labels:
        name, reason = matcher.find(given["filename"])
        if name is None or name in filled:
            text = f"{given['filename']}: {reason or 'this image has two rows'}"
            problems.append(Problem(str(resolved["labels"]), text, "label"))
            continue
        filled[name] = {column: value for column, value in given.items() if column != "filename" and value}
        if "mask" in filled[name]:
            if leaves(filled[name]["mask"]):
                text = f"{given['filename']}: the path of the mask leaves the folder of labels.csv"
                problems.append(Problem(str(resolved["labels"]), text, "mask"))
                del filled[name]["mask"]
            else:
                filled[name]["mask"] = os.path.join(base, filled[name]["mask"].replace("\\", "/"))

    def row(name: str) -> dict[str, str]:
        of_place = _mvtec_row(str(resolved["images"]), name) if resolved["layout"] == "mvtec" else {}
        return dict.fromkeys(LABEL_COLUMNS[1:], "") | of_place | filled.get(name, {})

    return row, problems


def read_labels(path: str | Path) -> list[dict[str, str]]:
    """Read labels.csv (comma or semicolon, UTF-8): one dict per row with all LABEL_COLUMNS, label "0", "1" or "".

    Raises:
        UserError: the file is absent or not UTF-8, a column is wrong or missing, a label or split is not allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (correct `labels` in the config, or leave it out)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error}; save it as CSV UTF-8)") from None
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first and "," not in first else ",")
    columns = [column.strip() for column in reader.fieldnames or []]
    reader.fieldnames = columns
    allowed = ", ".join(LABEL_COLUMNS)
    for column in columns:
        if column not in LABEL_COLUMNS:
            near = difflib.get_close_matches(column.lower(), LABEL_COLUMNS, 1)
            raise UserError(f"{path}: unknown column {column!r} ({f'{near[0]}? ' if near else ''}allowed: {allowed})")
    for column in LABEL_COLUMNS[:2]:
        if column not in columns:
            raise UserError(f"{path}: column {column!r} is missing (the first line names the columns: {allowed})")
    rows = []
    for raw in reader:
        where = f"{path}, line {reader.line_num}"
        if None in raw:
            raise UserError(f"{where}: more cells than columns (put names with a comma in double quotes)")
        row = {column: (raw.get(column) or "").strip() for column in LABEL_COLUMNS}
        if not row["filename"]:
            if any(row.values()):
                raise UserError(f"{where}: no filename")
            continue
        if row["label"].lower() not in LABELS:
            raise UserError(f"{where}: label {row['label']!r} is not allowed (0 = good, 1 = bad, empty = unknown)")
        if row["split"] not in ("", "train", "test"):
            raise UserError(f"{where}: split {row['split']!r} is not allowed (train, test or empty)")
        row["label"] = LABELS[row["label"].lower()]
        rows.append(row)
    return rows


def read_coco(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO file and check its form: lists ``images``, ``annotations`` and ``categories`` (may be empty).

    Raises:
        UserError: the file is absent, not JSON, not COCO, or holds no image or no annotation.
    """
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
    coco["categories"] = [c for c in coco.get("categories") or [] if isinstance(c, dict)]
    return coco


def category_ids(coco: Mapping[str, list], category: str | None, source: object = "COCO file") -> set | None:
    """Ids of the categories named ``category``, of all where it is None; None (= any) where the file lists none then.

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


def is_mvtec(root: str | Path | None) -> bool:
    """Whether a folder is in the MVTec layout."""
    return os.path.isdir(os.path.join(str(root), "train", "good"))


def categories(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The data sets that one entry of ``datasets:`` stands for, by name.

    With ``categories: all`` or a list of folders, each folder of ``path`` that is in the MVTec layout becomes the data
    set `<name>-<folder>`; without, the entry stands for itself.

    Raises:
        UserError: a category that is asked for, or any at all, is not in the MVTec layout; an odd folder name.
    """
    wanted, root = entry.get("categories"), entry.get("path")
    if wanted is None:
        return {name: dict(entry)}
    if not root or not os.path.isdir(root):
        raise UserError(f"{root}: no such folder (categories of data set {name!r} are looked for there)")
    found = [folder for folder in sorted(os.listdir(root)) if is_mvtec(os.path.join(root, folder))]
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


def _belongs(resolved: Mapping[str, str | None], name: str) -> bool:
    if resolved["layout"] == "mvtec":
        return is_image(name) and name.startswith(("train/", "test/"))
    return is_image(name) and not name.startswith("ground_truth/")


def _mvtec_row(root: str, name: str) -> dict[str, str]:
    """Label, defect type, split and mask that the place of an image in the MVTec layout tells."""
    split, *folders, base = name.split("/")
    kind = folders[0] if folders else ""
    row = {"split": split, "label": "" if not kind else "0" if kind == "good" else "1"}
    if kind not in ("", "good"):
        row["defect_type"] = kind
        folder = os.path.join(root, "ground_truth", *folders)
        stem = os.path.splitext(base)[0]
        candidates = [os.path.join(folder, stem + ending) for ending in ("_mask.png", ".png")]
        if os.path.isdir(folder):  # no folder: this kind of defect has no masks; a folder without the file: a problem
            row["mask"] = next((path for path in candidates if os.path.exists(path)), candidates[0])
    return row
