"""Stage class_maps: where a classifier of kinds looks, beside where the detector finds the defect.

The classifier is a linear layer on the mean and the maximum of the network's patches, held out as that of the stage
classify. Of each photograph of a kind with a ground-truth mask, class activation maps of that kind are compared with
the mask, and so is the detector's anomaly map. Writes a folder: class_maps.csv (each photograph), summary.csv and, of
every kind, a picture of the photograph on which the maps differ most.
"""

import argparse
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.classification.activation_maps import (
    eigen_cam,
    grad_cam_plus_plus,
    iou_at_area,
    peak_on,
    pooled,
    score_cam,
)
from defectflow.classification.heads.fit_head import fit_head
from defectflow.classification.kind_folds import sample
from defectflow.classification.settings import KindSettings
from defectflow.core.anomaly_maps import AnomalyMap, grid_map, load_maps, reduced_resolution, reduced_size
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.core.tables import read_table, write_table
from defectflow.dataset_card.photographs import GOOD
from defectflow.detection.feature_files import PatchFile, open_patches
from defectflow.drawing.overlay_images import DEFAULT, draw_outlines, palette
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_mask, read_rgb, write_png
from defectflow.metrics.metrics import wilson

COLUMNS = ["image_id", "path", "group", "label", "defect_type", "mask", "width", "height"]
METHODS = ("grad_cam_plus_plus", "score_cam", "eigen_cam", "anomaly_map")
SIDE = 512  # pixels, longer side at which maps and masks are compared
TOLERANCE = 15 / 512  # of the pointing game, as a share of that side
TABLE = ["filename", "kind", "method", "peak_on_defect", "iou", "image_id"]
SUMMARY = ["method", "n", "pointing_game", "pointing_low", "pointing_high", "iou", "iou_low", "iou_high"]
RESAMPLES = 2000
NOT_PLAIN = r"[^\w+-]"  # of names of kinds, in names of files


