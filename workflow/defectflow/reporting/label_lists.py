"""Photographs that a person should look at because of their label, each beside the good one that looks most like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from defectflow.core.disk_index import Row
from defectflow.core.tables import CANDIDATES, LABELS_TO_CHECK, NEXT_TO_LABEL, read_table
from defectflow.images.read_write import read_rgb
from defectflow.reporting.galleries import Picture, data_uri, shrink
from defectflow.reporting.html_pages import short

SHOWN = 8  # of a list, with pictures; all are in the table


@dataclass(frozen=True)
class Pair:
    """A photograph of a list, and the one beside it.

    Attributes:
        name, text: file name, and why it is listed.
        picture: the photograph.
        beside, beside_picture: the same of the good photograph that looks most like it; "" and None without one.
    """

    name: str
    text: str
    picture: Picture
    beside: str
    beside_picture: Picture | None


@dataclass(frozen=True)
class LabelList:
    """A list of photographs for a section of the report: its title, introduction, number, and those with pictures."""

    anchor: str
    title: str
    lead: str
    total: int
    pairs: tuple[Pair, ...]


def labels_to_check(path: Path | None, manifest: Mapping[str, Row], depth: str | None = None) -> LabelList | None:
    """The list of labels_to_check.csv; None without a file, or without a photograph in it.

    Args:
        path: the file.
        manifest: path and more of each photograph, by image_id.
        depth: of the photographs, see `read_rgb`.
    """
    table = pd.DataFrame() if path is None else read_table(path, LABELS_TO_CHECK)
    if table.empty:
        return None
    lead = (
        "Labels that the photographs themselves contradict, most doubtful first. Each photograph was compared with the "
        "good ones, never with itself. A hard defect and an unusual good part are listed too: look, and correct a "
        "label where it is wrong. Nothing was changed. All of them are in labels_to_check.csv."
    )
    pairs = []
    for row in table.head(SHOWN).itertuples():
        text = f"{row.why}: {short(row.score)}, and the threshold is {short(row.threshold)}"
        pairs.append(_pair(row, text, row.nearest_good, "most similar good one", manifest, depth))
    return LabelList("labels", "Labels to check", lead, len(table), tuple(pairs))


def candidates(path: Path | None, manifest: Mapping[str, Row], depth: str | None = None) -> LabelList | None:
    """The list of candidates.csv, as :func:`labels_to_check` gives that of labels_to_check.csv."""
    table = pd.DataFrame() if path is None else read_table(path, CANDIDATES)
    if table.empty:
        return None
    lead = (
        "Photographs without a label that stand far from all others, farthest first; nothing was learned from them. "
        "Bad parts are among them, and rare views of good ones. Label those that you know: every label helps. All of "
        "them are in candidates.csv."
    )
    pairs = []
    for row in table.head(SHOWN).itertuples():
        text = f"Its distance from the others is {short(row.distance)}; usual is up to {short(row.limit)}"
        pairs.append(_pair(row, text, row.nearest, "most similar of the others", manifest, depth))
    return LabelList("candidates", "Candidates to look at", lead, len(table), tuple(pairs))


def next_to_label(path: Path | None, manifest: Mapping[str, Row], depth: str | None = None) -> LabelList | None:
    """The list of next_to_label.csv, as :func:`labels_to_check` gives that of labels_to_check.csv; without pairs."""
    table = pd.DataFrame() if path is None else read_table(path, NEXT_TO_LABEL)
    if table.empty:
        return None
    lead = (
        "Photographs without a label, those first whose labels would say most about the threshold. Label some, write "
        "them into labels.csv and run again: the list then goes on from there. With `unlabelled: learn` in the entry "
        "of the data set, those without a label are still learned from. All of them are in next_to_label.csv."
    )
    pairs = []
    for row in table.head(SHOWN).itertuples():
        text = f"{row.place}: {row.why}; raw score {short(row.raw_score)}"
        pairs.append(Pair(row.filename, text, _picture(manifest[row.image_id][0], depth, "photograph"), "", None))
    return LabelList("next", "What to label next", lead, len(table), tuple(pairs))


def _pair(row: Any, text: str, name: str, kind: str, manifest: Mapping[str, Row], depth: str | None) -> Pair:
    own = _picture(manifest[row.image_id][0], depth, "photograph")
    if not row.nearest_id:
        return Pair(row.filename, text, own, "", None)
    return Pair(row.filename, text, own, name, _picture(manifest[row.nearest_id][0], depth, kind))


def _picture(path: str, depth: str | None, kind: str) -> Picture:
    small = shrink(read_rgb(path, depth))
    return Picture(kind, data_uri(small), small.shape[1], small.shape[0])
