"""Stage refine: finer outlines of damaged regions by SAM 2.1, fine-tuned on the ground-truth masks of bad photographs.

Each photograph with a mask is outlined by a network that has not seen it, nor others of its group; all others by the
mean of these networks. The outlines replace those of the anomaly map only if their mean IoU with the masks, held out,
is larger. Peaks that stand in for a region stay as they are.
"""

import argparse
import itertools
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.annotations.coco import decode, encode
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.anomaly_maps import AnomalyMaps, full_resolution, load_maps
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.files import json_list_writer, stage, write_json
from defectflow.core.tables import REGIONS, index_of, read_table, table_writer
from defectflow.data.folds_and_holdout import MOST_FOLDS, group_folds
from defectflow.decision.region_settings import LEAST_MARKED, RegionSettings
from defectflow.evaluation.scored_images import regions_by_image
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.metrics.bootstrap import paired_bootstrap
from defectflow.parts.registration_frame import iou
from defectflow.refinement.region_windows import belief, touching, window_around

MOST_WINDOWS = 5  # of a photograph to learn from, the most anomalous
MAP, SAM, UNTRAINED = "map", "sam", "sam_untrained"

Entry = tuple[Any, dict[str, Any]]  # a row of regions.csv and its entry in regions.json


class Seen(NamedTuple):
    """A photograph with what is known of it: uint8 RGB (height, width, 3), its map on it, and its pixel threshold."""

    image: np.ndarray
    heat: np.ndarray
    level: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


class Photographs:
    """Photographs by image_id, read when they are asked for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._manifest = index_of([args.manifest], ["path"])
        self._maps: AnomalyMaps = load_maps(args.maps)
        self._levels = index_of([args.predictions], ["map_threshold"])
        self._depth = args.depth

    def __getitem__(self, image_id: str) -> Seen:
        image, entry = read_rgb(self._manifest[image_id][0], self._depth), self._maps[image_id]
        size = (image.shape[0], image.shape[1])
        heat = full_resolution(entry.grid_map, entry.affine, entry.input_size, size, entry.sigma)
        return Seen(image, heat, float(self._levels[image_id][0]))


def outlines_of(regions: Iterable[Entry], size: tuple[int, int]) -> list[np.ndarray]:
    """The pixels of each region that is no stand-in, bool of ``size`` (height, width)."""
    return [decode(result["segmentation"], size[1], size[0]) for row, result in regions if not row.mark]


def union(outlines: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """All pixels of some outlines, bool of ``size``."""
    whole = np.zeros(size, bool)
    for outline in outlines:
        whole |= outline
    return whole


def learned_from(network: Any, seen: Seen, regions: list[Entry], truth: np.ndarray) -> list[Any]:
    """Training windows of a photograph: of its regions that lie on marked defects, with these as truth.

    Args:
        network: an `OutlineNetwork`.
        truth: ground-truth mask, bool (height, width).
    """
    cases: list[Any] = []
    kept = [(row, result) for row, result in regions if not row.mark]
    for (row, _), outline in zip(kept, outlines_of(kept, seen.size), strict=True):
        window = window_around((row.x, row.y, row.width, row.height), seen.size)
        marked = touching(np.ascontiguousarray(truth[window]), outline[window])
        if marked.any() and len(cases) < MOST_WINDOWS:
            cases.append(network.case(seen.image[window], belief(seen.heat[window], seen.level), marked))
    return cases


def refined(network: Any, seen: Seen, regions: list[Entry], choices: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Outlines of the regions of a photograph, bool (height, width) each, by each of several choices of weights.

    A region whose new outline does not touch it keeps its own. Where outlines overlap, the pixels belong to the more
    anomalous region; the outline of one that has become part of another is empty.

    ``choices``: `Tuned` weights, see `OutlineNetwork.outline`.
    """
    result: dict[str, list[Any]] = {name: [] for name in choices}
    taken = {name: np.zeros(seen.size, bool) for name in choices}
    kept = [(row, result) for row, result in regions if not row.mark]
    for (row, _), outline in zip(kept, outlines_of(kept, seen.size), strict=True):
        window = window_around((row.x, row.y, row.width, row.height), seen.size)
        case = network.case(seen.image[window], belief(seen.heat[window], seen.level))
        features, own = network.look(case.image[None]), np.ascontiguousarray(outline[window])
        for name, tuned in choices.items():
            inside = touching(network.outline(features, case.soft, tuned, own.shape), own)
            new = np.zeros(seen.size, bool)
            new[window] = inside
            result[name].append((new if inside.any() else outline) & ~taken[name])
            taken[name] |= result[name][-1]
    return result


