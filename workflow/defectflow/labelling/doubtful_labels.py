"""Labels that a photograph's own look contradicts.

The idea of confident learning (C. Northcutt, L. Jiang, I. Chuang, Confident learning: estimating uncertainty in dataset
labels, 2021): a label is doubtful where a score that was made without the photograph says the other class. The score
here is the distance from the good photographs, without those among them that stand far from the others: bad ones that
are labelled good must not vouch for each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from defectflow.decision.chosen_threshold import nested_calibration
from defectflow.labelling.far_photographs import far_photographs
from defectflow.labelling.photograph_distances import Compared

FOLDS = 10  # of the thresholds
WHY = {
    0: "labelled good, and farther from the other good photographs than most bad ones",
    1: "labelled bad, and as near to the good photographs as these are to each other",
}


def doubtful_labels(compared: Compared, label: np.ndarray) -> pd.DataFrame:
    """The photographs whose labels are doubtful, most doubtful first.

    Args:
        compared: labelled photographs, compared with the good ones among them.
        label: float (n,), 0 good, 1 bad.

    Returns:
        columns image_id, label, score (distance from the good photographs, without itself), threshold (largest F1,
        chosen on nine tenths of the photographs without this one), doubt (log of score / threshold for a photograph
        labelled good, of threshold / score for a bad one; above 0), why, nearest (image_id of the good photograph that
        looks most like it, "" for none).
    """
    among = vouching(compared, label == 0)
    score = compared.farthest_cell(among, lambda count: 1)
    nearest = [compared.nearest(row, among) for row in range(len(label))]
    names = ["" if row is None else compared.image_ids[row] for row in nearest]
    return doubted(compared.image_ids, label, score, names)


def vouching(compared: Compared, good: np.ndarray) -> np.ndarray:
    """The references that stand for good ones: bool (r,).

    Args:
        compared: photographs, the references among them.
        good: bool (n,), labelled good.
    """
    far = far_photographs(compared, good)
    vouch: np.ndarray = (good & ~far.far)[compared.references]
    return vouch


def doubted(image_ids: Sequence[str], label: np.ndarray, score: np.ndarray, nearest: Sequence[str]) -> pd.DataFrame:
    """`doubtful_labels` of photographs whose distances are known.

    Args:
        image_ids: of n photographs.
        label: float (n,), 0 good, 1 bad.
        score: float (n,), distance from the good photographs; NaN: not known.
        nearest: image_id of the good photograph that looks most like each, "" for none.
    """
    columns = ["image_id", "label", "score", "threshold", "doubt", "why", "nearest"]
    good = label == 0
    known = np.isfinite(score) & (score > 0)
    rows = np.flatnonzero(known)
    if not good[rows].any() or len(rows) < 2 * FOLDS:
        return pd.DataFrame(columns=columns)
    ranked = rows[score[rows].argsort(kind="stable")]
    fold = np.empty(len(label), int)
    for kind in (0, 1):  # every fold has both, from low to high scores
        own = ranked[label[ranked] == kind]
        fold[own] = np.arange(len(own)) % FOLDS
    chosen = nested_calibration(score[rows], label[rows].astype(int), [str(k) for k in fold[rows]])
    threshold = np.full(len(label), np.nan)
    threshold[rows] = [chosen[str(k)].value if str(k) in chosen else np.nan for k in fold[rows]]
    with np.errstate(invalid="ignore", divide="ignore"):
        doubt = np.log(score / threshold) * np.where(good, 1, -1)
    found = [int(row) for row in rows if doubt[row] > 0]
    found.sort(key=lambda row: (-doubt[row], image_ids[row]))
    table = pd.DataFrame(
        {
            "image_id": [image_ids[row] for row in found],
            "label": label[found].astype(int),
            "score": score[found],
            "threshold": threshold[found],
            "doubt": doubt[found],
            "why": [WHY[int(label[row])] for row in found],
            "nearest": [nearest[row] for row in found],
        },
        columns=columns,
    )
    return table
