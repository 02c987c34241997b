"""The threshold of a set whose photographs are taken as mostly good, because few or none of them have a label."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import pandas as pd

from defectflow.core.counted import counted
from defectflow.decision import outlying_good
from defectflow.decision.threshold_strategies import strategy_of

ENOUGH = 5  # photographs of each label from which the threshold is chosen on the labels
OF_GOOD_ONLY = ("normal_percentile", {"percentile": 95.0})  # in place of a strategy that weighs good against bad
WEIGHING = ("f1_adaptive", "youden")


class Assumed(NamedTuple):
    """What :func:`assume` returns.

    Attributes:
        table: with a label 0 for each photograph that was taken as good; the others keep theirs.
        strategy, options: of the threshold.
        figures: ``assumed`` in metrics.json: n_photographs, n_labelled, n_left_out, threshold_from ("labels" or
            "assumed good"), said (a sentence for the reader).
    """

    table: pd.DataFrame
    strategy: str
    options: dict[str, float]
    figures: dict[str, Any]


def assume(table: pd.DataFrame, left_out: Collection[str], strategy: str, options: Mapping[str, float]) -> Assumed:
    """Take photographs without a label as good where too few have one to choose a threshold on.

    With ENOUGH labels of both kinds, these alone count, and the table stays as it is.

    Args:
        table: what `decisions.gather` returned, of all photographs.
        left_out: image_ids of those that stand far from all others and are not learned from.
        strategy, options: of the config; one that weighs good against bad ones gives way to OF_GOOD_ONLY.
    """
    label = table["label"]
    good, bad, left = int((label == 0).sum()), int((label == 1).sum()), len(left_out)
    by_labels = min(good, bad) >= ENOUGH
    if good + bad:
        who = f"{counted(len(table) - good - bad, 'photograph')} without a label"
        start = f"{who} {'was' if who.startswith('1 ') else 'were'} taken as mostly good and learned from"
    else:
        start = f"No photograph has a label: all {len(table)} were taken as mostly good and learned from"
    said = f"{start}."
    if left:
        verb = "stands" if left == 1 else "stand"
        said = (
            f"{start}, except {left} that {verb} far from all others: the candidates to look at first (candidates.csv)."
        )
    elif len(table) < outlying_good.FEWEST:
        said += " They are too few to show that one of them stands far from the others: look at each."
    if not by_labels:
        strategy, options = OF_GOOD_ONLY if strategy in WEIGHING else (strategy, options)
        known = label.mask(label.isna() & ~table["image_id"].isin(left_out), 0)
        table = table.assign(label=known)
        told = ", ".join([strategy, *(f"{name} {value:g}" for name, value in options.items())])
        source = "comes from their scores alone"
        if strategy == "fixed":
            source = "is the given one"
        elif bad and strategy_of(strategy, options).labels_needed()["bad"]:
            source = f"comes from their scores and those of {counted(bad, 'photograph')} labelled bad"
        elif good:
            source = f"comes from their scores and those of {counted(good, 'photograph')} labelled good"
        missed = f"known only of the {counted(bad, 'photograph')} labelled bad" if bad else "unknown"
        said += f" The threshold {source} ({told}): how many defects are missed is {missed}."
    if not good + bad:
        said += " If some have been labelled, put a labels.csv beside them."
    figures = {
        "n_photographs": len(table),
        "n_labelled": good + bad,
        "n_left_out": left,
        "threshold_from": "labels" if by_labels else "assumed good",
        "said": said,
    }
    return Assumed(table, strategy, dict(options), figures)
