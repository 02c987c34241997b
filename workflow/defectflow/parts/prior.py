"""Stage prior: from the annotated photographs to the mean mask and the registered templates, judged held out."""

import argparse
from collections import defaultdict
from typing import Any

import cv2
import numpy as np
from safetensors.numpy import load_file
from tqdm import tqdm

from defectflow.core.arguments import add_seed
from defectflow.core.files import read_json, stage, write_json
from defectflow.data.annotated_pairs import Annotated, read_annotated, read_found
from defectflow.images.bit_depth import add_option
from defectflow.parts import registration, registration_frame
from defectflow.parts.part_model import FINDER, Prior, iou_summary, label_shape
from defectflow.parts.registration import Templates
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square

TEMPLATES = 64
ANNOTATED = 512
# A part counts as absent when its registration score is below half of what annotated photographs reach held out
# (their 5th percentile, so that one black frame does not open the gate); doubtful below four fifths of it.
ABSENT_SHARE, DOUBTFUL_SHARE, PERCENTILE = 0.5, 0.8, 5
UNKNOWN_SCORE = 0.5  # stands for that percentile when nothing can be held out (a single annotated photograph)
# A part of less than this share of the picture fits by chance; its surroundings tell, where they correlate held out.
SMALL, TELLING = 0.01, 0.3
LEARNABLE = 0.8  # agreement (held-out IoU) with found masks below which these are not believed
REGISTERS = 0.9  # held-out IoU of the template masks from which the registration score alone decides on absence


def spread_over_groups(groups: list[str], limit: int, rng: np.random.Generator) -> list[int]:
    """Indices of at most ``limit`` items, taken from the groups in turn, at random within a group; sorted."""
    members = defaultdict(list)
    for index in rng.permutation(len(groups)):
        members[groups[index]].append(int(index))
    queues = [members[g] for g in sorted(members)]
    chosen: list[int] = []
    while len(chosen) < min(limit, len(groups)):
        for queue in queues:
            if queue and len(chosen) < limit:
                chosen.append(queue.pop())
    return sorted(chosen)


def farthest_points(fields: np.ndarray, groups: list[str], limit: int) -> list[int]:
    """Indices of at most ``limit`` templates, evenly over the groups, each as unlike the chosen ones as possible.

    ``fields`` are gradient fields (n, h, w, 2); the distance is Euclidean between them at a quarter of the size.
    """
    if len(fields) <= limit:
        return list(range(len(fields)))
    small = np.stack([cv2.resize(f, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).ravel() for f in fields])
    distance = np.linalg.norm(small - small.mean(axis=0), axis=1)
    distance = distance.max() - distance  # begin with the most typical one
    count: dict[str, int] = dict.fromkeys(groups, 0)
    chosen: list[int] = []
    while len(chosen) < limit:
        free = [i for i in range(len(fields)) if i not in chosen]
        fewest = min(count[groups[i]] for i in free)
        best = max((i for i in free if count[groups[i]] == fewest), key=lambda i: (distance[i], -i))
        update = np.linalg.norm(small - small[best], axis=1)
        distance = np.minimum(distance, update) if chosen else update
        chosen.append(best)
        count[groups[best]] += 1
    return sorted(chosen)


