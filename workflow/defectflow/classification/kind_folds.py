"""Training data of the classifier of kinds: the class of each photograph, and folds of whole groups."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd

from defectflow.core.files import UserError
from defectflow.dataset_card.photographs import GOOD, NO_KIND, NO_LABEL, classes

LEAST = 3  # photographs needed of a class
FOLDS = 5


class Sample(NamedTuple):
    """Photographs to learn kinds from.

    Attributes:
        table: image_id, path, group, class and fold of each.
        left_out: number of photographs of each class with fewer than LEAST.
        unnamed: number of bad photographs without a kind, if others have one.
        unit: "groups" or "photographs", what is held out together.
    """

    table: pd.DataFrame
    left_out: dict[str, int]
    unnamed: int
    unit: str


def sample(manifest: pd.DataFrame, seed: int) -> Sample:
    """Choose the photographs and assign them to folds, with every class spread evenly.

    Whole groups are held out if each class has photographs of at least two groups. Otherwise a classifier would not
    know a class of its test fold, so single photographs are held out.

    Args:
        manifest: image_id, path, group, label, defect_type.
        seed: of the folds.

    Raises:
        UserError: fewer than two classes have LEAST photographs, or good is not among them.
    """
    table = manifest.assign(**{"class": classes(manifest)})
    counts = table.loc[~table["class"].isin({NO_LABEL, NO_KIND}), "class"].value_counts()
    kept = counts.index[counts >= LEAST]
    few = {str(name): int(n) for name, n in sorted(counts.items()) if n < LEAST}
    what = ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"
    if GOOD not in kept:
        raise UserError(
            f"kinds: {counts.get(GOOD, 0)} photographs are labelled good, but kinds are described by their "
            f"differences from at least {LEAST} good ones (label good photographs, or put them into good/)"
        )
    if len(kept) < 2:
        raise UserError(
            f"kinds: only good has {LEAST} photographs or more, but a classifier needs two classes (labelled: {what}; "
            "set kinds in the column defect_type of labels.csv, or by folders of bad photographs)"
        )
    known = table[table["class"].isin(kept)].sort_values("image_id", ignore_index=True)
    units = known["group"].where(known["group"] != "", "\0" + known["image_id"])
    grouped = bool((units.groupby(known["class"]).nunique() >= 2).all()) and units.nunique() < len(units)
    if not grouped:
        units = known["image_id"]
    count = min(FOLDS, int(units.groupby(known["class"]).nunique().max()))
    names = known["class"].to_numpy()
    folds = deal(names, units.to_numpy(), count, seed)
    if grouped and any(len(set(folds[names == name])) < 2 for name in kept):  # its classifier would not know the class
        grouped = False
        folds = deal(names, known["image_id"].to_numpy(), min(FOLDS, int(counts[kept].max())), seed)
    known = known[["image_id", "path", "group", "class"]].assign(fold=folds)
    unnamed = int((table["class"] == NO_KIND).sum())
    return Sample(known, few, unnamed, "groups" if grouped else "photographs")


def deal(names: np.ndarray, units: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each photograph, int (n,) from 0: whole units, each class spread evenly.

    Args:
        names: class of each photograph.
        units: unit of each; photographs of one unit stay together.
        count: number of folds, at most the number of photographs in the largest class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(names), int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(names, names, units)
        for number, (_, held_out) in enumerate(parts):
            folds[held_out] = number
    return folds
