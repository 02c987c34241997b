"""Stage verdict: summarise a finished run in the terminal: verdicts, main figures, warnings, paths of the pictures."""

import argparse
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectflow.core.files import UserError, read_json, stage
from defectflow.core.tables import PREDICTIONS, RECIPE, read_table
from defectflow.decision.outcomes import WRONG, with_outcomes
from defectflow.decision.pred_score import margins, two_digits
from defectflow.evaluation.cautions import data_warnings, headlines
from defectflow.metrics import intervals
from defectflow.reporting import next_commands
from defectflow.reporting.html_pages import rule

WIDTH = 100
BOARD = ["main", *RECIPE, "auroc", "auroc_low", "auroc_high", "f1", "held_out_iou"]  # columns of the leaderboard


def figure(value: float | None, interval: list[float] | None = None) -> str:
    """A figure with its 95 % interval, as text of constant width."""
    if value is None:
        return "    -"
    return f"{value:.3f}" + (f"  [{', '.join(intervals.text(interval))}]" if interval else "")


def verdict_table(predictions: pd.DataFrame) -> list[str]:
    """Counts of images by label and verdict."""
    lines = [f"  {'':<14}{'called good':>13}{'called bad':>13}{'no verdict':>13}"]
    for name, rows in (
        ("good", predictions["label"] == 0),
        ("bad", predictions["label"] == 1),
        ("no label", predictions["label"].isna()),
    ):
        verdicts = predictions.loc[rows, "predicted_label"]
        counts = [(verdicts == 0).sum(), (verdicts == 1).sum(), verdicts.isna().sum()]
        lines.append(f"  {name:<14}" + "".join(f"{n or '-':>13}" for n in counts))
    return lines


def figures_of(metrics: dict[str, Any]) -> list[str]:
    """The main figures, one a line, with what they mean."""
    image, spans, pixel = metrics["image"], metrics["confidence_intervals"], metrics["pixel"]
    baseline = metrics["baseline"]["accuracy"]
    meaning = "1 = every bad image scores above every good one"
    if intervals.reversed_order(spans["auroc"]):
        meaning = "below 0.5: are the labels swapped?"
    rows = [("AUROC", figure(image["auroc"], spans["auroc"]), meaning)]
    if "leave_group_out" in image:
        apart = image["leave_group_out"]
        rows.append(("  groups apart", figure(apart["auroc"], apart["auroc_interval"]), "a session never seen before"))
    always = "" if baseline is None else f"always saying {metrics['baseline']['majority_class']}: {baseline:.3f}"
    rows += [
        ("accuracy", figure(image["accuracy"], spans["accuracy"]), always),
        ("recall", figure(image["recall"], spans["recall"]), "bad images called bad"),
        ("precision", figure(image["precision"], spans["precision"]), "images called bad that are bad"),
        ("false alarms", figure(image["false_positive_rate"], spans["false_positive_rate"]), "good images called bad"),
        ("F1", figure(image["f1"], spans["bootstrap"]["f1"]), ""),
    ]
    if not image["n_bad"]:  # figures that need bad images
        rows = [row for row in rows if row[0] not in ("AUROC", "recall", "precision", "F1")]
    for name, where in (("in_part", "inside the part"), ("full_frame", "full frame")):
        if pixel[name]:
            text = f"AUROC {figure(pixel[name]['auroc'])}   AU-PRO {figure(pixel[name]['au_pro'])}"
            rows.append(("pixels", text, where))
    return [f"  {name:<15}{value:<24}{'  ' if len(value) < 24 else '   '}{note}".rstrip() for name, value, note in rows]


def review_lines(review: dict[str, Any] | None) -> list[str]:
    """How many images go to a person, and the errors left among the others; nothing without a review band."""
    if review is None:
        return []
    share, new = review["share_reviewed"], review["unlabelled_reviewed"]
    percent = "" if share is None else f" ({share:.0%})"
    return [
        f"  To a person: raw scores {review['low']:.4g} to {review['high']:.4g}, {review['n_reviewed']} of "
        f"{review['n_images']} labelled images{percent}{f', {new} without a label' if new else ''}.",
        f"  Errors left without them: {review['false_alarms_left']} false alarms, {review['missed_left']} missed.",
    ]


def marked(text: str) -> list[str]:
    """A warning, wrapped, with its mark."""
    return textwrap.wrap(text, WIDTH - 2, initial_indent="  ! ", subsequent_indent="    ")


def images_table(rows: pd.DataFrame) -> list[str]:
    """File name, score, verdict, label and note of images, one a line; ``rows``: see `with_outcomes`."""
    lines = [f"  {'score':>6}  {'verdict':<8} {'label':<24} file"]
    for row in rows.itertuples():
        score = two_digits(row.pred_score) if not np.isnan(row.pred_score) else f"{row.raw_score:.3g}"
        verdict = "-" if np.isnan(row.predicted_label) else "BAD" if row.predicted_label else "good"
        label = "-" if np.isnan(row.label) else ("bad" if row.label else "good")
        label += f": {row.defect_type}" if row.defect_type else ""
        mark = f"  <- {row.note}" if row.note else ""
        name = _fit(row.filename, WIDTH - 43 - len(mark))
        lines.append(f"  {score:>6}  {verdict:<8} {_fit(label, 24):<24} {name}{mark}")
    return lines


