"""Stage classify: learn good and kinds of defects from descriptors, and evaluate on held-out photographs.

Writes a folder: kinds.json (figures), kinds.csv (the result for every photograph), confusion.png and kinds.html.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.classification.cross_validation import (
    Judged,
    class_names,
    cross_validate,
    judge_new,
    labels_of,
    leave_kinds_out,
)
from defectflow.classification.descriptor_files import Descriptors, read_descriptors
from defectflow.classification.kind_charts import confusion_chart
from defectflow.classification.kind_figures import MEANING, figures, open_set_figures
from defectflow.classification.novelty import limit_of
from defectflow.classification.settings import KindSettings
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.counted import counted
from defectflow.core.files import atomic_dir, stage, write_json
from defectflow.core.tables import write_table
from defectflow.drawing.chart_files import save_png, svg
from defectflow.evaluation.claims import percent
from defectflow.metrics.metrics import rounded
from defectflow.reporting.html_pages import write_page

UNKNOWN = "unknown kind"
COLUMNS = [
    "filename", "class", "kind", "kind_probability", "kind_if_bad", "kind_if_bad_probability", "novelty",
    "novelty_limit", "fold", "image_id",
]  # fmt: skip


def said_of(names: list[str], items: pd.DataFrame, judged: Judged) -> pd.DataFrame:
    """kinds.csv of some photographs, columns COLUMNS.

    A photograph that is called bad but is not similar to a known kind gets the unknown kind, with the probability of
    the most probable known kind.
    """
    chosen, (kind, share) = judged.chosen, judged.if_bad
    words = np.array([*names, UNKNOWN], object)
    unknown = len(names)
    return pd.DataFrame(
        {
            "filename": items["path"].to_numpy(object),
            "class": items["class"].to_numpy(object),
            "kind": words[np.where((chosen > 0) & judged.unknown, unknown, chosen)],
            "kind_probability": judged.chance[np.arange(len(chosen)), chosen].round(6),
            "kind_if_bad": words[np.where(judged.unknown, unknown, kind)],
            "kind_if_bad_probability": share.round(6),
            "novelty": judged.novelty.round(6),
            "novelty_limit": judged.limit.round(6),
            "fold": ["" if fold < 0 else str(fold) for fold in items["fold"]],
            "image_id": items["image_id"].to_numpy(object),
        },
        columns=COLUMNS,
    )


def results(found: Descriptors, settings: KindSettings, seed: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """kinds.json and kinds.csv of descriptors."""
    names = class_names(found)
    labels = labels_of(found)
    judged = cross_validate(found, settings, seed)
    new = judge_new(found, judged, settings, seed)
    limit = limit_of(judged.novelty[labels > 0], settings.rejected)
    folds = found.known["fold"]
    told = {
        **figures(names, labels, judged, seed),
        "open_set": open_set_figures(judged, labels, leave_kinds_out(found), limit),
        "protocol": {"folds": int(folds.nunique()), "held_out_together": found.about["unit"]},
        "left_out": {"fewer_than_three": found.about["left_out"], "bad_without_a_kind": found.about["unnamed"]},
        "network": found.about["network"],
        "settings": settings.read_by("classify"),
        "meaning": MEANING,
    }
    rows = [said_of(names, found.known, judged), said_of(names, found.items.iloc[len(labels) :], new)]
    table = pd.concat([part for part in rows if len(part)], ignore_index=True)
    return rounded(told), table.sort_values("image_id", ignore_index=True)


def sentences(told: dict[str, Any]) -> list[str]:
    """Notes for the reader of the figures: what was left out, and where they are optimistic or imprecise."""
    few, unnamed = told["left_out"]["fewer_than_three"], told["left_out"]["bad_without_a_kind"]
    lines = [
        f"{name} is left out: {counted(n, 'photograph')}, and a kind needs three." for name, n in sorted(few.items())
    ]
    if unnamed:
        lines.append(f"{counted(unnamed, 'bad photograph')} without a kind: left out.")
    if told["protocol"]["held_out_together"] == "photographs":
        lines.append("Photographs are held out one by one, not whole sessions: expect less for a new session.")
    if not told["network"]["trained"]:
        lines.append(f"{told['network']['backbone']} has random weights: set a file in weights.")
    small = [row["name"] for row in told["classes"] if row["n"] < 10]
    if small:
        lines.append(f"Fewer than ten photographs of {', '.join(small)}: their recall is a rough guess.")
    return lines


def main(args: argparse.Namespace) -> None:
    """Read descriptors, cross-validate, write."""
    settings = read_settings(args.settings, KindSettings, "classify")
    found = read_descriptors(args.descriptors)
    told, table = results(found, settings, args.seed)
    chart = confusion_chart(told["confusion"]["classes"], np.array(told["confusion"]["counts"]))
    with atomic_dir(args.out) as folder:
        write_json(folder / "kinds.json", told)
        write_table(folder / "kinds.csv", table, COLUMNS)
        save_png(folder / "confusion.png", chart)
        write_page(
            folder / "kinds.html", "kinds.html", name=args.name, told=told, notes=sentences(told), chart=svg(chart)
        )
    for line in sentences(told):
        print(f"kinds: {line}")
    kind = f"; kind, if bad: {percent(told['if_bad']['accuracy'])}" if told["if_bad"] else ""
    most = f"{told['majority']['class']} alone: {percent(told['majority']['accuracy'])}"
    print(f"{args.out}/kinds.html: accuracy {percent(told['accuracy'])} ({most}){kind}")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.classify", description=__doc__)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--descriptors", type=Path, required=True, help="file of the stage describe")
    add_settings(parser, KindSettings, "classify")
    add_seed(parser)
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
