"""Sets in which nobody said which photographs are good: when their photographs are learned from, and when to ask first.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import os
from collections.abc import Collection, Mapping

from defectflow.core.files import UserError
from defectflow.core.records import DataSet
from defectflow.listing.folders import BAD, SIDES, good_names, is_nearly_good, plain, subfolders

FEWEST = 5  # photographs: fewer show nothing of what is usual
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods")  # that may hold labels


def learns_from_unlabelled(resolved: DataSet, rows: Collection[Mapping[str, str]]) -> bool:
    """Whether photographs without a label are taken as mostly good and learned from.

    ``unlabelled: learn`` in the entry of the data set says so; by default they are where none of FEWEST or more
    photographs has a label and the folders say nothing.

    Args:
        resolved: the data set.
        rows: label and split of each photograph, as `dataset.image_rows` gives them.
    """
    chosen = resolved.get("unlabelled", "auto")
    if chosen != "auto":
        return chosen == "learn"
    known = any(row["label"] or row["split"] for row in rows)
    return resolved["layout"] == "coco" and len(rows) >= FEWEST and not known


def check_unlabelled(resolved: DataSet, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Raise a UserError where labels may have been forgotten, or where such a set cannot be learned from.

    Args:
        resolved: a data set for which `learns_from_unlabelled` holds.
        rows: label and split of each photograph, by its name.
    """
    source = resolved["labels"] or resolved["images"]
    if any(row["split"] for row in rows.values()):
        raise UserError(f"{source}: `unlabelled: learn` takes no fixed split (leave out column split, or its folders)")
    learned = sum(row["label"] != "1" for row in rows.values())
    if learned < FEWEST:
        raise UserError(
            f"{source}: {learned} photographs without a label are too few to tell what is usual (add some, at least "
            f"{FEWEST}, or label good ones 0 and bad ones 1 in labels.csv)"
        )
    if resolved.get("unlabelled", "auto") == "learn" or resolved["labels"]:
        return
    remedy = "if nobody knows which are good, say so: `unlabelled: learn` in the entry of the data set"
    for folder in dict.fromkeys(filter(None, (resolved.get("path"), resolved["images"]))):
        for name in sorted(os.listdir(folder)):
            if name.lower().endswith(TABLES):
                path = os.path.join(folder, name)
                raise UserError(f"{path}: not read, and it may hold the labels (call it labels.csv; {remedy})")
    good = good_names(resolved.get("good"))
    for folder in sorted({name.rpartition("/")[0] for name in rows}):
        for part in filter(None, folder.split("/")):
            if plain(part) in good | BAD | set(SIDES) or is_nearly_good(part, good):
                path = os.path.join(str(resolved["images"]), folder)
                raise UserError(
                    f"{path}: the name may be a label, and it is not read as one (put the folders good/ and bad/ side "
                    f"by side, data/README.md; {remedy})"
                )
    tops = subfolders(resolved["images"])
    if any(plain(name) in SIDES for name in tops):
        raise UserError(f"{resolved['images']}: folders of a split, and none of good photographs in them ({remedy})")
