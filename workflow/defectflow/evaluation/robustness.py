"""How metrics change if photographs vary slightly: perturbed copies of labelled images, by kind and strength."""

from typing import Any

import pandas as pd

from defectflow.decision.decisions import is_evaluated
from defectflow.decision.verdict_rule import decide
from defectflow.metrics import metrics

COLUMNS = [
    "perturbation", "strength", "n", "auroc", "f1", "accuracy", "recall", "false_positive_rate", "changed_verdicts",
]  # fmt: skip
MEANING = (
    "Perturbed copies of the labelled images, made from the isolated picture (after the part was found), scored by the "
    "bank of their source and judged by its threshold; they count in no other figure. strength: in units of what "
    "`augmentation` says; 0: the images themselves. changed_verdicts: share with another verdict than the source."
)


def robustness_table(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Figures by perturbation and strength.

    Args:
        table: judged.
        scores: columns SCORES; the image_id of a perturbed copy is ``{source}~{perturbation}~{strength}``.

    Returns:
        Columns COLUMNS, first the row of the images themselves (perturbation "none", strength 0).
    """
    copies = _judged_copies(table, scores)
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    rows = [{"perturbation": "none", "strength": 0.0} | _figures(known.assign(source_label=known["predicted_label"]))]
    rows += [
        {"perturbation": kind, "strength": strength} | _figures(part)
        for (kind, strength), part in copies.groupby(["perturbation", "strength"])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def robustness_figures(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any] | None:
    """Section ``robustness`` of metrics.json: all copies together, and the table by kind; None without copies."""
    copies = _judged_copies(table, scores)
    if copies.empty:
        return None
    together, rows = _figures(copies), robustness_table(table, scores)
    records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return {
        "n_copies": together["n"],
        "auroc": together["auroc"],
        "auroc_of_the_sources": records[0]["auroc"],
        "accuracy": together["accuracy"],
        "changed_verdicts": together["changed_verdicts"],
        "table": records,
        "meaning": MEANING,
    }


def _judged_copies(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The perturbed copies of judged images, with their own verdict and that of their source."""
    known = table[is_evaluated(table) & table["predicted_label"].notna()]
    sources = known[["image_id", "label", "threshold", "predicted_label"]]
    sources = sources.rename(columns={"image_id": "copy_of", "predicted_label": "source_label"})
    copies = scores.loc[scores["kind"] == "perturbed", ["image_id", "copy_of", "raw_score"]].merge(
        sources, on="copy_of"
    )
    names = copies["image_id"].str.rsplit("~", n=2)
    return copies.assign(
        predicted_label=decide(copies["raw_score"].to_numpy(), copies["threshold"].to_numpy()).bad.astype(float),
        perturbation=names.str[1],
        strength=names.str[2].astype(float),
    )


def _figures(rows: pd.DataFrame) -> dict[str, Any]:
    labels = rows["label"].to_numpy(int)
    rates = metrics.rates(metrics.confusion(labels, rows["predicted_label"]))
    changed = int((rows["predicted_label"] != rows["source_label"]).sum())
    return {
        "n": len(rows),
        "auroc": metrics.auroc(labels, rows["raw_score"].to_numpy(float)),
        **{key: rates[key] for key in ("f1", "accuracy", "recall", "false_positive_rate")},
        "changed_verdicts": metrics.ratio(changed, len(rows)),
    }