def leaderboard_table(board: pd.DataFrame) -> list[str]:
    """The runs next to each other; * marks the main run."""
    lines = [f"    {'masks / isolation / detector':<52}{'AUROC':>7}{'95 %':>16}{'F1':>8}{'IoU':>8}"]
    for row in board.itertuples():
        name = f"{row.segmenter} / {row.isolation} / {row.detector}"
        span = "" if np.isnan(row.auroc_low) else f"[{', '.join(intervals.text([row.auroc_low, row.auroc_high]))}]"
        values = "".join(f"{'-' if np.isnan(v) else f'{v:.3f}':>8}" for v in (row.f1, row.held_out_iou))
        area = "-" if np.isnan(row.auroc) else f"{row.auroc:.3f}"
        lines.append(f"  {'*' if row.main else ' '} {_fit(name, 51):<52}{area:>7}{span:>16}{values}")
    return lines


def read_board(path: Path) -> pd.DataFrame:
    """What `leaderboard_table` prints of leaderboard.csv.

    Raises:
        UserError: the file is absent or is not a leaderboard.
    """
    try:
        return read_table(path, BOARD)
    except UserError as error:
        raise UserError(f"{error}; run snakemake first") from None


def summary(folder: Path, worst: int, board: pd.DataFrame | None = None, bundle: str = "") -> str:
    """The text that is printed for the run in ``folder``; ``bundle``: the command that packs its inspector."""
    metrics, predictions = read_json(folder / "metrics.json"), read_table(folder / "predictions.csv", PREDICTIONS)
    threshold = metrics["threshold"]
    lines = ["", f"Verdicts: {' / '.join(folder.parts[-4:])}", "=" * WIDTH]
    first = headlines(metrics)
    for text in first:
        lines += [*marked(text), ""]
    lines += [*verdict_table(predictions), ""]
    if threshold["value"] is not None:
        cut = rule(threshold["strategy"], threshold["options"])
        lines += [
            f"  Bad from raw score {threshold['value']:.6g} on (rule: {cut}), shown as 0.50.",
            *review_lines(metrics["review"]),
            "",
        ]
    held_out = metrics["protocol"]
    protocol = f"{held_out['name']}: {held_out['n_images']} labelled images in {held_out['n_folds']} folds"
    if "assumed" in metrics:  # those without a label, taken as good, are held out too
        protocol = f"{metrics['n_samples']} labelled images, {protocol.replace('labelled images', 'images held out')}"
    if metrics["n_samples"] or "assumed" not in metrics:
        lines += [f"Figures, held out ({protocol}), [95 % interval]", "-" * WIDTH]
        lines += [*figures_of(metrics), ""]
    scored = predictions[predictions["raw_score"].notna()]
    margin = margins(scored["pred_score"], scored["raw_score"], scored["threshold"])
    order = (
        with_outcomes(scored)
        .assign(margin=margin)
        .sort_values(["margin", "filename"], ascending=[False, True], kind="stable")
    )
    lines += [f"The {min(worst, len(order))} most anomalous of {len(order)} images", "-" * WIDTH]
    lines += [*images_table(order.head(worst)), ""]
    wrong = order[order["outcome"].isin(WRONG)]
    if len(wrong):
        shown = f", the first {worst} of {len(wrong)}" if len(wrong) > worst else f": {len(wrong)}"
        lines += [f"Wrong verdicts{shown}", "-" * WIDTH, *images_table(wrong.head(worst)), ""]
    if board is not None and len(board) > 1:
        lines += ["Runs compared", "-" * WIDTH, *leaderboard_table(board), ""]
    rest = [text for text in metrics["warnings"] if text not in first]
    ingested = Path(*folder.parts[:-3]) / "ingest_report.json"
    if ingested.is_file():  # warnings that affect no figure are only in this file
        rest += data_warnings(read_json(ingested), bearing=False)
    if rest:
        lines += ["Read this too", "-" * WIDTH]
        for text in rest:
            lines += marked(text)
        lines.append("")
    places = [
        ("all of it on one page", "report.html"),
        ("worst, best, borderline", "sheets"),
        ("overlays", "overlays"),
        ("heatmaps", "heatmaps"),
    ]
    places += [("charts", "figures"), ("every verdict", "predictions.csv"), ("every damage box", "regions.csv")]
    places += [("every figure", "metrics.json"), ("candidates to look at", "candidates.csv")]
    places += [("labels to check", "labels_to_check.csv"), ("what to label next", "next_to_label.csv")]
    lines += ["Where to look", "-" * WIDTH]
    lines += [f"  {name:<26}{folder / place}" for name, place in places if (folder / place).exists()]
    if threshold["value"] is not None:  # without a threshold there is nothing to bundle
        lines += ["", "New photographs", "-" * WIDTH, *next_commands.inspect_lines(folder, bundle)]
    return "\n".join(lines) + "\n"


def main(args: argparse.Namespace) -> None:
    """Print the run in ``args.run``, or the one that the leaderboard marks."""
    board = None if args.leaderboard is None else read_board(args.leaderboard)
    folder = args.run
    if folder is None:
        if board is None:
            raise UserError("no run named (give its folder, or --leaderboard results/DATASET/leaderboard.csv)")
        marked = board[board["main"] == 1]
        if marked.empty:
            raise UserError(f"{args.leaderboard}: no run is marked as the main one (give the folder of a run)")
        folder = args.leaderboard.parent.joinpath(*marked.iloc[0][RECIPE[1:]].astype(str))
    print(summary(folder, args.worst, board, args.bundle))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.reporting.summary", description=__doc__)
    parser.add_argument(
        "run", type=Path, nargs="?", help="folder with metrics.json; default: the leaderboard's main run"
    )
    parser.add_argument("--leaderboard", type=Path, help="leaderboard.csv of the data set, printed as well")
    parser.add_argument("--worst", type=int, default=8, help="how many of the most anomalous images to list")
    parser.add_argument("--bundle", default="", help="the command that packs the inspector, to be named")
    return parser


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: (width - 1) // 2] + "…" + text[len(text) - width // 2 :]


if __name__ == "__main__":
    stage(main, build_parser())
