"""Stage evaluate: from held-out scores, make thresholds, verdicts, metrics with their uncertainty, and charts.

Metrics come from raw scores of labelled images that were scored by a bank without them. Each labelled image is judged
by a threshold chosen on the labelled images of the other folds; images without a label are judged by the threshold
chosen on all labelled images.

metrics.json (null: cannot be computed; ``meaning`` and ``note`` explain in the file itself):
    accuracy, precision, recall, f1, auroc, n_samples: the main figures, as in ``image``.
    threshold: strategy, options, value (for new images), folds (n, min, max), good_only (see ``good_only.figures``).
        promise: rate, interval, confidence, n_good: share of new good images called bad, of strategies that promise it.
    review: the review band and the errors it leaves, see ``decisions.review_figures``; null without one.
    protocol: how images were held out, see ``folds_and_holdout.protocol_of``.
    image: auroc, average_precision, counts, confusion_matrix, rates; leave_group_out: the same with groups held out.
    calibration_curve: bins of pred_score (low, high, n, n_bad, share_bad, interval).
    pixel: full_frame and in_part (auroc, au_pro, au_pro_0_05, aupimo, precision, recall, f1, f1_max, ...), n_images,
        map_threshold (value, rule, folds): the pixel threshold, see ``pixel_metrics.pixel_figures``.
    background: whether the border differs from photograph to photograph and how much heat lies there, see
        ``background_check.background_figures``; null where parts are masked.
    segmentation: prior.json or train.json, and which masks are absent or doubtful.
    by_defect: n, recall, auroc and mean scores of each defect type.
    confidence_intervals: of the AUROC, Wilson's of rates, and under ``bootstrap`` those of every figure, grouped where
        groups allow; see ``intervals``.
    baseline: accuracy of always giving the same answer.
    robustness: perturbed copies together, and ``table`` by perturbation and strength; null without copies.
    drawn_defects: how many drawn defects are found, an indicator; only where copies with such defects are made.
    assumed: only where photographs without a label were learned from, see `assumed_good.Assumed`.
    warnings: sentences for the reader, most important first.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from defectflow.config.run_settings import ReviewSettings
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.anomaly_maps import load_maps
from defectflow.core.arguments import add_seed
from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, atomic_dir, read_json, stage, write_json
from defectflow.core.tables import (
    CALIBRATION,
    MANIFEST,
    MASKS,
    PREDICTIONS,
    SCORES,
    SPLITS,
    index_of,
    read_parts,
    read_table,
    table_writer,
    write_table,
)
from defectflow.data.folds_and_holdout import protocol_of
from defectflow.decision import good_only
from defectflow.decision.assumed_good import Assumed, assume
from defectflow.decision.decisions import (
    FLAGS,
    SCORE,
    SPLIT,
    Verdicts,
    assign_verdicts,
    assign_verdicts_to_new,
    gather,
    is_evaluated,
    predictions_of,
    promise_of,
    review_figures,
    settled,
)
from defectflow.decision.threshold_strategies import STRATEGIES
from defectflow.evaluation.background_check import Background, background_figures
from defectflow.evaluation.cautions import data_warnings, warnings
from defectflow.evaluation.drawn_defect_figures import drawn_defect_figures
from defectflow.evaluation.image_metrics import calibration_curve, defect_figures, image_figures
from defectflow.evaluation.named_kinds import naming
from defectflow.evaluation.pixel_metrics import PixelResult, pixel_figures
from defectflow.evaluation.robustness import COLUMNS, robustness_figures, robustness_table
from defectflow.evaluation.run_charts import draw
from defectflow.images.bit_depth import add_option
from defectflow.metrics.metrics import rounded

IMAGE = [column for column in MANIFEST if column not in ("sha256", "split")]


class NewImages(NamedTuple):
    """Images without a label: float (n,), their raw scores; names of those without a score; how many a person sees."""

    scores: np.ndarray
    unscored: list[str]
    n_review: int


def segmentation_figures(paths: Sequence[Path], masks: Iterable[pd.DataFrame]) -> dict[str, Any]:
    """Contents of prior.json and train.json (by file stem, without long histories), and the counts of flagged masks.

    ``masks``: parts of the tables MASKS.
    """
    result: dict[str, Any] = {}
    for path in paths:  # entries of over 20 are histories
        said = read_json(path).items()
        result[path.stem] = {key: entry for key, entry in said if not (isinstance(entry, list) and len(entry) > 20)}
    sources, absent, doubtful = Counter[str](), [], []
    for part in masks:
        sources.update(part["source"])
        absent += part.loc[part["present"] == 0, "image_id"].tolist()
        doubtful += part.loc[(part["doubtful"] == 1) & (part["present"] == 1), "image_id"].tolist()
    if sources:
        figures = {"n": sources.total(), "sources": dict(sorted(sources.items()))}
        result["masks"] = figures | {"absent": sorted(absent), "doubtful": sorted(doubtful)}
    return result


def evaluate(
    table: pd.DataFrame,
    verdicts: Verdicts,
    pixel: PixelResult,
    new: NewImages,
    *,
    splits: pd.DataFrame,
    copies: pd.DataFrame,
    segmentation: dict[str, Any],
    background: Background | None,
    fit: dict[str, Any],
    ingest_report: Mapping[str, Any],
    strategy: str,
    options: Mapping[str, float],
    review: Mapping[str, float] | None,
    seed: int,
    assumed: Assumed | None = None,
) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        table: judged, of the labelled images, with their pixel thresholds.
        verdicts, pixel, new: what `assign_verdicts` and `pixel_figures` said of them; the images without a label.
        splits, copies: columns SPLITS, of the labelled images; columns SCORES, of perturbed copies.
        segmentation: what `segmentation_figures` returned.
        background: what `background_figures` returned, None where parts are masked.
        fit, ingest_report: content of fit.json and of ingest_report.json, or nothing.
        strategy, options, review, seed: see `assign_verdicts`; for the bootstrap.
    """
    _, overall, band = verdicts
    part = image_figures(table, strategy, options, seed)
    cuts = table.loc[is_evaluated(table) & table["threshold"].notna(), "threshold"]
    folds = table.loc[cuts.index, "fold"].nunique()
    image = part["image"]
    result: dict[str, Any] = {
        **{key: image[key] for key in ("accuracy", "precision", "recall", "f1", "auroc")},
        "n_samples": part["n_samples"],
        "threshold": {
            "strategy": strategy,
            "options": dict(options),
            "value": overall.value if overall else None,
            "folds": {"n": folds, "min": float(cuts.min()), "max": float(cuts.max())} if len(cuts) else None,
            "good_only": good_only.figures(table, overall.value if overall else None, strategy, options),
            "note": "value: chosen on all labelled images, for images without a label. Each labelled image is judged "
            "by the threshold chosen on the other folds, scored by banks that hold nothing of its own (folds: smallest "
            "and largest). Bad: raw_score >= threshold; "
            "with a review band, images between its limits go to a person whatever the verdict.",
        },
        "review": review_figures(table, band, review, new.n_review),
        "protocol": protocol_of(splits),
        "image": image,
        "calibration_curve": calibration_curve(table),
        "pixel": pixel.figures,
        "background": background,
        "segmentation": segmentation,
        "by_defect": defect_figures(table),
        "confidence_intervals": part["confidence_intervals"],
        "baseline": part["baseline"],
        "robustness": robustness_figures(table, copies),
    }
    if drawn := drawn_defect_figures(table, copies):
        result["drawn_defects"] = drawn
    if assumed:
        result["assumed"] = assumed.figures
    unscored = sorted([*table.loc[table["raw_score"].isna(), "filename"], *new.unscored])
    if promise := promise_of(table, strategy, options):
        result["threshold"]["promise"] = promise._asdict()
    result["warnings"] = warnings(table, unscored, result, fit) + data_warnings(ingest_report, bearing=True)
    result = rounded(result)
    # Thresholds, which scores are compared with, keep all digits.
    result["threshold"]["value"] = overall.value if overall else None
    result["pixel"]["map_threshold"] = pixel.figures["map_threshold"]
    if band:
        result["review"] |= {"low": band[0], "high": band[1]}
    return result


