"""Stage render: for every scored image a heatmap and an overlay at full resolution, and contact sheets of the set.

Everything is drawn from the anomaly maps that the score stage has stored: no network runs again. Options choose what is
drawn; triptychs (photograph, masks, heatmap) only on request.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.anomaly_maps import AnomalyMaps, full_resolution, load_maps
from defectflow.core.arguments import add_threads
from defectflow.core.disk_index import DiskIndex, Row
from defectflow.core.files import UserError, atomic_dir, read_json, stage
from defectflow.core.parallel import in_order
from defectflow.core.tables import index_of, read_parts, read_table
from defectflow.decision.outcomes import DOUBTFUL, FALSE_ALARM, MISSED, NO_PART, WRONG, is_flagged, with_outcomes
from defectflow.decision.pred_score import is_close, margins, two_digits
from defectflow.drawing import overlay_images
from defectflow.drawing.heat_settings import SUFFIX, Look
from defectflow.drawing.overlay_images import Cell, Scale
from defectflow.evaluation.scored_images import damage_at, damage_index, evenly, run_scale, scored_parts
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask, read_rgb, write_jpeg
from defectflow.listing.image_names import place_of

PER_SECTION = 12
MASKS_SHOWN = 24
KINDS = ("heatmaps", "overlays", "sheets", "triptychs")


class Job(NamedTuple):
    """Everything needed to draw one image."""

    image_id: str
    path: str
    truth: str
    part: str
    name: str
    verdict: str
    colour: tuple[int, int, int]
    notice: str
    detail: str
    places: Mapping[str, str]


class MaskRow(NamedTuple):
    """A photograph and its row of the masks stage, see tables.MASKS."""

    image_id: str
    path: str
    mask: str
    present: int
    doubtful: int
    source: str
    reason: str

    @property
    def flagged(self) -> bool:
        """Whether a person should look at the mask."""
        return bool(is_flagged(self.present, self.doubtful))


def verdict_of(row: Any) -> tuple[str, tuple[int, int, int], str]:
    """Verdict as text, its colour, and details, for a row of predictions.csv with its outcome."""
    if np.isnan(row.predicted_label):
        verdict, colour = f"no verdict  raw {row.raw_score:.3g}", overlay_images.UNKNOWN
    else:
        bad = row.predicted_label == 1
        word, colour = ("BAD", overlay_images.BAD) if bad else ("GOOD", overlay_images.GOOD)
        verdict = f"{word}  {two_digits(row.pred_score)}"
    known = "no label" if np.isnan(row.label) else f"labelled {'bad' if row.label == 1 else 'good'}"
    detail = [f"{known}: {row.defect_type}" if row.defect_type else known]
    if row.mask_reason and row.outcome in WRONG:  # otherwise the notice says it
        detail.append(row.mask_reason)
    return verdict, colour, " · ".join(detail)


def notice_of(row: Any) -> str:
    """The most important notice: a wrong verdict, else an absent part or a doubtful mask and why; "" for none."""
    if row.outcome in WRONG:
        return str(row.outcome)
    if row.mask_present == 0:
        return row.mask_reason or NO_PART
    return f"{DOUBTFUL}: {row.mask_reason}".removesuffix(": ") if row.mask_doubtful == 1 else ""


def draw(
    job: Job,
    maps: AnomalyMaps,
    regions: DiskIndex,
    scale: Scale,
    look: Look,
    folders: dict[str, Path],
    depth: str | None = None,
) -> None:
    """Write the pictures of one image into ``folders``: "heatmaps", "overlays" and "triptychs", or some of them.

    Outlined as damaged are the regions that the stage boxes has kept, as in pictures of an inspector.
    """
    photo = read_rgb(job.path, depth)
    size = photo.shape[:2]
    entry = maps[job.image_id]
    heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size, entry.sigma)
    if "heatmaps" in folders:
        overlay_images.write_heatmap(folders["heatmaps"] / job.places["heatmaps"], heat, scale, look)
    truth, part = (_mask(path, size) for path in (job.truth, job.part))
    boxes, found, mark = damage_at(regions, job.image_id, size)
    legend = overlay_images.legend(found, truth, part, mark)
    detail = f"{job.detail} · box at the peak, {mark}" if mark else job.detail

    def write(kind: str, picture: np.ndarray) -> None:
        strip = overlay_images.caption_strip(
            picture.shape[1], job.name, job.verdict, job.colour, job.notice, detail, legend, photo.shape[1]
        )
        write_jpeg(folders[kind] / job.places[kind], np.vstack([picture, strip]))

    if "overlays" in folders:
        picture = overlay_images.overlay(photo, heat, scale, found, truth, part, look)
        overlay_images.boxes(picture, boxes, dashed=bool(mark))
        write("overlays", picture)
    if "triptychs" in folders:
        write("triptychs", overlay_images.triptych(photo, heat, scale, found, truth, part, look))


def shown(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of predictions.csv that `sheets` may show, by margin; with outcome, margin (`margins`) and near."""
    kept = pd.DataFrame()
    for part in parts:
        part = with_outcomes(part)
        part["margin"] = margins(part["pred_score"], part["raw_score"], part["threshold"])
        part["near"] = part["margin"].abs().where(part["predicted_label"].notna())
        table = pd.concat([kept, part]).sort_values(["margin", "filename"], kind="stable")
        missed, alarms = (table[table["outcome"] == word] for word in WRONG)
        near = table.sort_values(["near", "filename"], kind="stable").head(PER_SECTION)
        ends = (table.head(PER_SECTION), table.tail(PER_SECTION), missed.head(PER_SECTION), alarms.tail(PER_SECTION))
        kept = table[table.index.isin(pd.concat([near, *ends]).index)]
    return kept


