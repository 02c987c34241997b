"""Outcome of a photograph in the words that pictures, pages, the summary and an inspector share; numpy only."""

from typing import Any

import numpy as np

RIGHT, MISSED, FALSE_ALARM = "right", "missed defect", "false alarm"
WRONG = (MISSED, FALSE_ALARM)
TO_A_PERSON, NO_PART, DOUBTFUL = "to a person", "no part found", "doubtful mask"


def outcomes(label: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """RIGHT, MISSED or FALSE_ALARM for each photograph, "" if its label or verdict is unknown: object [N].

    Args:
        label, predicted: float [N], 1 bad, 0 good, NaN unknown.
    """
    label, predicted = np.asarray(label, float), np.asarray(predicted, float)
    known = ~(np.isnan(label) | np.isnan(predicted))
    words = np.select([~known, label == predicted, label == 1], ["", RIGHT, MISSED], FALSE_ALARM)
    return words.astype(object)


def is_flagged(present: Any, doubtful: Any) -> Any:
    """Whether a person should check a mask: the part was not found, or its mask is doubtful.

    Args:
        present, doubtful: 1 or 0, True or False; NaN or None without a mask; two values, or two columns of a table.
    """
    return (present == 0) | (doubtful == 1)


def with_outcomes(table: Any) -> Any:
    """A table PREDICTIONS, or some of its rows, with three more columns.

    They are ``outcome`` (see `outcomes`), ``mask_flagged`` (bool, see `is_flagged`) and ``note``: everything that a
    person should check (a wrong verdict, the review band, the mask), "" for nothing.
    """
    outcome = outcomes(table["label"], table["predicted_label"])
    present, doubtful, review = (table[column] for column in ("mask_present", "mask_doubtful", "review"))
    parts = (
        np.where(np.isin(outcome, WRONG), outcome, ""),
        np.where(review == 1, TO_A_PERSON, ""),
        np.select([present == 0, doubtful == 1], [NO_PART, DOUBTFUL], ""),
    )
    notes = [" · ".join(filter(None, words)) for words in zip(*parts, strict=True)]
    return table.assign(outcome=outcome, mask_flagged=is_flagged(present, doubtful), note=np.array(notes, object))
