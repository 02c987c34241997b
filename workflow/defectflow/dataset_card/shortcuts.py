"""Whether good and bad photographs are told apart by how they were taken, without a look at the part.

Brightness, sharpness, size and file format say nothing of a defect. If one of them separates the classes, a verdict
may rest on it, and its AUROC is what any detector has to beat (shortcut learning; R. Geirhos et al., 2020).
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from defectflow.dataset_card.photographs import judged
from defectflow.evaluation.image_metrics import units_of
from defectflow.metrics.intervals import Z, auroc_interval
from defectflow.metrics.metrics import auroc

NOTABLE = 0.6  # AUROC from which a difference that is not chance is told in words
FOLDS = 5
TOGETHER = "all of these together"


class Shortcut(NamedTuple):
    """How well one property separates bad from good photographs.

    Attributes:
        name: of the property.
        auroc: of the property alone, at least 0.5: the direction is read from the data. Held out for `TOGETHER`,
            where it may be below.
        interval: [low, high], 95 %.
        how: what bad photographs are, "darker"; "" for `TOGETHER` and where they do not differ.
        clear: whether this is not chance at 5 %, all properties considered (Bonferroni).
    """

    name: str
    auroc: float
    interval: list[float]
    how: str
    clear: bool

    @property
    def tells(self) -> bool:
        """Whether the difference is clear and large enough to be told in words."""
        return self.clear and self.auroc >= NOTABLE


# Of a table: the value, and what a photograph with a higher and a lower one is.
PROPERTIES: dict[str, tuple[Callable[[pd.DataFrame], pd.Series], str, str]] = {
    "brightness": (lambda t: t["luminance"], "brighter", "darker"),
    "overexposed share": (lambda t: t["clipped"], "more overexposed", "less overexposed"),
    "sharpness": (lambda t: t["sharpness"], "sharper", "less sharp"),
    "number of pixels": (lambda t: t["width"] * t["height"], "larger", "smaller"),
    "width to height": (lambda t: t["width"] / t["height"], "wider", "taller"),
    "bytes per pixel": (lambda t: t["file_bytes"] / (t["width"] * t["height"]), "less compressed", "more compressed"),
}


def shortcuts(table: pd.DataFrame, seed: int = 0) -> list[Shortcut]:
    """Each property that is not the same in all judged photographs, the strongest first, then all of them together.

    Args:
        table: see `photographs.photographs`.
        seed: of the folds.

    Returns:
        Nothing unless good and bad ones are judged.
    """
    known = judged(table)
    labels = known["label"].to_numpy(int)
    if len(set(labels)) < 2:
        return []
    _, units = units_of(known)
    values = {name: value(known).to_numpy(float) for name, (value, *_) in PROPERTIES.items()}
    formats = known["format"].value_counts().index.tolist()
    values |= {f"format {name}": (known["format"] == name).to_numpy(float) for name in formats[1:] or ()}
    values = {name: column for name, column in values.items() if column.min() < column.max()}
    z = NormalDist().inv_cdf(1 - 0.025 / max(1, len(values) + 1))
    found = [_alone(name, column, labels, units, z) for name, column in values.items()]
    found.sort(key=lambda one: (-one.auroc, one.name))
    together = _together(np.column_stack(list(values.values())), labels, units, seed) if len(values) > 1 else None
    if together is not None:
        found.append(_shortcut(TOGETHER, together, labels, units, z, ""))
    return found


def _alone(name: str, column: np.ndarray, labels: np.ndarray, units: pd.Series, z: float) -> Shortcut:
    area = auroc(labels, column)
    sign = -1.0 if area is not None and area < 0.5 else 1.0
    _, more, less = PROPERTIES.get(name, (None, f"more often {name[7:]}", f"less often {name[7:]}"))
    how = "" if area is not None and round(area, 2) == 0.5 else less if sign < 0 else more
    return _shortcut(name, sign * column, labels, units, z, how)


def _shortcut(name: str, scores: np.ndarray, labels: np.ndarray, units: pd.Series, z: float, how: str) -> Shortcut:
    area, ends = auroc(labels, scores), [auroc_interval(labels, scores, units.tolist(), at) for at in (Z, z)]
    assert area is not None and ends[0] is not None and ends[1] is not None, "both classes occur"
    return Shortcut(name, area, ends[0], how, ends[1][0] > 0.5)


def _together(values: np.ndarray, labels: np.ndarray, units: pd.Series, seed: int) -> np.ndarray | None:
    """Held-out log-odds of bad by a logistic regression on all properties; None where a fold lacks a class.

    Args:
        values: float (photographs, properties).
        units: those of one group are held out together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, *(units[labels == side].nunique() for side in (0, 1)))
    if folds < 2:
        return None
    scores = np.full(len(labels), math.nan)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(values, labels, units):
        if len(set(labels[train])) < 2:
            return None
        mean, spread = values[train].mean(axis=0), values[train].std(axis=0)
        scaled = (values - mean) / np.where(spread > 0, spread, 1)
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scaled[train], labels[train])
        scores[test] = model.decision_function(scaled[test])
    return None if np.isnan(scores).any() else scores
