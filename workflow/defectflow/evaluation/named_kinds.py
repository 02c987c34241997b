"""The kind of defect of every photograph that is called bad, for predictions.csv."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from defectflow.core.tables import PREDICTED_KINDS, index_of

COLUMNS = ["kind_if_bad", "kind_if_bad_probability"]


def naming(kinds: Path | None) -> tuple[list[str], Callable[[pd.DataFrame], pd.DataFrame]]:
    """The columns that kinds add to predictions.csv, and what adds them to a part of it.

    A photograph that is called good has no kind; nor has a bad one of which kinds.csv says nothing, since its own kind
    has too few photographs.

    Args:
        kinds: kinds.csv; None: no columns are added.
    """
    if kinds is None:
        return [], lambda part: part
    said = index_of([kinds], COLUMNS)

    def add(part: pd.DataFrame) -> pd.DataFrame:
        names, shares = [], []
        for image_id, called in zip(part["image_id"], part["predicted_label"], strict=True):
            bad = pd.notna(called) and called == 1 and image_id in said
            name, share = said[image_id] if bad else ("", float("nan"))
            names.append(name)
            shares.append(share)
        return part.assign(**dict(zip(PREDICTED_KINDS, (names, shares), strict=True)))

    return PREDICTED_KINDS, add
