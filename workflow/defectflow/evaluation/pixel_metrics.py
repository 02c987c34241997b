"""Pixel-level metrics of anomaly maps against ground-truth masks, one image in memory at a time."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.core.anomaly_maps import AnomalyMap, reduced_resolution, reduced_size, smooth_map
from defectflow.core.files import UserError
from defectflow.decision import chosen_threshold
from defectflow.decision.decisions import is_calibration, is_evaluated
from defectflow.decision.threshold_strategy_user_given import of_peaks
from defectflow.decision.verdict_rule import nine_digits
from defectflow.images.read_write import read_mask
from defectflow.metrics import metrics
from defectflow.metrics.pixel_curves import ImageOverlap, PixelCurves, PixelHistogram

PIXEL_SIDE = 1024  # frames are scaled down so that the longer side is at most this
MEANING = (
    "Defective against defect-free pixels of the labelled images, on frames of at most 1024 pixels, in 65,536 score "
    "bins (areas exact to about 1e-4). au_pro: to a false positive rate of 0.3, au_pro_0_05: to 0.05; aupimo: mean "
    "overlap per defective image at false positive rates on good images from 1e-5 to 1e-4. f1_max takes its threshold "
    "from the same pixels; precision, recall and f1 are those of the thresholds chosen on the other folds, in "
    "cross-validation on maps by banks that hold nothing of the fold they are for. in_part: "
    "only pixels of the part's mask count, which leaves out the easy background."
)


class MapThresholds(NamedTuple):
    """Pixel thresholds: chosen on all labelled images, and for each fold on the others; and the rule they came from."""

    value: float
    folds: dict[str, float]
    rule: str


class PixelResult(NamedTuple):
    """What :func:`pixel_figures` returns.

    Attributes:
        figures: section ``pixel`` of metrics.json.
        thresholds: float, index of the table: the pixel threshold of each image, chosen on other folds where the image
            has one, else on all labelled images; NaN where there is none.
    """

    figures: dict[str, Any]
    thresholds: pd.Series


class Curves:
    """Pixel curves by fold, of the full frame or of the part, and the AUPIMO of every defective image."""

    def __init__(self, low: float, high: float, reported: Collection[str]) -> None:
        """``reported``: the folds whose images count in the figures; the others serve to choose thresholds."""
        self._low, self._high = low, high
        self._reported = reported
        self.folds: dict[str, PixelCurves] = {}
        self._overlap = ImageOverlap(low, high)
        self._aupimo: list[float | None] = []

    def add(self, fold: str, heat: np.ndarray, truth: np.ndarray | None, region: np.ndarray | None = None) -> None:
        """Add an image (see :meth:`PixelCurves.add`); the good ones come first."""
        self.folds.setdefault(fold, self._new()).add(heat, truth, region)
        if fold not in self._reported:
            return
        if truth is None:
            self._overlap.add_good(heat, region)
        else:
            self._aupimo.append(self._overlap.score(heat, truth, region))

    def _new(self) -> PixelCurves:
        return PixelCurves(self._low, self._high)

    def total(self, folds: Iterable[str]) -> PixelCurves:
        """Curves of the images of these folds."""
        return sum((self.folds[fold] for fold in folds if fold in self.folds), self._new())

    def figures(self, thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Figures of the reported folds; ``thresholds``: the pixel threshold of each fold."""
        known = [score for score in self._aupimo if score is not None]
        counts = [self.total([fold]).counts_at(cut) for fold, cut in thresholds.items() if fold in self._reported]
        total = metrics.rates({key: sum(part[key] for part in counts) for key in metrics.confusion([], [])})
        return {
            **self.total(self._reported).figures(),
            "aupimo": float(np.mean(known)) if known else None,
            "aupimo_n_images": len(known),
            **{key: total[key] for key in ("precision", "recall", "f1")},
        }


