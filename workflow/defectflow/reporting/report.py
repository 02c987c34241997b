"""Stage report: one self-contained HTML file about a run, to send to a colleague.

It opens from disk without a network connection: verdicts to sort and filter, charts, galleries, the settings, and what
the figures do and do not prove. The same inputs in the same environment give the same bytes.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.backbones.network_input import input_in_words
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.anomaly_maps import AnomalyMaps, load_maps
from defectflow.core.disk_index import DiskIndex, Row
from defectflow.core.files import UserError, read_json, stage
from defectflow.core.tables import PREDICTED_KINDS, PREDICTIONS, index_of, read_parts, recipe_of
from defectflow.core.versions import versions
from defectflow.decision.outcomes import RIGHT, is_flagged, with_outcomes
from defectflow.decision.pred_score import margins
from defectflow.drawing.chart_files import svg
from defectflow.drawing.confusion_chart import confusion_chart
from defectflow.drawing.heat_settings import Look
from defectflow.drawing.histograms_and_curves import Chart
from defectflow.drawing.overlay_images import DEFAULT, Scale
from defectflow.evaluation import claims
from defectflow.evaluation.cautions import data_warnings, headlines
from defectflow.evaluation.run_charts import charts_of
from defectflow.evaluation.scored_images import damage_index, evenly, run_scale
from defectflow.images.bit_depth import add_option
from defectflow.reporting import galleries, label_lists, outlier_gallery
from defectflow.reporting.disk_use import disk_facts
from defectflow.reporting.html_pages import short, write_page

ROWS = 3000  # of the verdict table: more are slow to scroll; all are in predictions.csv
# Settings that affect the figures.
PACKAGES = ("defectflow", "torch", "torchvision", "timm", "sam2", "scikit-learn", "numpy", "snakemake")


class Selection(NamedTuple):
    """The rows that a page may show, and total counts.

    Attributes:
        table: rows of `joined` in their order: all labelled photographs, and those others that are listed or pictured.
        n_images, n_unlabelled, n_flagged: number of photographs, of those without a label, and of those with an absent
            or doubtful mask.
        new_scores: raw scores of photographs without a label.
        plain: index of photographs that serve as examples of sound masks.
    """

    table: pd.DataFrame
    n_images: int
    n_unlabelled: int
    n_flagged: int
    new_scores: np.ndarray
    plain: pd.Index


def joined(predictions: pd.DataFrame, manifest: Mapping[str, Row], masks: Mapping[str, Row]) -> pd.DataFrame:
    """Predictions with path and ground truth (mask) of each photograph, its part, margin and outcome (`with_outcomes`).

    Raises:
        UserError: an image is not in the manifest.
    """
    try:
        found = [manifest[image_id] for image_id in predictions["image_id"]]
    except KeyError as error:
        raise UserError(f"predictions.csv: image {error.args[0]} is not in manifest.csv (run evaluate again)") from None
    table = with_outcomes(predictions).assign(path=[path for path, _ in found], mask=[mask for _, mask in found])
    table["part"] = [masks.get(image_id, ("",))[0] for image_id in table["image_id"]]
    table["margin"] = margins(table["pred_score"], table["raw_score"], table["threshold"])
    return table


def select(
    predictions: Path, manifest: Mapping[str, Row], masks: Mapping[str, Row], more: Sequence[str] = ()
) -> Selection:
    """Read predictions.csv in parts and keep what the page may show.

    Args:
        predictions: the file.
        manifest: path and ground-truth mask by image_id.
        masks: mask of the part by image_id.
        more: further columns of the file that the page shows.

    Raises:
        UserError: see `joined`.
    """

    sound = [np.empty(0, int)]
    for part in read_parts(predictions, ["image_id", "mask_present", "mask_doubtful"]) if masks else ():
        found = np.array([masks.get(image_id, ("",))[0] != "" for image_id in part["image_id"]], bool)
        sound.append(part.index[found & ~is_flagged(part["mask_present"], part["mask_doubtful"])].to_numpy())
    masked = np.concatenate(sound)
    plain = pd.Index(masked[evenly(len(masked), galleries.MASKS_SHOWN)])
    kept, scores, counts = pd.DataFrame(), [], np.zeros(3, int)
    for part in read_parts(predictions, [*PREDICTIONS, *more]):
        part = joined(part, manifest, masks)
        unlabelled = part["label"].isna()
        counts += len(part), unlabelled.sum(), part["mask_flagged"].sum()
        scores.append(part.loc[unlabelled & part["raw_score"].notna(), "raw_score"].to_numpy(float))
        table = pd.concat([kept, part])
        new = table[table["label"].isna() & table["raw_score"].notna()].sort_values(["margin", "filename"])
        shown = [
            new.tail(galleries.NEW_SHOWN),
            table[table["mask_flagged"]].head(galleries.FLAGGED_SHOWN),
            rows_of(table),
        ]
        wanted = plain.union(pd.concat(shown).index)
        kept = table[table["label"].notna() | table.index.isin(wanted)]
    n_images, n_unlabelled, n_flagged = counts.tolist()
    return Selection(kept, n_images, n_unlabelled, n_flagged, np.concatenate(scores), plain)


def charts_in(table: pd.DataFrame, new_scores: np.ndarray, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The charts of `run_charts.charts_of` as SVG, except the confusion matrix, which the page shows as a table.

    ``table``: the labelled photographs of predictions.csv.
    """
    drawn = charts_of(table.assign(detection=table["split"]), new_scores, metrics)
    return {name: svg(chart) for name, chart in drawn.items() if name != "confusion_matrix"}


