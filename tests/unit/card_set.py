"""Tables of photographs as the card of a data set reads them, and a card made from a folder."""

from pathlib import Path

import numpy as np
import pandas as pd
from defectflow.data import ingest, survey
from defectflow.dataset_card import card
from defectflow.dataset_card.photographs import classes


def table(labels: str, **columns) -> pd.DataFrame:
    """One photograph for each character of ``labels``: 0 good, 1 bad, - none; other columns as given."""
    n = len(labels)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "image_id": [f"p{i:03d}" for i in range(n)],
            "name": [f"p{i:03d}.jpg" for i in range(n)],
            "path": [f"p{i:03d}.jpg" for i in range(n)],
            "label": [float(c) if c in "01" else np.nan for c in labels],
            "width": 60,
            "height": 40,
            "luminance": rng.uniform(100, 140, n),
            "clipped": 0.0,
            "sharpness": rng.uniform(10, 12, n),
            "file_bytes": 900.0,
            "format": "jpg",
            "sha256": "0" * 64,
        }
        | dict.fromkeys(("defect_type", "group", "mask", "split"), "")
    )
    frame = frame.assign(**columns)
    return frame.assign(**{"class": classes(frame)})


def report(**changed) -> dict:
    """What the card reads of ingest_report.json."""
    return {"annotated": 9, "layout": "coco", "problems": [], "warnings": []} | changed


def made(folder: Path, source: list[str], *options: str) -> Path:
    """Survey, ingest and card of photographs, as the rules call them; the folder of the card."""
    given = [str(folder / name) for name in ("0.csv", "0.json", "manifest.csv", "report.json", "card")]
    images = [word for word in source if word not in ("--labels", "--annotations")]
    survey.main(survey.build_parser().parse_args([*images[:2], "--out", given[0], "--report", given[1]]))
    ingest.main(
        ingest.build_parser().parse_args(
            [*source, "--surveys", given[1], "--on-problem", "leave_out", "--out", given[2], "--report", given[3]]
        )
    )
    words = ["--name", "mine", "--manifest", given[2], "--surveys", given[1], "--ingest-report", given[3]]
    card.main(card.build_parser().parse_args([*words, "--threads", "2", *options, "--out", given[4]]))
    return folder / "card"