def pixel_figures(
    table: pd.DataFrame,
    maps: Mapping[str, AnomalyMap],
    masks: pd.DataFrame,
    strategy: str,
    options: Mapping[str, float],
    calibration: Mapping[str, AnomalyMap] | None = None,
) -> PixelResult:
    """Pixel metrics if ground-truth masks exist, in the full frame and inside the part, and the pixel thresholds.

    The pixel threshold has the largest F1 on defective and defect-free pixels, inside the part if masks of it exist. If
    no defect is marked there, ``strategy`` chooses it on the peaks of the maps of labelled images: a region then shows
    where an image would be called bad for its peak.

    Args:
        table: what `decisions.gather` returned.
        maps: by image_id.
        masks: columns image_id and mask, that of the part.
        strategy, options: see :func:`chosen_threshold.calibrate`.
        calibration: by "<fold>/<image_id>", the maps that the threshold of a fold is chosen on, from banks without that
            fold. If the map of an image is missing for a fold, ``maps`` is used.

    Raises:
        UserError: a ground-truth or part mask differs in size from its photograph; without ground-truth masks, the
            strategy finds no threshold on the peaks of the maps.
    """
    known = table[is_calibration(table) & table["image_id"].isin(list(maps))]
    reported = known[is_evaluated(known)]
    part = dict(zip(masks["image_id"], masks["mask"], strict=True))
    part = {i: path for i, path in part.items() if path}
    marked = (known["label"] == 1) & (known["mask"] != "")
    n_bad, n_marked = int((reported["label"] == 1).sum()), int(marked[reported.index].sum())
    result: dict[str, Any] = {
        "full_frame": None,
        "in_part": None,
        "n_images": 0,
        "n_bad_with_mask": n_marked,
        "n_bad_without_mask": n_bad - n_marked,
        "components_off_the_part": None,
        "map_threshold": None,
    }
    if known.empty:
        return PixelResult(result | {"meaning": MEANING}, pd.Series(np.nan, table.index))
    bounds, folds = map_range(maps, known["image_id"]), sorted(set(reported["fold"]))
    frame, inside = Curves(*bounds, folds), Curves(*bounds, folds)
    calibration = calibration or {}
    choices = _choices(known, calibration)
    if marked.any():
        off_part = 0
        rows = known[(known["label"] == 0) | marked].sort_values("label", kind="stable")
        for row in tqdm(rows.itertuples(), total=len(rows), desc="pixel metrics"):
            truth = _mask(row.mask, row) if row.label == 1 else None
            region = _mask(part[row.image_id], row) if row.image_id in part else None
            heat = _frame(maps[row.image_id], row)
            frame.add(row.fold, heat, truth)
            for fold, choice in choices.items():
                if fold != row.fold and (region is not None or not part):
                    choice.add(_frame(calibration[f"{fold}/{row.image_id}"], row), truth, region)
            if region is not None:
                inside.add(row.fold, heat, truth, region)
                if truth is not None and row.fold in folds:
                    off_part += _components_outside(truth, region)
    curves = inside if part else frame
    strategy, options = of_peaks(strategy, options)
    try:
        cuts = _map_thresholds(known, maps, calibration, curves, choices, strategy, options)
    except ValueError as error:
        raise UserError(f"threshold: {strategy} on the peaks of the maps: {error} (choose another)") from None
    if marked.any():
        result["n_images"] = int(is_evaluated(rows).sum())
        result["full_frame"] = frame.figures(cuts.folds)
        if part:
            result["in_part"] = inside.figures(cuts.folds)
            result["components_off_the_part"] = off_part
    values = list(cuts.folds.values())
    spread = {"n": len(values), "min": min(values), "max": max(values)} if values else None
    result["map_threshold"] = {"value": cuts.value, "rule": cuts.rule, "folds": spread}
    rows = zip(table["fold"], is_calibration(table), strict=True)
    own = [cuts.folds.get(fold, np.nan) if nested else cuts.value for fold, nested in rows]
    return PixelResult(result | {"meaning": MEANING}, pd.Series(own, table.index))


