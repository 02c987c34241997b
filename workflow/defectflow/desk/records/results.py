"""Results of the last finished run of a folder: its tables, figures, and pictures."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from defectflow.core.files import UserError, atomic, read_json
from defectflow.core.tables import (
    CALIBRATION,
    ISOLATED,
    MASKS,
    PREDICTIONS,
    RECIPE,
    REGIONS,
    SPLITS,
    read_table,
)
from defectflow.decision.decisions import with_calibration
from defectflow.desk.pictures.thumbnails import to_look_at
from defectflow.desk.project import Project
from defectflow.images.read_write import read_mask
from defectflow.reporting.leaderboard import with_folds

LAYERS = ("photograph", "part", "heatmap", "heat", "mask")
TRANSPARENT = ("heat", "mask")
SIDES = (64, 1600)  # pixels, longer side of a picture that is sent, at least and at most
OUTLINE = (255, 200, 0, 255)  # of the part, BGRA


class Run(NamedTuple):
    """The main run of the last finished workflow run.

    Attributes:
        folder: results/{dataset}/{segmenter}/{isolation}/{detector}.
        recipe: the four names.
        stamp: changes with the results.
    """

    folder: Path
    recipe: tuple[str, ...]
    stamp: tuple[int, ...]

    @property
    def dataset(self) -> Path:
        """Folder of all results of the data set."""
        return self.folder.parents[2]

    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json."""
        found: dict[str, Any] = read_json(self.folder / "metrics.json")
        return found