class Tables(NamedTuple):
    """Splits, scores and masks by image_id, on disk; see `decisions.gather`."""

    splits: DiskIndex
    scores: DiskIndex
    masks: DiskIndex


def open_tables(args: argparse.Namespace) -> Tables:
    """Index the tables of splits, scores and masks.

    Raises:
        UserError: an image of a table of scores or splits occurs twice or not in the manifest; a score is not finite.
    """

    def originals(part: pd.DataFrame) -> pd.Series:
        own = (part["kind"] == "") & (part["copy_of"] == "")
        if not np.isfinite(part.loc[own, "raw_score"].to_numpy(float)).all():
            raise UserError("scores: a raw_score is missing or not finite (run the score stage again)")
        return own

    scores = index_of(args.scores, SCORE, originals, by=["kind", "copy_of"])
    tables = Tables(index_of([args.splits], SPLIT), scores, index_of(args.masks, FLAGS))
    manifest = index_of([args.manifest], [])
    # Masks are found before ingest has seen all shards: some may belong to images that it later leaves out as copies.
    for name in ("scores", "splits"):
        known = iter(manifest)
        for image_id in getattr(tables, name):  # both in the order of the names
            if next((other for other in known if other >= image_id), None) != image_id:
                raise UserError(f"{name}: image {image_id} is not in the manifest (run the earlier stages again)")
    return tables