def summary(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Pointing game and mean IoU of each method, with 95 % intervals: Wilson's, and a bootstrap of photographs."""
    rows = []
    for method in METHODS:
        own = table[table["method"] == method]
        hits, iou = own["peak_on_defect"].to_numpy(float), own["iou"].to_numpy(float)
        drawn = np.random.default_rng(seed).integers(0, len(iou), (RESAMPLES, len(iou)))
        spans = [*(wilson(hits.sum(), len(hits)) or []), *np.quantile(iou[drawn].mean(axis=1), [0.025, 0.975])]
        rows.append([method, len(own), hits.mean(), *spans[:2], iou.mean(), *spans[2:]])
    return pd.DataFrame(rows, columns=SUMMARY)


def picture(path: str, heats: dict[str, np.ndarray], mask: np.ndarray, depth: str | None) -> np.ndarray:
    """The photograph with its mask outlined, and the same under each map, side by side."""
    photo = cv2.resize(read_rgb(path, depth), mask.shape[::-1], interpolation=cv2.INTER_AREA)
    panes = [photo]
    for heat in heats.values():
        low, high = np.quantile(heat, [0.5, 1.0])
        share = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
        colours, alpha = palette(DEFAULT.colours)[(share * 255).astype(np.uint8)], 0.75 * share[..., None]
        panes.append((photo * (1 - alpha) + colours * alpha).astype(np.uint8))
    for pane in panes:
        draw_outlines(pane, np.zeros(mask.shape, bool), mask, None)
    return np.hstack(panes)


def heats_of(
    file: PatchFile, item: int, weights: np.ndarray, anomaly: AnomalyMap, frame: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The map of each of METHODS, float32, on the photograph reduced to SIDE pixels.

    Args:
        file, item: where the patches of the photograph are.
        weights: float (2 d,), of the score of its class, see `activation_maps`.
        anomaly: of the detector.
        frame: (height, width) of the photograph.
    """
    seen, position = file.patches(item).numpy(), file.position(item).numpy()
    grid, size = tuple(file.config["grid"]), tuple(file.config["input_size"])
    made = (grad_cam_plus_plus(seen, weights), score_cam(seen, weights), eigen_cam(seen))
    values = dict(zip(METHODS, made, strict=False))
    maps = {name: AnomalyMap(grid_map(of, position, grid), file.affine[item], size) for name, of in values.items()}
    return {name: reduced_resolution(of, frame, SIDE) for name, of in (maps | {METHODS[-1]: anomaly}).items()}


def main(args: argparse.Namespace) -> None:
    """Compare, write the tables and the pictures."""
    manifest = read_table(args.manifest, COLUMNS)
    chosen, about = sample(manifest, args.seed).table, manifest.set_index("image_id")
    bad = (chosen["class"] != GOOD).to_numpy() & (about.loc[chosen["image_id"], "mask"] != "").to_numpy()
    if not bad.any():
        raise UserError("class_maps: no photograph of a kind has a ground-truth mask to compare with (data/README.md)")
    files = open_patches(args.features)
    places = {item["image_id"]: (f, k) for f in files for k, item in enumerate(f.items) if not item["copy_of"]}
    for image_id, path in zip(chosen["image_id"], chosen["path"], strict=True):
        if image_id not in places:
            raise UserError(f"{path}: it has no patches (run the features stage again)")
    names = [GOOD, *sorted(set(chosen["class"]) - {GOOD})]
    labels, folds = np.array([names.index(name) for name in chosen["class"]]), chosen["fold"].to_numpy()
    patches = (places[image_id][0].patches(places[image_id][1]).numpy() for image_id in chosen["image_id"])
    features = np.stack([pooled(one) for one in tqdm(patches, total=len(chosen), desc="pool", unit="image")])
    settings = KindSettings.from_dict({"strength": args.strength}, "kinds").only_for("classify")
    maps, rows, empty = load_maps(args.maps), [], 0
    shown: dict[str, tuple[float, str, dict[str, np.ndarray], np.ndarray]] = {}
    for fold in tqdm(np.unique(folds), desc="class_maps", unit="fold"):
        train = folds != fold
        head = fit_head(features[train], labels[train], len(names), settings, args.seed)
        weights = np.zeros((len(names), features.shape[1]))
        weights[head.present] = head.layers[0][0] / head.spread
        for row in np.flatnonzero((folds == fold) & bad):
            image_id, kind = chosen["image_id"].iloc[row], chosen["class"].iloc[row]
            frame, path = (about.loc[image_id, "height"], about.loc[image_id, "width"]), chosen["path"].iloc[row]
            whole, size = read_mask(about.loc[image_id, "mask"]).astype(np.uint8), reduced_size(frame, SIDE)
            mask = cv2.resize(whole * 255, size[::-1], interpolation=cv2.INTER_AREA) > 0
            if not mask.any():
                empty += 1
                continue
            heats = heats_of(*places[image_id], weights[labels[row]], maps[image_id], frame)
            overlap = {method: iou_at_area(heats[method], mask) for method in METHODS}
            for method in METHODS:
                hit = int(peak_on(heats[method], mask, TOLERANCE * max(size)))
                rows.append((Path(path).name, kind, method, hit, overlap[method], image_id))
            apart = max(overlap.values()) - min(overlap.values())
            if kind not in shown or apart > shown[kind][0]:
                shown[kind] = (apart, path, heats, mask)
    if not rows:
        raise UserError("class_maps: every ground-truth mask is empty (mark the defects in them)")
    table = pd.DataFrame(rows, columns=TABLE).sort_values(["image_id", "method"], ignore_index=True)
    told = summary(table, args.seed)
    with atomic_dir(args.out) as folder:
        write_table(folder / "class_maps.csv", table.round(4), TABLE)
        write_table(folder / "summary.csv", told.round(4), SUMMARY)
        for number, kind in enumerate(sorted(shown)):
            _, path, heats, mask = shown[kind]
            write_png(
                folder / f"{number:02d}_{re.sub(NOT_PLAIN, '_', kind)}.png", picture(path, heats, mask, args.depth)
            )
    if empty:
        print(f"class_maps: {counted(empty, 'photograph')} with an empty mask: left out")
    for line in told.itertuples():
        print(f"{line.method}: peak on the defect {line.pointing_game:.3f}, IoU {line.iou:.3f} of {line.n} photographs")
    print(f"{args.out}/summary.csv")


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.class_maps", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--manifest", required=True, help="manifest.csv")
    parser.add_argument("--maps", nargs="+", required=True, help="maps of the score stage, every shard")
    parser.add_argument("--strength", type=float, default=0.01, help="of the linear head (%(default)s)")
    add_option(parser)
    add_seed(parser)
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
