"""The photographs of a data set as one table: labels from the manifest, measurements from the survey."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from defectflow.core.files import UserError, read_json
from defectflow.core.tables import MANIFEST, read_table

GOOD, BAD, NO_KIND, NO_LABEL = "good", "bad", "bad, kind unknown", "no label"
MEASURED = ["luminance", "clipped", "sharpness", "file_bytes"]


def photographs(manifest: Path, surveys: Sequence[Path], folder: str) -> pd.DataFrame:
    """Read the manifest and what the survey measured of each of its photographs.

    Args:
        manifest: manifest.csv.
        surveys: reports of the survey stage, one per shard.
        folder: of the photographs, as ingest_report.json has it.

    Returns:
        The columns of the manifest and: name (relative to ``folder``), class (see `classes`), luminance (mean grey
        level, 0 to 255), clipped (share of overexposed pixels, 0 to 1), sharpness (see `image_checks.sharpness_of`),
        file_bytes, format (suffix in lower case without the dot). In the order of image_id.

    Raises:
        UserError: a photograph is in no survey.
    """
    table = read_table(manifest, MANIFEST).sort_values("image_id", ignore_index=True)
    table["name"] = [path.removeprefix(folder).lstrip("/") for path in table["path"]]
    measured = {
        name: [picture[key] for key in MEASURED] for path in surveys for name, picture in read_json(path).items()
    }
    try:
        rows = [measured[name] for name in table["name"]]
    except KeyError as error:
        raise UserError(f"{manifest}: {error.args[0]} was not surveyed (run survey and ingest again)") from None
    table[MEASURED] = pd.DataFrame(rows, columns=MEASURED, index=table.index).astype(float)
    table["format"] = [PurePosixPath(name).suffix.lower().lstrip(".") or "none" for name in table["name"]]
    table["format"] = table["format"].replace("jpeg", "jpg")
    return table.assign(**{"class": classes(table)})


def classes(table: pd.DataFrame) -> pd.Series:
    """The class of each photograph: good, its kind of defect, or no label; bad where nothing names a kind.

    Args:
        table: label (0, 1, NaN) and defect_type ("" if unknown).
    """
    kinds = table["defect_type"].where(~table["defect_type"].isin({GOOD, NO_LABEL}), table["defect_type"] + " (a kind)")
    named = bool((table["label"].eq(1) & (kinds != "")).any())
    kinds = kinds.where(kinds != "", NO_KIND if named else BAD)
    return kinds.where(table["label"].notna(), NO_LABEL).where(~table["label"].eq(0), GOOD)


def class_order(table: pd.DataFrame) -> list[str]:
    """The classes that occur: good, then kinds of defect by their number, then photographs without a label."""
    found = table["class"].value_counts()
    last = {GOOD: 0, NO_KIND: 2, NO_LABEL: 3}
    return sorted(found.index, key=lambda name: (last.get(name, 1), -found[name], name))


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The labelled photographs that a run judges: all of them, or those that a fixed split does not train on."""
    return table[table["label"].notna() & (table["split"] != "train")]


def shows_bursts(table: pd.DataFrame) -> bool:
    """Whether groups say that some photographs were taken together."""
    grouped = table.loc[table["group"] != "", "group"]
    return bool(grouped.nunique() < len(grouped))