def with_outlines(regions: list[Entry], outlines: list[np.ndarray]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Rows of REGIONS and COCO results of regions, with new outlines of those that are no stand-ins, in their order.

    A region with an empty outline is left out, and the others are numbered anew.
    """
    new, number = iter(outlines), itertools.count(1)
    for row, result in regions:
        values = {column: getattr(row, column) for column in REGIONS}
        if not row.mark:
            pixels = next(new)
            if not pixels.any():
                continue
            values["region"] = next(number)
            box = [int(value) for value in cv2.boundingRect(pixels.view(np.uint8))]
            values |= dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"area": int(pixels.sum())}
            result = result | {"bbox": box, "segmentation": encode(pixels)}
        yield list(values.values()), result


def deal(marked: pd.DataFrame, seed: int) -> tuple[pd.Series, int, str]:
    """Fold of each photograph, their number, and what is held out together.

    Args:
        marked: index image_id, column group.

    Returns:
        Series of int by image_id; groups stay together where there are at least three.
    """
    units = marked["group"].where(marked["group"] != "", "\0" + marked.index)
    grouped = units.nunique() >= 3 and units.nunique() < len(units)
    units = units if grouped else pd.Series(marked.index, marked.index)
    count = min(MOST_FOLDS, units.nunique())
    folds = group_folds(units, units[:0], count, seed)
    return pd.Series(folds)[marked.index], count, "groups" if grouped else "photographs"


def mean_of(weights: np.ndarray, _: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted mean of ``values`` [N] for each row of ``weights`` [R, N]."""
    result: np.ndarray = weights @ values / weights.sum(axis=1)
    return result


def figures(values: pd.DataFrame, units: list[str], seed: int) -> dict[str, Any]:
    """Mean IoU of each column with its 95 % interval, and the difference of SAM to the map.

    ``values``: IoU, a row for each photograph; ``units``: what is drawn together in a bootstrap.
    """

    def told(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
        found = paired_bootstrap(mean_of, np.ones(len(values)), first, second, units, seed)
        assert found is not None
        return {"mean": round(found.value, 4), "interval": [round(found.low, 4), round(found.high, 4)]}

    nothing = np.zeros(len(values))
    means = {name: told(nothing, values[name].to_numpy()) for name in values}
    return {"iou": means, "difference": told(values[MAP].to_numpy(), values[SAM].to_numpy())}


def main(args: argparse.Namespace) -> None:
    """Learn, compare held out, write the regions and the report."""
    import torch

    from defectflow.refinement.outline_network import OutlineNetwork

    torch.set_num_threads(max(1, args.threads))
    trainings = Path(f"{args.table}.training")  # what an interrupted run goes on from
    model = read_settings(args.settings, RegionSettings, "refine").sam_model or "nano"
    table = read_table(args.manifest, ["image_id", "label", "group", "mask"]).set_index("image_id")
    table = table[(table["label"] == 1) & (table["mask"] != "")]
    photographs, network = Photographs(args), OutlineNetwork(model, args.checkpoint, args.device, args.seed)
    found: dict[str, list[Entry]] = {name: [] for name in table.index}
    cases: list[Any] = []
    owners: list[str] = []
    found |= {name: those for name, those in regions_by_image(*args.regions) if name in found}
    for name in tqdm(table.index, desc="refine: read", unit="image"):
        if found[name]:
            seen, truth = photographs[name], read_mask(table.loc[name, "mask"])
            own = learned_from(network, seen, found[name], truth)
            cases, owners = cases + own, owners + [name] * len(own)
    learned = table.loc[sorted(set(owners))]
    report: dict[str, Any] = {"use": MAP, "model": model, "marked": len(table), "learned": len(learned)}
    outlined: dict[str, list[Any]] = {}
    tuned: list[Any] = []
    if len(learned) < LEAST_MARKED:
        report["why"] = (
            f"regions lie on the marked defects of {len(learned)} photographs only, and it takes {LEAST_MARKED}"
        )
    else:
        folds, report["folds"], report["held_out"] = deal(learned, args.seed)
        tuned = network.tune(cases, folds[owners].to_numpy(), args.table.parent, trainings)
        report["map_weights"] = [one.map_weight for one in tuned]
        group_fold = {group: folds[name] for name, group in learned["group"].items() if group}
        by_group = report["held_out"] == "groups"
        rows = []
        for name in tqdm(table.index, desc="refine: held out", unit="image"):
            fold = folds.get(name, group_fold.get(table.loc[name, "group"]) if by_group else None)
            choices = {SAM: tuned if fold is None else [tuned[fold]], UNTRAINED: []}
            truth, regions = read_mask(table.loc[name, "mask"]), found[name]
            new = refined(network, photographs[name], regions, choices) if regions else {SAM: [], UNTRAINED: []}
            outlined[name] = new[SAM]
            by = {MAP: outlines_of(regions, truth.shape), **new}
            rows.append([iou(union(by[kind], truth.shape), truth) for kind in (MAP, SAM, UNTRAINED)])
        values = pd.DataFrame(rows, index=table.index, columns=[MAP, SAM, UNTRAINED])
        units = table["group"].where(table["group"] != "", "\0" + table.index) if by_group else table.index
        report |= figures(values, list(units), args.seed)
        report["use"] = SAM if report["difference"]["mean"] > 0 else MAP
        report["photographs"] = {name: dict(row.round(4)) for name, row in values.iterrows()}
    with table_writer(args.table, REGIONS) as add_rows, json_list_writer(args.coco) as add_result:
        for name, regions in tqdm(regions_by_image(*args.regions), desc="refine: outline", unit="image"):
            entries: Iterable[tuple[list[Any], dict[str, Any]]] = (
                ([getattr(row, column) for column in REGIONS], result) for row, result in regions
            )
            if report["use"] == SAM:
                if name not in outlined:
                    outlined[name] = refined(network, photographs[name], regions, {SAM: tuned})[SAM]
                entries = with_outlines(regions, outlined.pop(name))
            for row, result in entries:
                add_rows(pd.DataFrame([row], columns=REGIONS))
                add_result(result)
    report["told"] = in_words(report)
    write_json(args.report, report)
    shutil.rmtree(trainings, ignore_errors=True)
    print(f"refine: {report['told']}", file=sys.stderr)


def in_words(report: Mapping[str, Any]) -> str:
    """The content of refinement.json as a sentence or two."""
    kept = "The regions are outlined by the anomaly map."
    if "iou" not in report:
        return f"Nothing was refined: {report['why']}. {kept}"

    def told(figure: Mapping[str, Any]) -> str:
        return "{:.2f} ({:.2f} to {:.2f})".format(figure["mean"], *figure["interval"])

    sam, of_map, (low, high) = report["iou"][SAM], report["iou"][MAP], report["difference"]["interval"]
    text = f"Mean IoU with the ground-truth masks of {report['marked']} photographs, held out: SAM 2.1 {told(sam)}, "
    text += f"anomaly map {told(of_map)}, difference {report['difference']['mean']:+.2f} ({low:+.2f} to {high:+.2f}). "
    return text + ("The regions are outlined by SAM 2.1." if report["use"] == SAM else f"SAM 2.1 is not better. {kept}")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.refinement.refine", description=__doc__)
    parser.add_argument(
        "--regions", type=Path, nargs=2, required=True, help="table and COCO results of the stage boxes"
    )
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv")
    parser.add_argument("--checkpoint", help="checkpoint of sam_model (default: the included weights)")
    add_settings(parser, RegionSettings, "refine")
    add_option(parser)
    add_seed(parser)
    add_device(parser)
    add_threads(parser, 2)
    parser.add_argument("--table", type=Path, required=True, help="regions.csv to write")
    parser.add_argument("--coco", type=Path, required=True, help="regions.json to write: a list of COCO results")
    parser.add_argument("--report", type=Path, required=True, help="refinement.json to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
