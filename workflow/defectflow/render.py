"""Stage render: for every scored image a heatmap and an overlay at full resolution, and contact sheets of the set."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow import drawing
from defectflow.anomaly_maps import AnomalyMaps, full_resolution, load_maps
from defectflow.drawing import Cell, Scale
from defectflow.files import UserError, atomic_dir, read_json, stage
from defectflow.images import read_mask, read_rgb, write_png
from defectflow.naming import place_of
from defectflow.tables import MANIFEST, MASKS, PREDICTIONS, read_table

PER_SECTION = 12
SAMPLE = 400  # images whose maps set the colour scale
MASKS_SHOWN = 24


class Job(NamedTuple):
    """What it takes to draw one image."""

    image_id: str
    path: str
    truth: str
    part: str
    name: str
    verdict: str
    colour: tuple[int, int, int]
    notice: str
    detail: str
    bad: bool
    place: str


def verdict_of(row: Any) -> tuple[str, tuple[int, int, int], str]:
    """Verdict in words, its colour, and what else is known, of a row of predictions.csv."""
    if np.isnan(row.predicted_label):
        verdict, colour = f"no verdict  raw {row.raw_score:.3g}", drawing.UNKNOWN
    else:
        bad = row.predicted_label == 1
        verdict, colour = f"{'BAD' if bad else 'GOOD'}  {row.pred_score:.2f}", drawing.BAD if bad else drawing.GOOD
    known = "no label" if np.isnan(row.label) else f"labelled {'bad' if row.label == 1 else 'good'}"
    detail = [f"{known}: {row.defect_type}" if row.defect_type else known]
    if row.mask_reason and error_of(row):  # otherwise the notice tells it
        detail.append(row.mask_reason)
    return verdict, colour, " · ".join(detail)


def error_of(row: Any) -> str:
    """What is wrong with a verdict: "missed defect", "false alarm", or "" where it is right or one side is unknown."""
    if np.isnan(row.label) or np.isnan(row.predicted_label) or row.label == row.predicted_label:
        return ""
    return "missed defect" if row.label == 1 else "false alarm"


def notice_of(row: Any) -> str:
    """What to look at first: a wrong verdict, else an absent part or a doubtful mask and why; "" for nothing."""
    if error_of(row):
        return error_of(row)
    if row.mask_present == 0:
        return row.mask_reason or "no part found"
    return f"doubtful mask: {row.mask_reason}".removesuffix(": ") if row.mask_doubtful == 1 else ""


def scale_of(maps: AnomalyMaps, predictions: pd.DataFrame, level: float | None) -> Scale:
    """Colour scale from up to SAMPLE images, spread evenly over the good ones and over all."""
    good = predictions.loc[predictions["label"] == 0, "image_id"].tolist()
    everything = predictions["image_id"].tolist()

    def values(ids: list[str]) -> np.ndarray:
        chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, SAMPLE).astype(int))]
        grids = [np.asarray(maps[i].grid_map) for i in chosen]
        return np.concatenate([g[g > g.min()] if (g > g.min()).any() else g.ravel() for g in grids])

    return drawing.colour_scale(values(good or everything), values(everything), level)


def draw(job: Job, maps: AnomalyMaps, scale: Scale, heatmaps: Path, overlays: Path) -> None:
    """Write heatmap and overlay of one image."""
    photo = read_rgb(job.path)
    size = photo.shape[:2]
    entry = maps[job.image_id]
    heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size)
    drawing.write_heatmap(heatmaps / job.place, heat, scale)
    # A bad image always shows where it is worst, also if its peak stays under the level of the outlines.
    level = min(scale.level, 0.9 * float(heat.max()) + 0.1 * scale.low) if job.bad else scale.level
    truth, part = (_mask(path, size) for path in (job.truth, job.part))
    found = heat >= level
    picture = drawing.overlay(photo, heat, scale, found, truth, part)
    legend = [("part", drawing.PART)] if part is not None and part.any() else []
    legend += [("ground truth", drawing.TRUTH)] if truth is not None else []
    legend += [("anomalous", drawing.FOUND)] if found.any() else []
    strip = drawing.caption_strip(size[1], job.name, job.verdict, job.colour, job.notice, job.detail, legend)
    write_png(overlays / job.place, np.vstack([picture, strip]))


def sheets(predictions: pd.DataFrame, overlays: Path, folder: Path) -> None:
    """Write best.png, worst.png and borderline.png, from the overlays of all rows of ``predictions``.

    Order is by distance of the raw score from the image's threshold, or by raw score where there is no threshold.
    """
    table = predictions.assign(margin=predictions["raw_score"] - predictions["threshold"].fillna(0))
    table["place"] = [place_of(image_id, len(table)) for image_id in table["image_id"]]
    table = table.sort_values(["margin", "filename"], kind="stable")
    errors = pd.Series([error_of(row) for row in table.itertuples()], index=table.index, dtype=object)
    with_verdict = table[table["predicted_label"].notna()]
    near = with_verdict.assign(near=with_verdict["margin"].abs()).sort_values(["near", "filename"], kind="stable")

    def cells(rows: pd.DataFrame) -> list[Cell]:
        return [_cell(row, overlays) for row in rows.head(PER_SECTION).itertuples()]

    content = {
        "best": ("Best: least anomalous", [("Lowest scores", cells(table))]),
        "worst": (
            "Worst: most anomalous, and wrong verdicts",
            [
                ("Highest scores", cells(table[::-1])),
                ("Missed defects, lowest score first", cells(table[errors == "missed defect"])),
                ("False alarms, highest score first", cells(table[errors == "false alarm"][::-1])),
            ],
        ),
        "borderline": ("Borderline: nearest to the threshold, worth a second look", [("Nearest first", cells(near))]),
    }
    for name, (title, sections) in content.items():
        write_png(folder / f"{name}.png", drawing.contact_sheet(title, sections))


def mask_sheet(manifest: pd.DataFrame, masks: pd.DataFrame, names: dict[str, str]) -> np.ndarray:
    """Contact sheet of photographs with the outline of the part: every flagged one first, then a spread of the rest."""
    table = masks.merge(manifest[["image_id", "path"]], on="image_id").sort_values("image_id", kind="stable")
    flag = (table["present"] == 0) | (table["doubtful"] == 1)
    flagged, rest = table[flag].head(MASKS_SHOWN), table[~flag]
    count = min(len(rest), max(MASKS_SHOWN - len(flagged), 8))
    rest = rest.iloc[np.unique(np.linspace(0, len(rest) - 1, count).astype(int))] if count else rest
    sections = [(f"Flagged: {int(flag.sum())} of {len(table)}", [_mask_cell(r, names) for r in flagged.itertuples()])]
    sections.append((f"A sample of the {int((~flag).sum())} others", [_mask_cell(r, names) for r in rest.itertuples()]))
    return drawing.contact_sheet("Masks of the part", sections)


def main(args: argparse.Namespace) -> None:
    """Draw every image, several at a time, then the sheets."""
    cv2.setNumThreads(1)
    manifest = read_table(args.manifest, MANIFEST).set_index("image_id", drop=False)
    predictions = read_table(args.predictions, PREDICTIONS)
    tables = [read_table(path, MASKS) for path in args.masks]
    masks = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MASKS)
    maps = load_maps(args.maps)
    scored = predictions[predictions["image_id"].isin(list(maps)) & predictions["raw_score"].notna()]
    strange = sorted(set(scored["image_id"]) - set(manifest.index))
    if strange:
        raise UserError(f"{args.predictions}: image {strange[0]} is not in {args.manifest} (run evaluate again)")
    if scored.empty:
        raise UserError(f"{args.predictions}: no image has both a score and a map (pass the maps of every shard)")
    threshold = (read_json(args.metrics).get("pixel") or {}).get("map_threshold")
    scale = scale_of(maps, scored, threshold["value"] if threshold else None)
    part = dict(zip(masks["image_id"], masks["mask"], strict=True))
    jobs = [
        _job(row, manifest.loc[row.image_id], part.get(row.image_id, ""), place_of(row.image_id, len(scored)))
        for row in scored.itertuples()
    ]
    with ExitStack() as stack:
        heatmaps, overlays, folder = (
            stack.enter_context(atomic_dir(path)) for path in (args.heatmaps, args.overlays, args.sheets)
        )
        for folder_of_pictures in {root / Path(job.place).parent for job in jobs for root in (heatmaps, overlays)}:
            folder_of_pictures.mkdir(exist_ok=True)
        # Threads, not processes: nearly all the time is spent in OpenCV, Pillow and NumPy, which let go of the lock.
        with ThreadPoolExecutor(max(args.threads, 1)) as pool:
            done = pool.map(lambda job: draw(job, maps, scale, heatmaps, overlays), jobs)
            list(tqdm(done, total=len(jobs), desc="render", unit="image"))
        sheets(scored, overlays, folder)
        names = dict(zip(predictions["image_id"], predictions["filename"], strict=True))
        write_png(folder / "masks.png", mask_sheet(manifest.reset_index(drop=True), masks, names))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.render", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json: the map's threshold")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--heatmaps", type=Path, required=True, help="folder to write")
    parser.add_argument("--overlays", type=Path, required=True, help="folder to write")
    parser.add_argument("--sheets", type=Path, required=True, help="folder to write")
    parser.add_argument("--threads", type=int, default=1, help="images drawn at a time")
    return parser


def _job(row: Any, image: pd.Series, part: str, place: str) -> Job:
    verdict, colour, detail = verdict_of(row)
    truth = image["mask"] if row.label == 1 else ""
    bad = row.predicted_label == 1
    return Job(
        row.image_id, image["path"], truth, part, row.filename, verdict, colour, notice_of(row), detail, bad, place
    )


def _mask(path: str, size: tuple[int, int]) -> np.ndarray | None:
    if not path:
        return None
    mask = read_mask(path)
    if mask.shape != tuple(size):
        raise UserError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its photograph {size[1]}x{size[0]}"
        )
    return mask


def _cell(row: Any, overlays: Path) -> Cell:
    picture = read_rgb(overlays / row.place)
    picture = picture[: picture.shape[0] - drawing.strip_height(picture.shape[1])]
    verdict, colour, detail = verdict_of(row)
    notice = notice_of(row)
    second = (f"{verdict}  {notice}", drawing.WRONG) if notice else (verdict, colour)
    lines = ((row.filename, drawing.INK), second, (detail, drawing.DIM))
    return Cell(picture, lines, drawing.WRONG if notice else colour)


def _mask_cell(row: Any, names: dict[str, str]) -> Cell:
    picture = drawing.thumbnail(read_rgb(row.path), 640)
    flagged = row.present == 0 or row.doubtful == 1
    colour = drawing.WRONG if flagged else drawing.PART
    if row.mask:
        mask = drawing.thumbnail(read_mask(row.mask).astype(np.uint8), 640) > 0
        picture = np.where(mask[..., None], picture, (picture * 0.55).astype(np.uint8))
        drawing.outline(picture, mask, colour, 3)
    found = row.source if row.present == 1 else "no part found"
    text = row.reason or found
    lines = ((names.get(row.image_id, row.image_id), drawing.INK), (text, drawing.DIM))
    return Cell(picture, lines, drawing.WRONG if flagged else drawing.UNKNOWN)


if __name__ == "__main__":
    stage(main, build_parser())
