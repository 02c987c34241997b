"""Stage card: what a data set holds and what is missing in it for an honest figure.

Writes a folder: card.html to open from disk, card.md, card.json (Croissant metadata), photographs.csv (labels and
measurements of every photograph) and pictures. It judges nothing and learns nothing. The same inputs in the same
environment give the same bytes.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic_dir, read_json, stage, write_json
from defectflow.core.tables import write_table
from defectflow.dataset_card import card_charts, pictures
from defectflow.dataset_card.balance import gini
from defectflow.dataset_card.croissant import ABOUT, COLUMNS, croissant
from defectflow.dataset_card.defect_places import Places, places
from defectflow.dataset_card.limits import copies, missing
from defectflow.dataset_card.photographs import (
    GOOD,
    NO_LABEL,
    class_order,
    judged,
    photographs,
    shows_bursts,
)
from defectflow.dataset_card.shortcuts import shortcuts
from defectflow.drawing.chart_files import save_png, svg
from defectflow.drawing.histograms_and_curves import Chart
from defectflow.evaluation.cautions import data_warnings
from defectflow.evaluation.scored_images import damage_index
from defectflow.images.bit_depth import add_option
from defectflow.reporting.galleries import Picture, data_uri
from defectflow.reporting.html_pages import write_page, write_text

LISTED = 40  # sessions and sizes in a table before the rest is only counted
QUALITY = 85  # of the JPEG files beside card.md


def counts_by(table: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """Photographs by the values of a column: value, good, bad, unlabelled, total; the most frequent first."""
    rows = []
    for value, those in table.groupby(column, sort=True):
        label = those["label"]
        good, bad = int(label.eq(0).sum()), int(label.eq(1).sum())
        rows.append({"value": value, "good": good, "bad": bad, "unlabelled": len(those) - good - bad})
        rows[-1]["total"] = len(those)
    return sorted(rows, key=lambda row: (-row["total"], str(row["value"])))


def classes_of(table: pd.DataFrame, defects: Places | None) -> list[dict[str, Any]]:
    """Each class with its numbers: name, total, splits (by name), share of all, marked, area and spots of defects."""
    found = []
    for name in class_order(table):
        those = table[table["class"] == name]
        splits = {side: int(those["split"].eq(side).sum()) for side in sorted(set(table["split"]) - {""})}
        marks = dict(defects.kinds.get(name, {})) if defects else {}
        found.append(
            {"name": name, "total": len(those), "splits": splits, "share": len(those) / len(table)}
            | {"marked": marks.get("n", 0), "area": marks.get("area"), "spots": marks.get("spots")}
        )
    return found


def suffixes_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """The suffixes that files of each format have, by format."""
    endings = table["name"].map(lambda name: PurePosixPath(name).suffix)
    return {str(name): sorted(set(endings[rows])) for name, rows in table.groupby("format").groups.items()}


def summary_of(table: pd.DataFrame) -> str:
    """One sentence on how many photographs of what there are."""
    label, kinds = table["label"], set(table.loc[table["label"] == 1, "class"])
    good, bad = int(label.eq(0).sum()), int(label.eq(1).sum())
    text = f"{counted(len(table), 'photograph')}: "
    if not good + bad:
        text += "none is labelled"
    else:
        text += f"{good:,} good, {bad:,} bad"
        text += f" of {len(kinds)} kinds" if len(kinds) > 1 else ""
        text += f", {len(table) - good - bad:,} without a label" if good + bad < len(table) else ""
    groups = table.loc[table["group"] != "", "group"].nunique()
    return text + (f"; {counted(groups, 'session')}." if shows_bursts(table) else "; no sessions are named.")


def balance_of(table: pd.DataFrame) -> dict[str, Any] | None:
    """Gini coefficient and the largest to the smallest class of the labelled photographs; None under two classes."""
    sizes = table.loc[table["label"].notna(), "class"].value_counts()
    if len(sizes) < 2:
        return None
    return {"classes": len(sizes), "gini": gini(sizes.tolist()), "ratio": float(sizes.max() / sizes.min())}


def charts_of(table: pd.DataFrame) -> dict[str, Chart]:
    """The charts: lorenz (where there are two classes), brightness, sharpness."""
    labelled = table.loc[table["label"].notna(), "class"].value_counts().tolist()
    order = class_order(table)
    found = {"lorenz": card_charts.lorenz_chart(labelled)} if len(labelled) > 1 else {}
    for name, column, label in (
        ("brightness", "luminance", "Mean grey level (0 black, 255 white)"),
        ("sharpness", "sharpness", "Standard deviation of the Laplacian (grey levels)"),
    ):
        rows = [(kind, table.loc[table["class"] == kind, column].to_numpy(float)) for kind in order]
        found[name] = card_charts.strips(f"{name.capitalize()} by class", label, rows)
    return found


def content(
    table: pd.DataFrame, report: Mapping[str, Any], defects: Places | None, about: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """What the page and the text say, as variables of their templates; pictures and charts are added to it."""
    told_apart = shortcuts(table, seed)
    sentences = missing(table, report, defects, told_apart)
    spread = {
        name: [float(v) for v in np.quantile(table[column], (0, 0.5, 1))]
        for name, column in (("brightness", "luminance"), ("overexposed", "clipped"), ("sharpness", "sharpness"))
    }
    sizes = table["width"].astype(str) + " x " + table["height"].astype(str)
    return {
        "summary": summary_of(table),
        "n": len(table),
        "labelled": bool(table["label"].notna().any()),
        "n_judged": len(judged(table)),
        "missing": sentences,
        "about": {key: about.get(key, "") for key in ABOUT},
        "classes": classes_of(table, defects),
        "splits": sorted(set(table["split"]) - {""}),
        "balance": balance_of(table),
        "groups": counts_by(table[table["group"] != ""], "group") if shows_bursts(table) else [],
        "sizes": counts_by(table.assign(size=sizes), "size"),
        "formats": counts_by(table, "format"),
        "spread": spread,
        "shortcuts": told_apart,
        "defects": defects,
        "copies": copies(report),
        "left_out": len({one["file"] for one in report.get("problems", []) if one["left_out"] == "image"}),
        "warnings": [*data_warnings(report, bearing=True), *data_warnings(report, bearing=False)],
        "outlined": report["annotated"],
        "layout": report["layout"],
        "listed": LISTED,
    }


def write_photographs(path: Path, table: pd.DataFrame) -> None:
    """Write photographs.csv, columns croissant.COLUMNS."""
    words = table["label"].map({0: "good", 1: "bad"}).fillna("")
    told = table.assign(
        label=words,
        brightness=table["luminance"].round(3),
        overexposed=table["clipped"].round(6),
        sharpness=table["sharpness"].round(4),
        file_bytes=table["file_bytes"].astype(int),
        has_mask=(table["mask"] != "").map({True: "true", False: "false"}),
    )
    write_table(path, told, list(COLUMNS))


def _jpeg(path: Path, picture: np.ndarray) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def main(args: argparse.Namespace) -> None:
    """Measure, draw, write."""
    report = read_json(args.ingest_report)
    try:
        about = json.loads(args.about)
    except json.JSONDecodeError as error:
        raise UserError(f"--about: not valid JSON ({error})") from None
    table = photographs(args.manifest, args.surveys, report["images_folder"])
    regions = damage_index(*args.regions) if args.regions else None
    defects = places(table, regions, args.threads)
    page = content(table, report, defects, about, args.seed)
    examples = pictures.examples(table, args.depth, args.threads)
    ends = pictures.thumbnails(pictures.extremes(table), args.depth, args.threads)
    heat = pictures.places_pictures(table, defects, args.depth, args.threads)
    charts, name = charts_of(table), args.name
    numbers = {row["name"]: row["total"] for row in page["classes"]}
    with atomic_dir(args.out) as folder:
        write_photographs(folder / "photographs.csv", table)
        _jpeg(folder / "examples.jpg", pictures.sheet(f"{name}: examples", examples, numbers))
        if heat:
            _jpeg(folder / "places.jpg", heat[""])
        for what, chart in charts.items():
            save_png(folder / f"{what}.png", chart)
        known = croissant(
            name, page["summary"], folder / "photographs.csv", suffixes_of(table), numbers,
            page["missing"], about,
        )  # fmt: skip
        write_json(folder / "card.json", known)
        page |= {"name": name, "required": [key for key in ABOUT if not about.get(key)]}
        write_text(folder / "card.md", "card.md", heat=bool(heat), charts=sorted(charts), **page)
        write_page(
            folder / "card.html",
            "card.html",
            charts={what: svg(chart) for what, chart in charts.items()},
            examples={kind: [one.shown for one in those] for kind, those in examples.items()},
            extremes=[(one.word, one.row, one.shown) for one in ends],
            heat={kind: Picture(kind, data_uri(one), one.shape[1], one.shape[0]) for kind, one in heat.items()},
            GOOD=GOOD,
            NO_LABEL=NO_LABEL,
            **page,
        )
    print(f"{args.out}{os.sep}card.html: {page['summary']} {counted(len(page['missing']), 'thing')} missing")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.dataset_card.card", description=__doc__)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--surveys", type=Path, nargs="+", required=True, help="reports of survey, one per shard")
    parser.add_argument("--ingest-report", type=Path, required=True, help="ingest_report.json")
    parser.add_argument("--regions", type=Path, nargs=2, help="regions.csv and regions.json of a run")
    parser.add_argument("--about", default="{}", help="license, creator, url, published of the data set, as JSON")
    add_option(parser)
    add_seed(parser, "seed of the folds of the logistic regression")
    add_threads(parser, 1, "photographs at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