def confusion_of(kinds: Mapping[str, Any]) -> Chart:
    """The confusion matrix of kinds.json."""
    return confusion_chart(kinds["confusion"]["classes"], np.array(kinds["confusion"]["counts"]))


def rows_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the verdict table, at most ROWS: those that a person should check first, then the highest scores."""
    if len(table) <= ROWS:
        return table
    order = pd.DataFrame({"urgent": table["note"] != "", "margin": table["margin"].fillna(np.inf)})
    kept = order.sort_values(["urgent", "margin"], ascending=False, kind="stable").index[:ROWS]
    return table.loc[kept.sort_values()]


def mask_quality(segmentation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Held-out IoU of each segmenter that was measured: name, iou_mean, iou_min, n, and how many masks it made."""
    sources = segmentation.get("masks", {}).get("sources", {})
    measured: dict[str, Any] = {}
    for report in (segmentation.get("train", {}), segmentation.get("prior", {})):
        for name, entry in report.items():
            if isinstance(entry, dict) and entry.get("iou_mean") is not None:
                measured.setdefault(name, entry)
    rows = [{"name": name, "made": sources.get(name, 0), **entry} for name, entry in measured.items()]
    return sorted(rows, key=lambda row: (-row["iou_mean"], row["name"]))


def facts_of(settings: Mapping[str, Any], fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings of the run and facts about its model, as (name, value)."""
    lines = [(name, _setting_text(value)) for name, value in settings.items()]
    if fit:
        trained = "" if fit.get("trained", True) else ", random weights"
        why = f" (auto: {fit['size_reason']})" if "size_reason" in fit else ""
        lines.append(("network's input", f"{input_in_words(fit)} pixels, {fit['backbone']}{trained}{why}"))
        good = f"{fit['good_images']} good photographs"
        bank = fit["banks"].get("all", {})
        kept = (
            f"{bank['size']} of {bank['patches']} patches of {good}" if fit["method"] == "patchcore" and bank else good
        )
        lines.append(("learned from", kept))
    return lines


def threshold_note(folds: Mapping[str, Any] | None) -> str:
    """A sentence on how much the thresholds of the folds differ; "" without folds."""
    if not folds:
        return ""
    low, high = folds["min"], folds["max"]
    if folds["n"] == 1 or low == high:
        return f"For a labelled photograph only the others count, never its own fold: {short(low)}."
    text = "For a labelled photograph only the others count, never its own fold, so the threshold differs from fold to "
    text += f"fold: {short(low)} to {short(high)}."
    if low <= 0 or high > 1.5 * low:
        text += " That is a lot: it depends on a few photographs. More labelled photographs would make it more stable."
    return text


def example_of(table: pd.DataFrame) -> Any | None:
    """A labelled photograph as an example of a verdict: judged correctly, bad if possible, with a median score."""
    right = table[table["outcome"] == RIGHT].sort_values(["label", "margin", "filename"], kind="stable")
    bad = right[right["label"] == 1]
    rows = bad if len(bad) else right
    return next(rows.iloc[[len(rows) // 2]].itertuples(), None) if len(rows) else None


def content(
    chosen: Selection,
    metrics: Mapping[str, Any],
    maps: AnomalyMaps,
    scale: Scale,
    regions: DiskIndex,
    settings: Mapping[str, Any],
    fit: Mapping[str, Any],
    ingest_report: Mapping[str, Any],
    look: Look = DEFAULT,
    depth: str | None = None,
    disk: Sequence[tuple[str, str]] = (),
    kinds: Mapping[str, Any] | None = None,
    refinement: str = "",
) -> dict[str, Any]:
    """All variables of the page's template.

    ``disk``: facts about the disk that the run takes, see `disk_facts`; ``kinds``: kinds.json, where kinds are named;
    ``refinement``: a sentence on who outlined the regions, where that was compared.
    """
    table, first = chosen.table, headlines(metrics)
    shown, cases = galleries.choose(table, len(chosen.new_scores)), []
    if odd := outlier_gallery.to_look_at(table, metrics["threshold"]["good_only"], depth):
        shown = [odd, *(outlier_gallery.without(gallery, odd) for gallery in shown)]
    for gallery in tqdm(shown, desc="galleries"):
        rows = gallery.rows.itertuples()
        cases.append((gallery, [galleries.case_of(row, maps, scale, regions, look, depth) for row in rows]))
    flagged = table[table["mask_flagged"]].head(galleries.FLAGGED_SHOWN)
    some = pd.concat([flagged, table.loc[chosen.plain]])
    return {
        "metrics": metrics,
        "headlines": first,
        "notes": [text for text in metrics["warnings"] if text not in first]
        + data_warnings(ingest_report, bearing=False),
        "proven": claims.proven(metrics),
        "not_proven": claims.not_proven(metrics),
        "kinds": kinds,
        "refinement": refinement,
        "kinds_chart": svg(confusion_of(kinds)) if kinds else "",
        "charts": charts_in(table[table["label"].notna()], chosen.new_scores, metrics),
        "galleries": cases,
        "drawn": frozenset().union(*(case.drawn for _, those in cases for case in those)),
        "heat_note": galleries.heat_note(
            look, scale, (table["label"] == 0).any(), [case for _, those in cases for case in those]
        ),
        "anchors": {case.row.image_id: f"photo-{case.row.Index}" for _, those in cases for case in those},
        "rows": list(rows_of(table).itertuples()),
        "n_images": chosen.n_images,
        "n_unlabelled": chosen.n_unlabelled,
        "n_flagged": chosen.n_flagged,
        "mask_quality": mask_quality(metrics["segmentation"]),
        "mask_cases": [galleries.mask_case(row, depth) for row in some.itertuples()],
        "example": example_of(table),
        "threshold_note": threshold_note(metrics["threshold"]["folds"]),
        "facts": [*facts_of(settings, fit), *disk],
        "versions": versions(PACKAGES),
    }


def main(args: argparse.Namespace) -> None:
    """Read the run's results, draw, write the page."""
    recipe = recipe_of(args.metrics)
    manifest, masks = index_of([args.manifest], ["path", "mask"]), index_of(args.masks, ["mask"])
    kinds = read_json(args.kinds) if args.kinds else None
    chosen = select(args.predictions, manifest, masks, PREDICTED_KINDS if kinds else ())
    maps = load_maps(args.maps)
    look = read_settings(args.look, Look, "render", where="--look")
    try:
        settings = json.loads(args.settings)
    except json.JSONDecodeError as error:
        raise UserError(f"--settings: not valid JSON ({error})") from None
    metrics, fit = read_json(args.metrics), read_json(args.fit) if args.fit else {}
    ingest_report = read_json(args.ingest_report) if args.ingest_report else {}
    scale = run_scale(args.predictions, maps, metrics, look.vmax_quantile)
    regions = damage_index(*args.regions)
    sizes = {kind.replace("_", " "): paths for kind, *paths in args.disk}
    disk = disk_facts(sizes, read_json(args.features)) if args.features else []
    refinement = read_json(args.refinement)["told"] if args.refinement else ""
    page = content(
        chosen, metrics, maps, scale, regions, settings, fit, ingest_report, look, args.depth, disk, kinds, refinement
    )
    listed = [
        label_lists.candidates(args.candidates, manifest, args.depth),
        label_lists.labels_to_check(args.labels_to_check, manifest, args.depth),
        label_lists.next_to_label(args.next_to_label, manifest, args.depth),
    ]
    write_page(args.out, "run.html", recipe=recipe, lists=[one for one in listed if one], **page)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.reporting.report", description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json, in the folder of the run")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--regions", type=Path, nargs=2, required=True, help="regions.csv and regions.json")
    parser.add_argument("--fit", type=Path, help="fit.json")
    parser.add_argument("--ingest-report", type=Path, help="ingest_report.json, for its warnings")
    parser.add_argument("--features", type=Path, help="features.json: the disk that patch features take or took")
    parser.add_argument(
        "--disk", nargs="+", action="append", default=[], metavar=("KIND", "PATH"),
        help="files and folders of one kind whose size is told, e.g. memory_banks banks.safetensors; with --features",
    )  # fmt: skip
    parser.add_argument("--kinds", type=Path, help="kinds.json, where predictions.csv names kinds")
    parser.add_argument("--refinement", type=Path, help="refinement.json, where outlines of regions were refined")
    parser.add_argument("--candidates", type=Path, help="candidates.csv")
    parser.add_argument("--next-to-label", type=Path, help="next_to_label.csv")
    parser.add_argument("--labels-to-check", type=Path, help="labels_to_check.csv")
    add_settings(parser, Look, "render", flag="--look")
    add_option(parser)
    parser.add_argument("--settings", default="{}", help="settings of the run to show, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="report.html to write")
    return parser


def _setting_text(value: Any) -> str:
    """A setting as text; only the name of a file, because the page may be sent elsewhere."""
    if isinstance(value, dict):
        named = {k: PurePath(v).name if k in ("weights", "checkpoint") and v else v for k, v in value.items()}
        return ", ".join(f"{key} {_setting_text(item)}" for key, item in named.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(_setting_text, value))
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    stage(main, build_parser())
