"""Stage masks: the part's mask in every photograph of a shard, with flags for an absent part and doubtful masks.

The constant and template segmenters need numpy and OpenCV only; torch is imported for sam2.1 alone.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.files import UserError, atomic_dir, read_json, stage
from defectflow.images import read_rgb, write_png
from defectflow.part_prior import AGREEMENT, AREA_Z, Prior
from defectflow.registration import Match, iou
from defectflow.tables import MANIFEST, MASKS, read_table, write_table

SEGMENTERS = ("constant", "template", "sam2.1")
PREDICTED_IOU = 0.7  # SAM's own estimate below which its mask is doubtful
PRIOR_IOU = 0.8  # IoU with the registered template mask below which constant and SAM masks are doubtful


def judge(
    prior: Prior,
    source: str,
    match: Match,
    mask: np.ndarray,
    prior_iou: float,
    predicted_iou: float | None = None,
    object_score: float | None = None,
) -> dict:
    """Presence and doubt about one mask: the columns of the MASKS table except image_id and mask.

    Absence is decided by the registration score when registration is reliable on this data set (held out), otherwise
    by SAM's object score (a logit; below 0 is absent) if there is one, otherwise nobody decides and the mask is
    doubtful. Every doubt is named in ``reason``.
    """
    info, reasons = prior.info, []
    unregistered = match.score < info["score_threshold"]
    score = f"registration score {match.score:.2f}"
    absent = unregistered
    if unregistered and not info["registers"]:
        absent = object_score is not None and object_score < 0
        if not absent:
            reasons.append(f"the part's place is uncertain ({score} < {info['score_threshold']:.2f})")
    if absent:
        reason = f"no part found ({score} < {info['score_threshold']:.2f})"
        mask = np.zeros_like(mask)
    elif not mask.any():
        absent, reason = True, "empty mask"
    else:
        if object_score is not None and object_score < 0:
            reasons.append("SAM sees no part")
        if not unregistered and match.score < info["score_doubtful"]:
            reasons.append(f"weak {score} < {info['score_doubtful']:.2f}")
        if predicted_iou is not None and predicted_iou < PREDICTED_IOU:
            reasons.append(f"predicted IoU {predicted_iou:.2f} < {PREDICTED_IOU}")
        limit = AGREEMENT if source == "template" else PRIOR_IOU
        # Where registration fails, agreeing with it is no merit; the template's agreement with itself always tells.
        if prior_iou < limit and (source == "template" or info["registers"]):
            reasons.append(f"IoU with the prior {prior_iou:.2f} < {limit}")
        z = prior.area_z(float(mask.mean()))
        if abs(z) > AREA_Z:
            reasons.append(f"area off by {z:+.1f} standard deviations")
        reason = "; ".join(reasons)
    area = float(mask.mean())
    return {
        "source": source,
        "present": int(not absent),
        "doubtful": int(not absent and bool(reasons)),
        "reason": reason,
        "predicted_iou": predicted_iou,
        "prior_iou": prior_iou,
        "area": area,
        "area_z": prior.area_z(area),
        "registration_score": match.score,
    }


def baseline_mask(prior: Prior, source: str, image: np.ndarray, leave_out: list[int]) -> tuple[np.ndarray, dict]:
    """Mask (bool, size of ``image``) of the constant or template segmenter and its row."""
    size = image.shape[:2]
    match = prior.register(image, leave_out)
    soft, agreement = prior.template(match, size)
    registered = prior.clean(soft >= 0.5)
    if source == "template":
        mask, prior_iou = registered, agreement
    else:
        mask = prior.clean(prior.constant(size, leave_out) >= 0.5)
        prior_iou = iou(mask, registered)
    row = judge(prior, source, match, mask, prior_iou)
    return mask if row["present"] else np.zeros_like(mask), row


def chosen_source(segmenter: str, train_json: str | None) -> str:
    """``segmenter``, or the baseline that train.json says is better (DESIGN 2.8), with a warning on stderr."""
    if segmenter != "sam2.1":
        return segmenter
    train = read_json(train_json)
    use = train.get("use")
    if use not in SEGMENTERS:
        raise UserError(f"{train_json}: no valid 'use' (run segment again)")
    if use != "sam2.1":
        means = {k: train[k]["iou_mean"] for k in SEGMENTERS if k in train}
        told = ", ".join(f"{k} {v:.3f}" for k, v in means.items() if v is not None)
        print(
            f"WARNING: fine-tuned SAM 2.1 is worse than a baseline on held-out photographs (IoU {told}): "
            f"masks are made by '{use}' instead",
            file=sys.stderr,
        )
    return use


def run(rows: pd.DataFrame, prior: Prior, source: str, out_dir: Path, predictor=None) -> pd.DataFrame:
    """Write ``out_dir/{image_id}.png`` for every row of a manifest, atomically as a whole; return the MASKS table."""
    result = []
    with atomic_dir(out_dir) as folder:
        for row in tqdm(list(rows.itertuples()), desc=f"masks: {source}", unit="image"):
            image = read_rgb(row.path)
            out = prior.leave_out(row.image_id)
            if predictor is None:
                mask, record = baseline_mask(prior, source, image, out)
            else:
                found = predictor.predict(image, out)
                record = judge(
                    prior, source, found.match, found.mask, found.prior_iou, found.predicted_iou, found.object_score
                )
                mask = found.mask if record["present"] else np.zeros_like(found.mask)
            write_png(folder / f"{row.image_id}.png", mask)
            result.append({"image_id": row.image_id, "mask": str(out_dir / f"{row.image_id}.png"), **record})
    return pd.DataFrame(result, columns=MASKS)


def main(args: argparse.Namespace) -> None:
    """Write the masks and the table of one shard."""
    rows = read_table(args.manifest, MANIFEST)
    if args.segmenter == "sam2.1" and not (args.model and args.train_json):
        raise UserError("--model, --train-json: required with --segmenter sam2.1 (run segment first)")
    prior = Prior.load(args.prior)
    source = chosen_source(args.segmenter, args.train_json)
    predictor = None
    if source == "sam2.1" and len(rows):
        from defectflow.sam import Predictor  # torch only where it is needed

        predictor = Predictor(args.model_config, args.model, prior, args.device)
    table = run(rows, prior, source, Path(args.out_dir), predictor)
    absent, doubtful = int((table["present"] == 0).sum()), int(table["doubtful"].sum())
    if absent or doubtful:
        names = table.loc[(table["present"] == 0) | (table["doubtful"] == 1), ["image_id", "reason"]]
        print(f"{absent} image(s) without the part, {doubtful} doubtful mask(s):", file=sys.stderr)
        for name, reason in names.itertuples(index=False):
            print(f"  {name}: {reason}", file=sys.stderr)
    write_table(args.table, table, MASKS)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.masks", description=__doc__)
    parser.add_argument("--manifest", required=True, help="table of the images (manifest.csv, or that of one shard)")
    parser.add_argument("--segmenter", required=True, choices=SEGMENTERS)
    parser.add_argument("--prior", required=True, help="prior.safetensors")
    parser.add_argument("--model", help="model.pt of segment (sam2.1)")
    parser.add_argument("--train-json", help="train.json of segment (sam2.1)")
    parser.add_argument("--model-config", default="nano", help="configuration name that --model was trained with")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out-dir", required=True, help="folder for {image_id}.png")
    parser.add_argument("--table", required=True, help="table to write (CSV)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
