"""The tables that stages exchange: their columns, and how to read and write them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pandas as pd

from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, atomic

# Every text column is a str ("" when unknown); numbers that may be unknown are "" in the file and NaN in memory.
MASK_CONTENT = "mask_sha256"  # begin of it, written after MANIFEST; see CONTENT
MANIFEST = ["image_id", "path", "sha256", "width", "height", "label", "defect_type", "group", "mask", "split"]
PAIRS = [
    "image_id", "path", "group", "width", "height", "pair", "n_annotations",
    "area", "bbox_x", "bbox_y", "bbox_width", "bbox_height",
]  # fmt: skip
SPLITS = ["image_id", "group", "label", "segmentation", "detection", "fold", "group_fold"]
MASKS = [
    "image_id", "mask", "source", "present", "doubtful", "reason",
    "predicted_iou", "prior_iou", "area", "area_z", "registration_score",
]  # fmt: skip
# doubtful: 1 where the mask is, so that no detector learns from the picture
ISOLATED = [
    "image_id",
    "image",
    "mask",
    "x0",
    "y0",
    "x1",
    "y1",
    "turn",
    "width",
    "height",
    "copy_of",
    "kind",
    "doubtful",
]
# Written after ISOLATED and read by Snakemake alone, which compares small tables by what they hold: otherwise a run
# that stops after other pictures were made would go on with what was computed from those before.
CONTENT = "content"  # begin of the sha256 of picture and mask
SCORES = ["image_id", "copy_of", "kind", "bank", "raw_score", "group_bank", "group_out_score"]
# raw_score of an image of another fold, by a bank that holds nothing of judged_fold either
CALIBRATION = ["protocol", "judged_fold", "image_id", "raw_score"]
PREDICTIONS = [
    "filename", "pred_score", "predicted_label", "raw_score", "label", "defect_type", "split",
    "mask_present", "mask_doubtful", "mask_reason", "threshold", "review", "review_low", "review_high", "image_id",
    "map_threshold",
]  # fmt: skip
# more of PREDICTIONS where kinds are asked for: kind of what is called bad, and its probability
PREDICTED_KINDS = ["kind", "kind_probability"]
# mark: "" for a region above the pixel threshold; otherwise the reason why the box is the peak of a bad photograph
REGIONS = ["image_id", "region", "x", "y", "width", "height", "area", "score", "mark"]
# labels that the photographs contradict, most doubtful first; nearest_good: the good photograph that looks most like it
LABELS_TO_CHECK = ["filename", "label", "score", "threshold", "why", "nearest_good", "image_id", "nearest_id"]
# photographs without a label that stand far from all others, worst first; nearest: of the others, the one most like it
CANDIDATES = ["filename", "distance", "limit", "nearest", "image_id", "nearest_id"]
# photographs without a label, the one whose label would say most first
NEXT_TO_LABEL = ["place", "filename", "raw_score", "threshold", "why", "image_id"]

# What identifies a run: names of entries of the config, and of the folders of its results.
RECIPE = ["dataset", "segmenter", "isolation", "detector"]
LEADERBOARD = [
    "main", *RECIPE, "held_out_iou", "auroc", "auroc_low", "auroc_high", "auroc_difference", "auroc_difference_low",
    "auroc_difference_high", "auroc_difference_p", "group_out_auroc", "average_precision", "f1", "f1_difference",
    "f1_difference_low", "f1_difference_high", "f1_difference_p", "accuracy", "precision", "recall", "recall_low",
    "recall_high", "false_positive_rate", "false_positive_rate_low", "false_positive_rate_high", "pixel_auroc",
    "au_pro", "strategy", "threshold", "share_reviewed", "missed_left", "false_alarms_left", "n_samples",
]  # fmt: skip

TEXT = {
    "image_id", "path", "sha256", "defect_type", "group", "mask", "split", "pair", "segmentation", "detection",
    "fold", "group_fold", "source", "reason", "image", "copy_of", "kind", "bank", "group_bank", "filename",
    "mask_reason", "protocol", "judged_fold", "mark", *RECIPE, "strategy", "category",
    "why", "nearest_good", "nearest_id", "nearest", "kind_if_bad", CONTENT, MASK_CONTENT,
}  # fmt: skip

ROWS = 5000  # in memory at a time if a table is read in parts


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, keep: Callable[[pd.DataFrame], pd.Series] | None = None
) -> pd.DataFrame:
    """Read these ``columns`` of a CSV; text columns come as str, "" when empty, the others as float or int.

    Other columns take no memory: for 100,000 images, the path alone is 15 MB.

    Args:
        path: the file.
        columns: those wanted; None: all.
        keep: says of a part of the table which rows are wanted, bool (rows,); None: all.

    Raises:
        UserError: the file is absent, empty or lacks a column.
    """
    parts = read_parts(path, columns)
    return pd.concat((part if keep is None else part[keep(part)] for part in parts), ignore_index=True)


def read_parts(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Yield a table part by part, of at most ROWS rows (an empty table: of none); see `read_table`."""
    try:
        found = list(pd.read_csv(path, nrows=0).columns)
        columns = found if columns is None else columns
        missing = [c for c in columns if c not in found]
        if missing:
            raise UserError(f"{path}: column {missing[0]!r} is missing (found: {', '.join(found)})")
        text = dict.fromkeys(TEXT.intersection(columns), str)
        with pd.read_csv(
            path, usecols=list(columns), dtype=text, keep_default_na=False, na_values={}, chunksize=ROWS
        ) as parts:
            for part in parts:
                for column in part.columns.difference(list(TEXT)):
                    part[column] = pd.to_numeric(part[column].replace("", None))
                yield part
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty") from None


def index_of(
    paths: Sequence[str | Path],
    columns: Sequence[str],
    keep: Callable[[pd.DataFrame], pd.Series] | None = None,
    by: Sequence[str] = (),
) -> DiskIndex:
    """These ``columns`` of tables by image_id, on disk.

    Args:
        paths: the files; together they list an image once at most.
        columns: those wanted.
        keep: as for `read_table`.
        by: further columns that ``keep`` goes by.
    """
    wanted = ["image_id", *columns]
    parts = (part for path in paths for part in read_parts(path, [*wanted, *by]))
    kept = (part if keep is None else part[keep(part)] for part in parts)
    rows = (part[wanted].itertuples(index=False, name=None) for part in kept)
    return DiskIndex(chain.from_iterable(rows), len(columns), paths)


def write_table(path: str | Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Write ``columns`` of ``table`` as CSV, atomically; floats with 9 significant digits (exact for float32)."""
    with table_writer(path, columns) as add:
        add(table)


@contextmanager
def table_writer(path: str | Path, columns: Sequence[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write a table part by part, atomically: yields a function that appends rows; see `write_table`."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(columns) + "\n")

        def add(part: pd.DataFrame) -> None:
            part[list(columns)].to_csv(stream, index=False, header=False, float_format="%.9g", lineterminator="\n")

        yield add


def recipe_of(metrics: Path) -> tuple[str, ...]:
    """The RECIPE of a run by the path of its metrics.json.

    Raises:
        UserError: the path is not that of a run.
    """
    recipe = metrics.parent.parts[-len(RECIPE) :]
    if len(recipe) < len(RECIPE):
        raise UserError(f"{metrics}: expected .../{'/'.join(RECIPE)}/{metrics.name}")
    return recipe