def build(annotated: list[Annotated], seed: int, learns: bool = True) -> tuple[Prior, dict]:
    """The prior of a data set and its report: IoU of constant and template masks, each held out, and the gate.

    ``learns``: whether heads of the appearance are trained where registration does not find the part.
    """
    rng = np.random.default_rng(seed)
    group_of = {a.image_id: a.group for a in annotated}
    annotated = [annotated[i] for i in spread_over_groups([a.group for a in annotated], ANNOTATED, rng)]
    groups = [a.group for a in annotated]
    held_out = "group" if 1 < len(set(groups)) < len(groups) else "image"
    areas, shapes, labels, pictures = [], [], [], []
    masks = [a.mask() for a in annotated]
    sizes = [m.shape for m in masks]
    size = max(set(sizes), key=lambda s: (sizes.count(s), s))
    frame = registration_frame.fit_size(size, registration.FINE)
    label_frame = registration_frame.fit_size(size, registration.LABEL)
    for item, mask in zip(tqdm(annotated, desc="prior: read", unit="image"), masks, strict=True):
        pictures.append(registration_frame.log_luminance(item.image(), frame))
        labels.append(registration_frame.mask_in_frame(mask, label_frame) >= 128)
        areas.append(mask.mean())
        shapes.append(label_shape(mask))
    del masks
    fields = np.stack([registration_frame.gradient_field(p) for p in pictures])
    chosen = np.array(farthest_points(fields, groups, TEMPLATES))
    labels = np.stack(labels)
    # float16 as in the file, so that scores computed here are those of later stages.
    templates = Templates(fields[chosen].astype(np.float16).astype(np.float32), labels[chosen])
    info = {
        "size": [int(s) for s in size],
        "held_out": held_out,
        "group_of": group_of,
        "area_mean": float(np.mean(areas)),
        "area_sd": float(np.std(areas)),
        "components": int(np.median([n for n, _ in shapes])),
        "fill_holes": bool(np.mean([holes for _, holes in shapes]) < 0.005),
    }
    prior = Prior([a.image_id for a in annotated], groups, labels, chosen, templates, info)
    scores, wholes, ious = [], [], {"constant": {}, "template": {}}
    if len(annotated) > 1:
        for item, picture in zip(tqdm(annotated, desc="prior: hold out", unit="image"), pictures, strict=True):
            truth, out = item.mask(), prior.leave_out(item.image_id)
            match = prior.register_field(picture, out)
            scores.append(match.score)
            wholes.append(match.whole)
            for name, soft in (
                ("constant", prior.constant(truth.shape, out)),
                ("template", prior.template(match, truth.shape)[0]),
            ):
                ious[name][item.image_id] = iou(prior.clean(soft >= 0.5), truth)
    low = float(np.percentile(scores, PERCENTILE)) if scores else UNKNOWN_SCORE
    whole = float(np.percentile(wholes, PERCENTILE)) if scores and np.mean(areas) < SMALL else 0.0
    report = {name: iou_summary(values, group_of) for name, values in ious.items()}
    prior.info |= {
        "score_threshold": ABSENT_SHARE * low,
        "score_doubtful": DOUBTFUL_SHARE * low,
        "whole_threshold": ABSENT_SHARE * whole if whole >= TELLING else None,
        "registers": bool(scores) and report["template"]["iou_mean"] >= REGISTERS,
    }
    if learns and scores and not prior.info["registers"]:
        report |= add_appearance(prior, annotated, seed, max(report[name]["iou_mean"] for name in ious))
    report |= {
        "held_out": held_out if scores else "none",
        "annotated": len(annotated),
        "templates": len(chosen),
        "registration": {
            "score_min": float(min(scores)) if scores else None,
            "score_median": float(np.median(scores)) if scores else None,
            "threshold": prior.info["score_threshold"],
            "doubtful_below": prior.info["score_doubtful"],
            "rule": f"absent below {ABSENT_SHARE:g} x, doubtful below {DOUBTFUL_SHARE:g} x the {PERCENTILE}th"
            " percentile of the held-out scores of annotated images",
            "surroundings": prior.info["whole_threshold"],
            "decides": prior.info["registers"],
        },
    }
    return prior, report