def last_run(project: Project) -> Run | None:
    """The main run of the leaderboard, or the newest with figures if there is no leaderboard; None if there is none."""
    base = project.results / project.dataset
    found = None
    try:
        board = read_table(base / "leaderboard.csv", ["main", *RECIPE])
        main = board[board["main"] == 1]
        if len(main):
            found = base.parent / "/".join(main.iloc[0][RECIPE])
    except UserError:
        found = None
    if found is None or not (found / "metrics.json").is_file():
        ended = sorted(base.glob("*/*/*/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
        found = ended[-1].parent if ended else None
    if found is None or not (found / "predictions.csv").is_file():
        return None
    stamp = tuple((found / name).stat().st_mtime_ns for name in ("metrics.json", "predictions.csv"))
    return Run(found, found.relative_to(base.parent).parts, stamp)


def need_run(project: Project) -> Run:
    """The last run.

    Raises:
        UserError: none has finished yet.
    """
    run = last_run(project)
    if run is None:
        raise UserError("no run has finished yet (start one on the page Run)")
    return run


@functools.lru_cache(maxsize=4)
def table_of(run: Run) -> pd.DataFrame:
    """predictions.csv of a run with group, fold, detection, and the scores that thresholds are chosen on.

    The result is shared: do not change it.
    """
    labelled = read_table(run.folder / "predictions.csv", PREDICTIONS)
    table = with_folds(labelled, read_table(run.dataset / "splits.csv", SPLITS))
    if (run.folder / "calibration.csv").is_file():
        table = with_calibration(table, read_table(run.folder / "calibration.csv", CALIBRATION))
    return table


class Pictures(NamedTuple):
    """Paths of the pictures of a run by image_id, as the run wrote them.

    Attributes:
        photographs, masks, parts: files.
        size: (height, width) of each photograph, upright.
        boxes: damaged regions, [x, y, width, height, score, mark].
        reasons: why the mask of the part is doubtful or absent.
    """

    photographs: dict[str, str]
    masks: dict[str, str]
    parts: dict[str, str]
    size: dict[str, tuple[int, int]]
    boxes: dict[str, list[list[Any]]]
    reasons: dict[str, str]


@functools.lru_cache(maxsize=4)
def pictures_of(run: Run) -> Pictures:
    """The pictures of a run; the result is shared."""
    manifest = read_table(run.dataset / "manifest.csv", ["image_id", "path", "width", "height"])
    masks = _tables(run.folder.parents[1] / "masks", MASKS)
    isolated = _tables(run.folder.parent / "images", ISOLATED)
    boxes: dict[str, list[list[Any]]] = {}
    if (run.folder / "regions.csv").is_file():
        for row in read_table(run.folder / "regions.csv", REGIONS).itertuples():
            boxes.setdefault(row.image_id, []).append(
                [*map(int, (row.x, row.y, row.width, row.height)), row.score, row.mark]
            )
    own = isolated[isolated["copy_of"] == ""]
    size = zip(manifest["height"].astype(int), manifest["width"].astype(int), strict=True)
    return Pictures(
        dict(zip(manifest["image_id"], manifest["path"], strict=True)),
        {i: path for i, path in zip(masks["image_id"], masks["mask"], strict=True) if path},
        dict(zip(own["image_id"], own["image"], strict=True)),
        dict(zip(manifest["image_id"], size, strict=True)),
        boxes,
        {i: why for i, why in zip(masks["image_id"], masks["reason"], strict=True) if why},
    )


def _tables(folder: Path, columns: list[str]) -> pd.DataFrame:
    paths = sorted(folder.glob("*.csv"))
    return pd.concat([read_table(path, columns) for path in paths]) if paths else pd.DataFrame(columns=columns)


def picture(project: Project, run: Run, image_id: str, layer: str, side: int) -> tuple[bytes, str]:
    """A picture of a photograph, its longer side at most ``side`` pixels, as (bytes of a file, its media type).

    Args:
        layer: "photograph"; "part": what the detector saw; "heatmap"; "heat": the same, transparent where it is dark;
            "mask": the outline of the part, transparent elsewhere.

    Raises:
        UserError: there is no such photograph or layer, or its file is gone.
    """
    known = pictures_of(run)
    if image_id not in known.photographs:
        raise UserError(f"{image_id[:100]!r}: no photograph of the last run")
    side = max(SIDES[0], min(SIDES[1], side))
    path = file_of(project, run, image_id, layer)
    key = f"{path}:{path.stat().st_mtime_ns}:{layer}:{side}"
    kind = "png" if layer in TRANSPARENT else "jpg"
    kept = project.state / "thumbnails" / f"{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:32]}.{kind}"
    if not kept.is_file():
        shown = outlined(read_mask(path), side) if layer == "mask" else _drawn(path, side, layer == "heat")
        quality = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, 88]
        with atomic(kept) as temporary:
            temporary.write_bytes(cv2.imencode(f".{kind}", shown, quality)[1].tobytes())
    return kept.read_bytes(), f"image/{'png' if kind == 'png' else 'jpeg'}"


def file_of(project: Project, run: Run, image_id: str, layer: str) -> Path:
    """The file of a layer of a photograph; arguments and errors of `picture`."""
    known = pictures_of(run)
    files = {
        "photograph": known.photographs.get(image_id),
        "part": known.parts.get(image_id),
        "mask": known.masks.get(image_id),
        **dict.fromkeys(("heatmap", "heat"), str(run.folder / "heatmaps" / f"{image_id}.png")),
    }
    if layer not in files:
        raise UserError(f"{layer[:40]!r}: no such layer (one of {', '.join(LAYERS)})")
    path = project.folder / (files[layer] or "")
    if not files[layer] or not path.is_file():
        raise UserError(f"{image_id}: there is no {layer} of this photograph (run again)")
    return path


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _drawn(path: Path, side: int, transparent: bool) -> np.ndarray:
    """A picture reduced, as BGR, or BGRA that is opaque where it is bright."""
    shown = cv2.cvtColor(_reduced(to_look_at(path), side), cv2.COLOR_RGB2BGR)
    return np.dstack([shown, shown.max(axis=-1)]) if transparent else shown


def outlined(mask: np.ndarray, side: int) -> np.ndarray:
    """The outline of a mask, bool (height, width), uint8 BGRA, its longer side at most ``side`` pixels."""
    small = _reduced(mask.astype(np.uint8) * 255, side) >= 128
    drawn = np.zeros((*small.shape, 4), np.uint8)
    lines, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, lines, -1, OUTLINE, max(1, round(max(small.shape) / 400)))
    return drawn


def reduced_file(path: Path, side: int) -> bytes:
    """A picture as JPEG, its longer side at most ``side`` pixels.

    Raises:
        UserError: it cannot be read.
    """
    shown = _drawn(path, max(SIDES[0], min(SIDES[1], side)), False)
    return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
