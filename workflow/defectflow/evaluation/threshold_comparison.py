"""Results of the other threshold strategies on the same scores, each chosen on the other folds."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from defectflow.core.files import UserError
from defectflow.decision.decisions import assign_verdicts, is_evaluated
from defectflow.decision.threshold_strategies import STRATEGIES
from defectflow.evaluation.image_metrics import units_of
from defectflow.metrics import metrics
from defectflow.metrics.bootstrap import paired_bootstrap, weighted_f1

ALTERNATIVES: tuple[tuple[str, dict[str, float]], ...] = tuple(
    (name, dict(cls.compared))
    for name, cls in STRATEGIES.classes.items()
    if name != "auto" and cls.compared is not None  # auto is one of the others
)


def alternatives(
    table: pd.DataFrame, strategy: str, options: Mapping[str, float], seed: int = 0
) -> list[dict[str, Any]]:
    """Judge the evaluated images by every strategy, the given one first.

    Args:
        table: image_id, group, label, detection, fold, raw_score, as :func:`decisions.assign_verdicts` wants them.
        strategy, options: the setting of the run, to which F1 is compared.

    Returns:
        One dict for each: strategy, options, ours (bool), threshold (for new images), confusion_matrix, the rates of
        :func:`metrics.rates`, intervals {recall, false_positive_rate}, f1_difference (a paired.Difference or None). A
        strategy that cannot be applied to these images has problem (text) instead of the figures.
    """
    chosen = (strategy, dict(options))
    others = [entry for entry in ALTERNATIVES if entry != chosen]
    rows, own = [], None
    for name, given in (chosen, *others):
        row = {"strategy": name, "options": given, "ours": (name, given) == chosen}
        try:
            judged = assign_verdicts(table, name, given)
        except UserError as error:
            rows.append(row | {"problem": str(error).partition(": ")[2].rpartition(" (")[0]})
            continue
        known = judged.table[is_evaluated(judged.table)].dropna(subset="predicted_label")
        own = known["predicted_label"] if own is None else own
        rows.append(row | {"threshold": judged.threshold and judged.threshold.value, **_figures(known, own, seed)})
    return rows


def _figures(known: pd.DataFrame, own: pd.Series, seed: int) -> dict[str, Any]:
    labels, verdicts = known["label"].to_numpy(int), known["predicted_label"].to_numpy(int)
    matrix = metrics.confusion(labels, verdicts)
    tn, fp, fn, tp = matrix.values()
    both = known.index.intersection(own.index)
    shared = known.loc[both]
    return {
        "confusion_matrix": matrix,
        **metrics.rates(matrix),
        "intervals": {
            "recall": metrics.wilson(tp, tp + fn),
            "false_positive_rate": metrics.wilson(fp, tn + fp),
        },
        "f1_difference": paired_bootstrap(
            weighted_f1, shared["label"], own.loc[both], shared["predicted_label"], units_of(shared)[1], seed
        ),
    }
