"""Equal files among the photographs of a data set: which one to keep."""

from array import array
from collections.abc import Callable, Mapping

import numpy as np

from defectflow.images.image_checks import Picture
from defectflow.sources.dataset import Problem

EQUAL = "the same file as"  # how a problem begins
WORDS = {"0": "good", "1": "bad"}


def equal_files(pictures: Mapping[str, Picture]) -> list[list[str]]:
    """Names of sound images with equal content, two or more together, in the order of ``pictures``.

    Uses 8 bytes of memory per image.
    """
    marks = array("Q", (int(picture.sha256[:16], 16) for picture in pictures.values() if not picture.problem))
    ordered = np.sort(np.frombuffer(marks, np.uint64)) if marks else np.zeros(0, np.uint64)
    alike = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    found: dict[str, list[str]] = {}
    for name, picture in pictures.items() if alike else ():
        if not picture.problem and int(picture.sha256[:16], 16) in alike:
            found.setdefault(picture.sha256, []).append(name)
    return [names for names in found.values() if len(names) > 1]


def check_copies(pictures: Mapping[str, Picture], row: Callable[[str], Mapping[str, str]]) -> list[Problem]:
    """Problems of equal files: all of them if one is labelled good and one bad, otherwise all but one.

    The first one with a label is kept, or else the first.

    Args:
        pictures: what is known of each image.
        row: what folders and labels.csv say of an image, see `dataset.row_reader`.
    """
    problems = []
    for names in equal_files(pictures):
        rows = {name: row(name) for name in names}
        first = {label: next((n for n in names if rows[n]["label"] == label), None) for label in ("0", "1")}
        for name in names:
            if first["0"] and first["1"]:
                other = first["1"] if rows[name]["label"] == "0" else first["0"]
                text = f"{EQUAL} {other}, and one is labelled good, one bad (delete the wrong one)"
                problems.append(Problem(name, text, "image"))
                continue
            stays = first["0"] or first["1"] or names[0]
            if name == stays:
                continue
            text, label = f"{EQUAL} {stays}", rows[stays]["label"]
            if label and not rows[name]["label"]:
                text += f", which is labelled {WORDS[label]}"
            this, that = (rows[one]["split"] or "no split" for one in (name, stays))
            if this != that:
                text += f" (this one is in {this}, that one in {that})"
            problems.append(Problem(name, text, "image"))
    return problems
