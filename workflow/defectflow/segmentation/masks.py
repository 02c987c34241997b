"""Stage masks: the part's mask in every photograph of a shard, with flags for an absent part and doubtful masks.

The segmenters constant and template need only numpy and OpenCV; torch is imported only for networks.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_device
from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic_dir, read_json, stage
from defectflow.core.tables import MANIFEST, MASKS, read_table, write_table
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_rgb, write_png
from defectflow.parts.part_model import Prior
from defectflow.segmentation.baseline_masks import WHOLE, chosen_source, part_mask
from defectflow.segmentation.prompted_masks import PromptedFinder
from defectflow.segmentation.segmenters import SEGMENTERS


def whole_row() -> dict[str, Any]:
    """The columns of MASKS except image_id and mask for a photograph that is judged whole."""
    values = {"source": WHOLE, "present": 1, "doubtful": 0, "reason": "", "area": 1.0, "area_z": 0.0}
    return values | {"predicted_iou": None, "prior_iou": None, "registration_score": None}


def run(
    rows: pd.DataFrame,
    prior: Prior | None,
    source: str,
    out_dir: Path,
    predictor: Any = None,
    depth: str | None = None,
) -> pd.DataFrame:
    """Write ``out_dir/{image_id}.png`` for every row of a manifest, atomically as a whole; return the MASKS table.

    Without ``prior``, ``predictor`` is a `prompted_masks.PromptedFinder`.
    """
    result = []
    with atomic_dir(out_dir) as folder:
        for row in tqdm(list(rows.itertuples()), desc=f"masks: {source}", unit="image"):
            image = read_rgb(row.path, depth)
            if source == WHOLE:
                mask, record = np.ones(image.shape[:2], bool), whole_row()
            elif prior is None:
                mask, record = predictor.find(image)
            else:
                mask, record = part_mask(prior, source, image, prior.leave_out(row.image_id), predictor)
            write_png(folder / f"{row.image_id}.png", mask)
            result.append({"image_id": row.image_id, "mask": str(out_dir / f"{row.image_id}.png"), **record})
    return pd.DataFrame(result, columns=MASKS)


def main(args: argparse.Namespace) -> None:
    """Write the masks and the table of one shard."""
    rows = read_table(args.manifest, MANIFEST)
    settings = read_settings(args.settings, SEGMENTERS, "masks")
    if settings.trains and not (args.model and args.train_json):
        raise UserError(f"--model, --train-json: required with segmenter {settings.name} (run segment first)")
    if not settings.prompts and not args.prior:
        raise UserError(f"--prior: required with segmenter {settings.name} (run prior first)")
    prior = None if settings.prompts else Prior.load(args.prior)
    source = settings.name if prior is None else chosen_source(settings.name, args.train_json, prior)
    predictor: Any = None
    if prior is None and len(rows):
        files = {key: getattr(args, key) for key in ("checkpoint", "encoder", "decoder") if getattr(args, key)}
        predictor = PromptedFinder.load(settings, files, args.device)
    elif prior is not None and source == "sam2.1" and len(rows):
        from defectflow.segmentation.sam_model import Predictor  # torch only where it is needed

        weight = read_json(args.train_json).get("prior_weight", 0.0)
        predictor = Predictor(settings.model, args.model, prior, args.device, weight)
    table = run(rows, prior, source, Path(args.out_dir), predictor, args.depth)
    absent, doubtful = int((table["present"] == 0).sum()), int(table["doubtful"].sum())
    if absent or doubtful:
        names = table.loc[(table["present"] == 0) | (table["doubtful"] == 1), ["image_id", "reason"]]
        print(f"{counted(absent, 'image')} without the part, {counted(doubtful, 'doubtful mask')}:", file=sys.stderr)
        for name, reason in names.itertuples(index=False):
            print(f"  {name}: {reason}", file=sys.stderr)
    write_table(args.table, table, MASKS)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.segmentation.masks", description=__doc__)
    parser.add_argument("--manifest", required=True, help="table of the images (manifest.csv, or that of one shard)")
    parser.add_argument("--prior", help="prior.safetensors, for all segmenters that learn from masks")
    parser.add_argument("--model", help="model.pt of segment (sam2.1)")
    parser.add_argument("--train-json", help="train.json of segment (sam2.1)")
    parser.add_argument("--checkpoint", help="weights of SAM 2.1 (prompted; default: those of nano)")
    parser.add_argument("--encoder", help="ONNX file (sam_onnx)")
    parser.add_argument("--decoder", help="ONNX file (sam_onnx)")
    add_settings(parser, SEGMENTERS, "masks")
    add_device(parser)
    add_option(parser)
    parser.add_argument("--out-dir", required=True, help="folder for {image_id}.png")
    parser.add_argument("--table", required=True, help="table to write (CSV)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