def add_appearance(prior: Prior, annotated: list[Annotated], seed: int, least: float) -> dict:
    """Give ``prior`` appearance heads if they find the part better than ``least`` (held-out IoU).

    They are trained on the training side of the segmentation split alone, so that what is fine-tuned on their guesses
    can be judged on the rest. Returns the entry of the report; nothing where there are too few photographs.
    """
    from defectflow.parts import appearance

    side = [i for i, a in enumerate(annotated) if a.split == "train"]
    groups = [annotated[i].group for i in side]
    if len(set(groups)) < appearance.FOLDS:
        groups = [f"image {annotated[i].image_id}" for i in side]
    if len(side) < appearance.FEWEST:
        return {}
    pictures = [to_square(annotated[i].image(), appearance.SIDE) for i in side]
    masks = [to_square(annotated[i].mask().astype(np.float32), appearance.SIDE) for i in side]
    prior.heads, seen = appearance.train_heads(pictures, masks, groups, seed)
    prior.info["trained_on"] = [[side[i] for i in indices] for indices in seen]
    prior.info["backbone"] = appearance.backbone_hash()
    ious = {}
    for item in tqdm(annotated, desc="prior: hold out", unit="image"):
        guess, truth = prior.guess(item.image(), prior.leave_out(item.image_id)), item.mask()
        ious[item.image_id] = iou(prior.clean(guess.soft >= 0.5), truth)
    summary = iou_summary(ious, {a.image_id: a.group for a in annotated})
    if summary["iou_mean"] <= least:
        prior.heads = {}
    return {"appearance": summary | {"used": bool(prior.heads)}}


def learn(
    found: list[Annotated], check: dict[str, Any], finder: dict[str, np.ndarray], seed: int
) -> tuple[Prior, dict]:
    """The prior of a part that was found without an outline, and its report.

    Args:
        found: photographs with found masks.
        check: report of the stage find_part.
        finder: tensors of what it learned, see `patch_finder.PatchFinder`.
        seed: as for `build`.
    """
    use, reason, report = check["use"], check["reason"], {}
    prior = nothing()
    if use != "whole":
        prior, report = build(found, seed, learns=False)
        registers = prior.info["registers"]
        agreement = report["template"]["iou_mean"] if registers else check["signs"]["learned"]
        report["learned"] = {"source": "template" if registers else "appearance", "agreement": agreement}
        if agreement < LEARNABLE:
            use, reason = "whole", f"what is learned from it finds it otherwise (IoU {agreement:.2f})"
        if not registers:
            prior.heads = {f"{FINDER}{name}": value for name, value in finder.items()}
            prior.info["backbone"] = check["backbone"]
    told = {"use": use, "trust": check["trust"], "reason": reason, "said": ""}
    if use == "whole":
        prior = nothing()
        told["said"] = (
            f"The part was not found without an outline ({reason}): all figures are those of whole photographs. "
            f"Outline the part on one photograph, {check['outline_asked_for']} (the most typical one), or set "
            "`part: whole` if the photograph is the part."
        )
    prior.info["found"] = told
    return prior, {"found": told, "finding": check} | report


def nothing() -> Prior:
    """The prior of a part that was not found."""
    templates = Templates(np.zeros((1, 1, 1, 2), np.float32), np.zeros((1, 1, 1), bool))
    return Prior([""], [""], templates.labels, np.zeros(1, int), templates, {"group_of": {}, "held_out": "image"})


def main(args: argparse.Namespace) -> None:
    """Write the prior and its report."""
    if args.found_report:
        check, finder = read_json(args.found_report), load_file(args.finder)
        prior, report = learn(read_found(args.table, args.depth), check, finder, args.seed)
    else:
        prior, report = build(read_annotated(args.pairs, args.table, args.splits), args.seed)
    prior.save(args.out)
    write_json(args.report, report)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.parts.prior", description=__doc__)
    parser.add_argument("--pairs", help="folder of jpg + json pairs")
    parser.add_argument("--table", required=True, help="pairs.csv, or the table of masks that find_part wrote")
    parser.add_argument("--splits", help="splits.csv (groups)")
    parser.add_argument("--found-report", help="report of find_part: learn from masks that were found, not drawn")
    parser.add_argument("--finder", help="what find_part learned of the part's patches")
    add_option(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="prior.safetensors")
    parser.add_argument("--report", required=True, help="prior.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
