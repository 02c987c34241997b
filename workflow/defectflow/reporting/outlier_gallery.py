"""The gallery of good photographs whose scores stand out, each next to the good ones most similar to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectflow.evaluation.scored_images import evenly
from defectflow.images.read_write import read_rgb
from defectflow.reporting.galleries import Gallery

ALIKE = 2  # good photographs shown beside each one that stands out
COMPARED = 100  # good photographs that these are chosen from, at most
SMALL = 32  # pixels, side of the pictures that are compared


def to_look_at(table: pd.DataFrame, found: Mapping[str, Any] | None, depth: str | None = None) -> Gallery | None:
    """The photographs that stand out, each followed by the good ones that look most like it; None without any.

    Photographs are compared as pictures of SMALL pixels, each divided by its mean, with up to COMPARED others.

    Args:
        table: image_id, filename, path, label.
        found: what `good_only.figures` returned.
    """
    if not found or not found["far"]:
        return None
    good = table[table["label"] == 0]
    far = good[good["image_id"].isin(found["image_ids"])]
    others = good.drop(index=far.index)
    if far.empty:
        return None
    others = others.iloc[evenly(len(others), COMPARED)]
    pictures, shown = np.stack([_small(path, depth) for path in others["path"]]), []
    for index, path in far["path"].items():
        order = np.abs(pictures - _small(path, depth)).mean(axis=1).argsort(kind="stable")
        alike = [i for i in others.index[order] if i not in shown]
        shown += [index, *alike[:ALIKE]]
    lead = (
        "Labelled good, with a score that stands out from those of all other good photographs; after each, the good "
        "ones that look most like it. Does it show a defect?"
    )
    return Gallery("Please look at these first", lead, len(shown), table.loc[shown])


def without(gallery: Gallery, shown: Gallery) -> Gallery:
    """``gallery`` less the photographs of ``shown``, which stand above it."""
    rows = gallery.rows[~gallery.rows.index.isin(shown.rows.index)]
    dropped = len(gallery.rows) - len(rows)
    if not dropped:
        return gallery
    lead = f"{gallery.lead} {dropped} {'is' if dropped == 1 else 'are'} shown above."
    return replace(gallery, lead=lead, none=lead, total=gallery.total - dropped, rows=rows)


def _small(path: str, depth: str | None) -> np.ndarray:
    photo = read_rgb(path, depth)
    picture = cv2.resize(photo, (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return picture / max(float(picture.mean()), 1.0)