def count_verdicts(predictions: Path) -> tuple[int, int]:
    """Number of photographs labelled good and of those labelled bad that have a verdict."""
    counts = [0, 0]
    for part in read_parts(predictions, ["label", "predicted_label"]):
        part = part[part["predicted_label"].notna()]
        counts = [n + int((part["label"] == label).sum()) for label, n in enumerate(counts)]
    return counts[0], counts[1]


def sheets(rows: pd.DataFrame, count: int, n_judged: tuple[int, int], overlays: Path, folder: Path) -> None:
    """Write best.jpg, worst.jpg and borderline.jpg, from overlays.

    Args:
        rows: see `shown`.
        count: how many images there are.
        n_judged: see `count_verdicts`; errors that were impossible get no section.
        overlays, folder: where the overlays are, and where to write.
    """
    table = rows.assign(place=[place_of(image_id, count, SUFFIX["overlays"]) for image_id in rows["image_id"]])
    near = table[table["near"].notna()].sort_values(["near", "filename"], kind="stable")
    title = "Nearest to the threshold: none of them is close"
    if is_close(near["margin"], near["raw_score"], near["threshold"]).any():
        title = "Borderline: nearest to the threshold, worth a second look"
    missed, alarms = table[table["outcome"] == MISSED], table[table["outcome"] == FALSE_ALARM][::-1]
    errors = (("False alarms, highest score first", alarms), ("Missed defects, lowest score first", missed))
    possible = [error for error, n in zip(errors, n_judged, strict=True) if n][::-1]

    def cells(rows: pd.DataFrame) -> list[Cell]:
        return [_cell(row, overlays) for row in rows.head(PER_SECTION).itertuples()]

    content = {
        "best": ("Best: least anomalous", [("Lowest scores", cells(table))]),
        "worst": (
            "Worst: most anomalous, and wrong verdicts",
            [
                ("Highest scores", cells(table[::-1])),
                *((name, cells(wrong)) for name, wrong in possible),
            ],
        ),
        "borderline": (title, [("Nearest first", cells(near))]),
    }
    for name, (heading, sections) in content.items():
        write_jpeg(folder / f"{name}.jpg", overlay_images.contact_sheet(heading, sections))


def mask_sheet(
    manifest: Mapping[str, Row], masks: Mapping[str, Row], predictions: Path, depth: str | None = None
) -> np.ndarray:
    """Contact sheet of photographs with the outline of the part: every flagged one first, then a spread of the rest.

    Args:
        manifest: path and ground truth by image_id.
        masks: mask, present, doubtful, source and reason by image_id; images that are not in the manifest (copies)
            are skipped.
        predictions: predictions.csv, for the names of the files.
        depth: of the photographs, see `read_rgb`.
    """

    def rows(flagged: bool) -> Iterator[MaskRow]:
        every = (MaskRow(name, manifest[name][0], *masks[name]) for name in masks if name in manifest)
        return (row for row in every if row.flagged == flagged)

    n_flagged, n_rest = (sum(1 for _ in rows(flagged)) for flagged in (True, False))
    first = list(islice(rows(True), MASKS_SHOWN))
    wanted = set(evenly(n_rest, max(MASKS_SHOWN - len(first), 8)).tolist())
    rest = [row for place, row in enumerate(rows(False)) if place in wanted]
    ids = [row.image_id for row in (*first, *rest)]
    named = read_table(predictions, ["image_id", "filename"], lambda part: part["image_id"].isin(ids))
    names = dict(zip(named["image_id"], named["filename"], strict=True))

    def cells(rows: Sequence[MaskRow]) -> list[Cell]:
        return [_mask_cell(row, names.get(row.image_id, row.image_id), depth) for row in rows]

    sections = [(f"Flagged: {n_flagged} of {n_flagged + n_rest}", cells(first))]
    sections.append((f"A sample of the {n_rest} others", cells(rest)))
    return overlay_images.contact_sheet("Masks of the part", sections)


