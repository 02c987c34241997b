"""YOLO: one text file per photograph, a line per object; boxes or polygons in shares of the picture (0 to 1).

Standard library only; YAML, which Snakemake has, where a data.yaml names the classes.
Source: Ultralytics, "Object Detection Datasets Overview" and "Instance Segmentation Datasets Overview".
"""

import os
import re
from collections.abc import Iterable

from defectflow.core.files import UserError
from defectflow.images.formats import SUFFIXES
from defectflow.label_formats.collected import Collected, numbers
from defectflow.label_formats.photographs import PHOTOGRAPHS, beside, placed

OUTSIDE = 0.1  # by which coordinates may leave the picture
ABOVE = 2  # folders above that of the labels that may hold the list of classes
LISTS = ("classes.txt", "obj.names", "class.names", "predefined_classes.txt")
UNNAMED = "no list of classes (data.yaml, classes.txt): classes are called 0, 1, ..."
LINE = re.compile(r"\s*\d+(?:\.0*)?(?:\s+[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?){4,}\s*")


def looks_like(path: str) -> bool:
    """Whether the first line of a text file with content is an object: a class, and shares of the picture."""
    first = _first_line(path)
    return bool(LINE.fullmatch(first)) and all(-OUTSIDE <= float(v) <= 1 + OUTSIDE for v in first.split()[1:])


def is_numeric(path: str) -> bool:
    """Whether the first line with content begins with a number: a label file, which may be malformed."""
    return bool(re.match(r"\s*[-+.\d]+(\s|$)", _first_line(path)))


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as stream:
            return next((line for line in (stream.readline(65536) for _ in range(20)) if line.strip()), "")
    except OSError:
        return ""


def read_into(collected: Collected, path: str, folder: str, top: str, known: "Classes") -> None:
    """Add the photograph of a file; see `labelme.read_into`. Its name has `*` as suffix, which no YOLO file tells.

    Args:
        top: the folder that is read.
        known: the names of the classes.
    """
    image = collected.image(photograph(path, folder, top), 1, 1)
    source, names = known.of(os.path.dirname(path))
    if names is None and UNNAMED not in collected.notes:
        collected.notes.append(UNNAMED)
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        which, *values = numbers(line.split(), where)
        if which != int(which) or which < 0:
            raise UserError(f"{where}: class {which:g} is no whole number (YOLO: `class x y width height`)")
        if names is not None and which not in names:
            raise UserError(f"{where}: class {which:g}, and {source} names {len(names)} (correct one of them)")
        label = names[int(which)] if names is not None else str(int(which))
        if any(not -OUTSIDE <= value <= 1 + OUTSIDE for value in values[: 4 if len(values) == 5 else None]):
            far = next(value for value in values if not -OUTSIDE <= value <= 1 + OUTSIDE)
            raise UserError(f"{where}: {far:g} is no share of the picture, 0 to 1 (export it as YOLO)")
        if len(values) in (4, 5):  # 5: with the confidence of a prediction
            x, y, width, height = values[:4]
            corners = [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
            collected.box(image, label, corners)
        elif len(values) >= 6 and len(values) % 2 == 0:
            collected.polygon(image, label, list(zip(values[0::2], values[1::2], strict=True)))
        else:
            raise UserError(
                f"{where}: {len(values)} numbers after the class (4 for a box, x y of at least 3 points for an outline)"
            )


def photograph(path: str, folder: str, top: str) -> str:
    """Name of the photograph of a label file: in the folder `images` beside `labels` if there is one, or beside it."""
    name = f"{os.path.splitext(os.path.basename(path))[0]}.*"
    return beside(os.path.dirname(path), name, top, "labels") or placed(name, folder)


class Classes:
    """The names of the classes, read once for each folder of labels.

    Args:
        top: the folder of labels that is read; lists are looked for there, below, and up to ABOVE levels above it.
    """

    def __init__(self, top: str) -> None:
        self._last = os.path.abspath(top)
        for _ in range(ABOVE):
            self._last = os.path.dirname(self._last)
        self._known: dict[str, tuple[str, dict[int, str] | None]] = {}

    def lists(self, folder: str) -> list[str]:
        """Files that name the classes of the labels in a folder: those of the nearest folder that has one."""
        at = os.path.abspath(folder)
        while True:
            try:
                names = sorted(os.listdir(at))
            except OSError:
                names = []
            paths = [os.path.join(at, name) for name in names]
            found = [path for path in paths if os.path.basename(path).lower() in LISTS or _has_names(path)]
            if found or at in (self._last, os.path.dirname(at)):
                return found
            at = os.path.dirname(at)

    def of(self, folder: str) -> tuple[str, dict[int, str] | None]:
        """The file that names the classes of the labels in a folder, and {number: name}; None where there is none.

        Raises:
            UserError: it is malformed, describes keypoints, or two files of one folder disagree.
        """
        if folder not in self._known:
            found = [(path, _read_list(path)) for path in self.lists(folder)]
            for path, names in found[1:]:
                if names != found[0][1]:
                    raise UserError(f"{found[0][0]} and {path} name different classes (delete the wrong one)")
            self._known[folder] = found[0] if found else ("", None)
        return self._known[folder]


def _has_names(path: str) -> bool:
    if not path.lower().endswith((".yaml", ".yml")):
        return False
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return bool(re.search(r"^[\"']?names[\"']?\s*:", stream.read(1_000_000), re.MULTILINE))
    except OSError:
        return False


def _read_list(path: str) -> dict[int, str]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from None
    if not path.lower().endswith((".yaml", ".yml")):
        return dict(enumerate(line.strip() for line in text.rstrip().splitlines()))
    import yaml  # Snakemake has it; only where a YAML file is read

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no `names: [...]` in it (list the classes)")
    if "kpt_shape" in content:
        raise UserError(f"{path}: the labels are keypoints (kpt_shape), not outlines or boxes (export these)")
    names = content["names"]
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        return {key: str(name) for key, name in names.items()}
    if isinstance(names, list):
        return dict(enumerate(map(str, names)))
    raise UserError(f"{path}: `names` is neither a list of classes nor `number: name` (correct it)")


def photographs_beside(folder: str, paths: Iterable[str]) -> bool:
    """Whether one of these label files of a folder has a photograph of its name, beside it or in `images`."""
    wanted = {os.path.splitext(os.path.basename(path))[0] for path in paths}
    parts = os.path.abspath(folder).split(os.sep)
    places = {os.path.abspath(folder)}
    for n in range(len(parts) - 1, 0, -1):
        if parts[n].lower() == "labels":
            places |= {os.sep.join([*parts[:n], name, *parts[n + 1 :]]) for name in PHOTOGRAPHS}
            places |= {os.sep.join(parts[:n])}
            break
    for place in sorted(places):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if stem in wanted and suffix.lower() in SUFFIXES:
                        return True
        except OSError:
            continue
    return False