def prediction_parts(
    manifest: Path, tables: Tables, table: pd.DataFrame, verdicts: Verdicts, map_threshold: float
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the rows of predictions.csv in parts, in the order of the manifest, each with those without a label alone.

    Args:
        manifest, tables: where to find the images without a label.
        table: judged, of the labelled images, with their pixel thresholds.
        verdicts, map_threshold: for new images.
    """
    for part in read_parts(manifest, IMAGE):
        unknown = part["label"].isna() & ~part["image_id"].isin(table["image_id"])
        new = assign_verdicts_to_new(gather(part[unknown], *tables), verdicts)
        own, new = table[table["image_id"].isin(part["image_id"])], new.assign(map_threshold=map_threshold)
        yield predictions_of(pd.concat([own, new]).sort_values("image_id")), new


def main(args: argparse.Namespace) -> None:
    """Read the tables, evaluate, write metrics.json, predictions.csv and the charts.

    Only the labelled images are in memory, and those that are learned from; others are judged as they are written.
    """
    chosen = read_settings(args.settings, STRATEGIES, "evaluate")
    review = None
    if args.review:
        review = read_settings(args.review, ReviewSettings, "evaluate", where="--review").read_by("evaluate")
    tables, maps = open_tables(args), load_maps(args.maps)
    labelled = read_table(args.manifest, IMAGE, lambda part: part["label"].notna() | (args.left_out is not None))
    calibration = read_table(args.calibration, CALIBRATION) if args.calibration else None
    gathered, assumed = gather(labelled, *tables, calibration), None
    chosen = settled(gathered, chosen)
    strategy, options = chosen.name, dict(sorted(chosen.read_by("evaluate").items()))
    if args.left_out:
        assumed = assume(gathered, read_table(args.left_out, ["image_id"])["image_id"].tolist(), strategy, options)
        strategy, options = assumed.strategy, assumed.options
    verdicts = assign_verdicts(assumed.table if assumed else gathered, strategy, options, review)

    def of_labelled(paths: Sequence[Path], columns: Sequence[str], column: str) -> pd.DataFrame:
        read = [read_table(path, columns, lambda part: part[column].isin(labelled["image_id"])) for path in paths]
        return pd.concat(read, ignore_index=True) if read else pd.DataFrame(columns=columns)

    pixel = pixel_figures(
        verdicts.table,
        maps,
        of_labelled(args.masks, ["image_id", "mask"], "image_id"),
        strategy,
        options,
        load_maps([args.calibration_maps]) if args.calibration_maps else None,
    )
    table = verdicts.table.assign(map_threshold=pixel.thresholds, label=gathered["label"])
    segmentation = segmentation_figures(
        args.segmentation, (part for path in args.masks for part in read_parts(path, MASKS))
    )
    threshold = pixel.figures["map_threshold"]
    copies, scores, unscored, n_review = of_labelled(args.scores, SCORES, "copy_of"), [np.empty(0)], [], 0
    scores.append(table.loc[table["label"].isna() & table["raw_score"].notna(), "raw_score"].to_numpy(float))
    more, with_kinds = naming(args.kinds)
    with table_writer(args.predictions, [*PREDICTIONS, *more]) as add:
        value = threshold["value"] if threshold else np.nan
        for predictions, new in prediction_parts(args.manifest, tables, table, verdicts, value):
            add(with_kinds(predictions))
            scores.append(new["raw_score"].dropna().to_numpy(float))
            unscored += new.loc[new["raw_score"].isna(), "filename"].tolist()
            n_review += int((new["review"] == 1).sum())
        new_images = NewImages(np.concatenate(scores), unscored, n_review)
        result = evaluate(
            table,
            verdicts,
            pixel,
            new_images,
            splits=read_table(args.splits, SPLITS, lambda part: part["detection"] != "unlabelled"),
            copies=copies,
            segmentation=segmentation,
            background=None
            if segmentation.get("masks", {"sources": {"whole": 0}})["sources"].keys() != {"whole"}
            else background_figures(index_of([args.manifest], ["path", "width", "height"]), maps, args.depth),
            fit=read_json(args.fit) if args.fit else {},
            ingest_report=read_json(args.ingest_report) if args.ingest_report else {},
            strategy=strategy,
            options=options,
            review=review,
            seed=args.seed,
            assumed=assumed,
        )
    with atomic_dir(args.figures) as folder:
        draw(folder, table, new_images.scores, result)
    write_table(args.robustness, robustness_table(table, copies), COLUMNS)
    write_json(args.metrics, result)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.evaluation.evaluate", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--splits", type=Path, required=True, help="splits.csv")
    parser.add_argument("--left-out", type=Path, help="candidates.csv, where images without a label are learned from")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="tables of the score stage, every shard")
    parser.add_argument("--calibration", type=Path, help="table of the calibrate stage, for cross-validation")
    parser.add_argument("--calibration-maps", type=Path, help="maps of the calibrate stage, for cross-validation")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="tables of the masks stage, every shard")
    parser.add_argument("--segmentation", type=Path, nargs="*", default=[], help="prior.json, train.json")
    parser.add_argument("--fit", type=Path, help="fit.json")
    parser.add_argument("--ingest-report", type=Path, help="ingest_report.json, for its warnings")
    parser.add_argument("--kinds", type=Path, help="kinds.csv, where the kind of what is called bad is asked for")
    add_settings(parser, STRATEGIES, "evaluate")
    add_settings(parser, ReviewSettings, "evaluate", flag="--review", default="")
    add_option(parser)
    add_seed(parser, "for the bootstrap")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json to write")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv to write")
    parser.add_argument("--robustness", type=Path, required=True, help="robustness.csv to write")
    parser.add_argument("--figures", type=Path, required=True, help="folder of charts to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