def _choices(known: pd.DataFrame, calibration: Mapping[str, AnomalyMap]) -> dict[str, PixelHistogram]:
    """Empty histograms for the folds that have a map of every image of the others in ``calibration``."""
    names = {fold: _names(fold, known) for fold in sorted(set(known["fold"]))}
    apart = {fold: own for fold, own in names.items() if own and all(name in calibration for name in own)}
    # Bins from the calibration maps only: otherwise a fold would influence its own threshold.
    return {fold: PixelHistogram(*map_range(calibration, own)) for fold, own in apart.items()}


def _names(fold: str, known: pd.DataFrame) -> list[str]:
    return [f"{fold}/{image_id}" for image_id in known["image_id"][known["fold"] != fold]]


def _map_thresholds(
    known: pd.DataFrame,
    maps: Mapping[str, AnomalyMap],
    calibration: Mapping[str, AnomalyMap],
    curves: Curves,
    choices: Mapping[str, PixelHistogram],
    strategy: str,
    options: Mapping[str, float],
) -> MapThresholds:
    """Pixel thresholds by the rule given in :func:`pixel_figures`; ``known``: rows that thresholds are chosen on."""
    folds = sorted(set(known["fold"]))
    everything = curves.total(folds)
    value = everything.best_threshold()
    best = {fold: (choices.get(fold) or everything - curves.total([fold])).best_threshold() for fold in folds}
    chosen = {fold: cut for fold, cut in best.items() if cut is not None}
    rule = "largest pixel F1" if value is not None else f"{strategy} on the peaks of the maps"
    if value is None or len(chosen) < len(folds):
        peaks, labels = _peaks(maps, known["image_id"]), known["label"].to_numpy(int)
        without = {fold: np.full(len(known), np.nan) for fold in choices}
        for fold, values in without.items():
            values[known["fold"] != fold] = _peaks(calibration, _names(fold, known))
        value = chosen_threshold.calibrate(peaks, labels, strategy, **options).value if value is None else value
        nested = chosen_threshold.nested_calibration(
            peaks, labels, known["fold"].tolist(), strategy, without=without, **options
        )
        chosen = {fold: threshold.value for fold, threshold in nested.items()} | chosen
    cuts = {fold: float(nine_digits(cut)) for fold, cut in sorted(chosen.items())}
    return MapThresholds(float(nine_digits(value)), cuts, rule)


def map_range(maps: Mapping[str, AnomalyMap], names: Iterable[str]) -> tuple[float, float]:
    """Smallest and largest value of the grid maps; smoothing and interpolation stay within."""
    bounds = [(float(m.min()), float(m.max())) for m in (maps[name].grid_map for name in names)]
    return (min(b[0] for b in bounds), max(b[1] for b in bounds)) if bounds else (0.0, 1.0)


def _mask(path: str, row: Any) -> np.ndarray:
    """The mask of a photograph, reduced to PIXEL_SIDE pixels."""
    mask, frame = read_mask(path), (row.height, row.width)
    if mask.shape != frame:
        raise UserError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its photograph {frame[1]}x{frame[0]}"
        )
    # Area averaging keeps a defect that is thinner than a pixel of the smaller frame.
    size = reduced_size(frame, PIXEL_SIDE)
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.25


def _components_outside(truth: np.ndarray, region: np.ndarray) -> int:
    count, component = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    return count - len(np.unique(component[region & truth])) - 1


def _peaks(maps: Mapping[str, AnomalyMap], names: Iterable[str]) -> np.ndarray:
    """Largest value of each map in the frame of the network's input: cheap, and the same as at full resolution."""
    entries = (maps[name] for name in names)
    return np.array([smooth_map(entry.grid_map, entry.input_size, sigma=entry.sigma).max() for entry in entries], float)


def _frame(entry: AnomalyMap, row: Any) -> np.ndarray:
    """The map of a photograph, reduced to PIXEL_SIDE pixels."""
    return reduced_resolution(entry, (row.height, row.width), PIXEL_SIDE)