def main(args: argparse.Namespace) -> None:
    """Draw every image, several at a time, then the sheets."""
    look = read_settings(args.settings, Look, "render")
    if args.sheets and not args.overlays:
        raise UserError("--sheets are made of overlays (give --overlays too)")
    if not any(getattr(args, kind) for kind in KINDS):
        raise UserError(f"nothing to draw (give a folder with {', '.join(f'--{kind}' for kind in KINDS)})")
    cv2.setNumThreads(1)
    manifest = index_of([args.manifest], ["path", "mask"])
    masks = index_of(args.masks, ["mask", "present", "doubtful", "source", "reason"])
    maps = load_maps(args.maps)
    count = 0
    for part in scored_parts(args.predictions, maps, ["image_id", "raw_score"]):
        count += len(part)
        for image_id in part["image_id"]:
            if image_id not in manifest:
                raise UserError(f"{args.predictions}: image {image_id} is not in {args.manifest} (run evaluate again)")
    if not count:
        raise UserError(f"{args.predictions}: no image has both a score and a map (pass the maps of every shard)")
    scale = run_scale(args.predictions, maps, read_json(args.metrics), look.vmax_quantile)
    regions = damage_index(*args.regions)

    with ExitStack() as stack:
        paths = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind)}
        folders = {kind: stack.enter_context(atomic_dir(path)) for kind, path in paths.items()}

        def jobs() -> Iterator[Job]:
            for part in scored_parts(args.predictions, maps):
                for row in with_outcomes(part).itertuples():
                    (path, truth), (mask, *_) = manifest[row.image_id], masks.get(row.image_id, ("",))
                    drawn = folders.keys() - {"sheets"}
                    places = {kind: place_of(row.image_id, count, SUFFIX[kind]) for kind in drawn}
                    for kind, place in places.items():
                        (folders[kind] / place).parent.mkdir(exist_ok=True)
                    yield _job(row, path, truth, mask, places)

        # Threads, not processes: nearly all the time is spent in OpenCV, Pillow and NumPy, which release the GIL.
        done = in_order(
            lambda job: draw(job, maps, regions, scale, look, folders, args.depth), jobs(), max(args.threads, 1)
        )
        for _ in tqdm(done, total=count, desc="render", unit="image"):
            pass
        if "sheets" in folders:
            rows = shown(scored_parts(args.predictions, maps))
            sheets(rows, count, count_verdicts(args.predictions), folders["overlays"], folders["sheets"])
            write_jpeg(folders["sheets"] / "masks.jpg", mask_sheet(manifest, masks, args.predictions, args.depth))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.reporting.render", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json: the map's threshold")
    parser.add_argument("--regions", type=Path, nargs=2, required=True, help="regions.csv and regions.json")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, help="folder to write; without it none are drawn")
    add_option(parser)
    add_threads(parser, 1, "number of images drawn at the same time")
    add_settings(parser, Look, "render")
    return parser


def _job(row: Any, path: str, truth: str, part: str, places: Mapping[str, str]) -> Job:
    verdict, colour, detail = verdict_of(row)
    return Job(
        row.image_id,
        path,
        truth if row.label == 1 else "",
        part,
        row.filename,
        verdict,
        colour,
        notice_of(row),
        detail,
        places,
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
    picture = picture[: picture.shape[0] - overlay_images.strip_height(picture.shape[1])]
    verdict, colour, detail = verdict_of(row)
    notice = notice_of(row)
    second = (f"{verdict}  {notice}", overlay_images.WRONG) if notice else (verdict, colour)
    lines = ((row.filename, overlay_images.INK), second, (detail, overlay_images.DIM))
    return Cell(picture, lines, overlay_images.WRONG if notice else colour)


def _mask_cell(row: MaskRow, name: str, depth: str | None) -> Cell:
    picture = overlay_images.thumbnail(read_rgb(row.path, depth), 640)
    colour = overlay_images.WRONG if row.flagged else overlay_images.PART
    if row.mask:
        mask = overlay_images.thumbnail(read_mask(row.mask).astype(np.uint8), 640) > 0
        picture = np.where(mask[..., None], picture, (picture * 0.55).astype(np.uint8))
        overlay_images.outline(picture, mask, colour, 3)
    found = row.source if row.present == 1 else NO_PART
    lines = ((name, overlay_images.INK), (row.reason or found, overlay_images.DIM))
    return Cell(picture, lines, overlay_images.WRONG if row.flagged else overlay_images.UNKNOWN)


if __name__ == "__main__":
    stage(main, build_parser())
