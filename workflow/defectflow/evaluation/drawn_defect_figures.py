"""How many drawn defects a run finds: an indicator of recall where few real defects are known, never a result."""

from typing import Any

import pandas as pd

from defectflow.decision.decisions import is_evaluated
from defectflow.decision.verdict_rule import decide
from defectflow.metrics import metrics

MEANING = (
    "Defects drawn by a program on good photographs that are called good (scratches, stains, pasted and missing "
    "pieces), scored by the bank of their source and judged by its threshold. An indicator, no result: real defects "
    "may be easier or harder, and none of these counts in any other figure or in the choice of a threshold."
)


def drawn_defect_figures(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any] | None:
    """Section ``drawn_defects`` of metrics.json; None without such copies.

    Args:
        table: judged.
        scores: columns SCORES; the image_id of a copy is ``{source}~{kind}~{number}``.

    Returns:
        photographs, n, found and share of all together, ``by_kind`` with kind, n, found and share, and what it means.
    """
    known = table[is_evaluated(table) & (table["label"] == 0) & (table["predicted_label"] == 0)]
    copies = scores.loc[scores["kind"] == "synthetic", ["image_id", "copy_of", "raw_score"]].merge(
        known[["image_id", "threshold"]].rename(columns={"image_id": "copy_of"}), on="copy_of"
    )
    if copies.empty:
        return None
    found = decide(copies["raw_score"].to_numpy(), copies["threshold"].to_numpy()).bad
    copies = copies.assign(found=found, kind=copies["image_id"].str.rsplit("~", n=2).str[1])
    rows = [{"kind": kind} | _counts(part) for kind, part in copies.groupby("kind")]
    return {"photographs": int(copies["copy_of"].nunique()), **_counts(copies), "by_kind": rows, "meaning": MEANING}


def _counts(copies: pd.DataFrame) -> dict[str, Any]:
    count = int(copies["found"].sum())
    return {"n": len(copies), "found": count, "share": metrics.ratio(count, len(copies))}
