"""Describe a threshold from good photographs only: which of them determine it, and which to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd

from defectflow.decision import chosen_threshold, outlying_good
from defectflow.decision.decisions import is_calibration
from defectflow.decision.threshold_strategies import strategy_of


class GoodOnly(TypedDict):
    """``threshold.good_only`` in metrics.json, see `figures`."""

    image_ids: list[str]
    filenames: list[str]
    scores: list[float]
    far: bool
    n_others: int
    largest_of_others: float | None
    set_aside: bool
    with_them: float
    without_them: float | None


def figures(table: pd.DataFrame, value: float | None, strategy: str, options: Mapping[str, float]) -> GoodOnly | None:
    """Which photographs determine the threshold of a run without bad ones; None if there are bad ones, or no good one.

    Args:
        table: judged, see `decisions.assign_verdicts`.
        value: threshold for new photographs.
        strategy, options: as for `chosen_threshold.calibrate`.

    Returns:
        image_ids, filenames and scores of the photograph with the largest score, or of two where both stand out from
        the others; far (bool: they stand out); n_others; largest_of_others; set_aside (bool: they stand out and lie
        above the threshold); with_them, without_them: the threshold that counts them, and the one that does not (None
        where there is none).
    """
    known = table[is_calibration(table)]
    if value is None or known.empty or (known["label"] == 1).any():
        return None
    order = known.sort_values(["raw_score", "filename"], kind="stable")
    scores = order["raw_score"].to_numpy(float)
    aside = outlying_good.limit(scores).aside
    named, others = order.iloc[len(order) - max(aside, 1) :], scores[: len(order) - max(aside, 1)]
    counting_all = strategy_of(strategy, options).counting_all(scores)
    counting_all = value if counting_all is None else counting_all
    set_aside = bool(aside) and value <= float(named["raw_score"].min()) and value < counting_all
    try:
        without = (
            value if set_aside else chosen_threshold.calibrate(others, np.zeros(len(others)), strategy, **options).value
        )
    except ValueError:
        without = None
    return {
        "image_ids": named["image_id"].tolist(),
        "filenames": named["filename"].tolist(),
        "scores": named["raw_score"].tolist(),
        "far": bool(aside),
        "n_others": len(others),
        "largest_of_others": float(others[-1]) if len(others) else None,
        "set_aside": set_aside,
        "with_them": counting_all if set_aside else value,
        "without_them": without,
    }


def sentence(found: GoodOnly | None) -> str:
    """`figures` as a warning for the reader; for None, the warning that no bad image was judged."""
    if found is None:  # bad images only among those of a calibration side
        return "No labelled bad image was judged: how many defects the threshold misses is unknown."
    text = "No labelled bad image: how many defects the threshold misses is unknown."
    scores = " and ".join(f"{score:.4g}" for score in found["scores"])
    names, one = " and ".join(found["filenames"]), len(found["filenames"]) == 1
    if not found["far"]:
        without, value = found["without_them"], found["with_them"]
        if without is None or without >= value:
            return text
        return f"{text} It is {value:.4g} because of {names} ({scores}); without that one it would be {without:.4g}."
    it, them, verb, be = ("it", "it", "stands", "was") if one else ("they", "them", "stand", "were")
    text += (
        f" {names} ({scores}) {verb} out: the {found['n_others']} other good photographs reach "
        f"{found['largest_of_others']:.4g}. "
    )
    if found["set_aside"]:
        text += (
            f"With {them} the threshold would be {found['with_them']:.4g}; {it} {be} set aside, and it is "
            f"{found['without_them']:.4g}. "
        )
    elif found["without_them"] is not None and found["without_them"] < found["with_them"]:
        text += f"The threshold is {found['with_them']:.4g}; without {them} it would be {found['without_them']:.4g}. "
    return text + (
        f"{'It is' if one else 'They are'} still in the memory bank, so that defects like {them} may pass. "
        f"Please look at {them}: label {them} bad if {it} {'shows' if one else 'show'} a defect, and otherwise add "
        f"more good photographs like {them}."
    )
