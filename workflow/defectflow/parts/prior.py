"""Stage prior: mean mask and registered templates from the annotated photographs, with held-out IoU.

If only one to three photographs are annotated, their outlines are first transferred to the others.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from safetensors.numpy import load_file
from tqdm import tqdm

from defectflow.core.arguments import add_seed
from defectflow.core.counted import counted
from defectflow.core.files import UserError, read_json, stage, write_json
from defectflow.core.tables import read_table
from defectflow.data.annotated_pairs import Annotated, read_annotated, read_found
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_rgb
from defectflow.parts import registration, registration_frame
from defectflow.parts.found_part import settle
from defectflow.parts.label_propagation import SAMPLE, most_typical, propagate
from defectflow.parts.part_model import Prior, iou_summary, label_shape
from defectflow.parts.registration import Templates
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.sources.annotation_kinds import FEW_OUTLINES

TEMPLATES = 64
ANNOTATED = 512
NAMED = 20  # largest number of photographs named in the report
# A part counts as absent if its registration score is below half of what annotated photographs reach held out (their
# 5th percentile, so that a single black frame has no effect), as doubtful below four fifths of it.
ABSENT_SHARE, DOUBTFUL_SHARE, PERCENTILE = 0.5, 0.8, 5
UNKNOWN_SCORE = 0.5  # replaces that percentile if nothing can be held out (a single annotated photograph)
# A part below this share of the picture fits by chance; then its surroundings decide, if they correlate held out.
SMALL, TELLING = 0.01, 0.3
REGISTERS = 0.9  # held-out IoU of the template masks from which only the registration score decides on absence


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
    """Indices of at most ``limit`` templates, evenly over the groups, each as different from the chosen ones as
    possible.

    ``fields`` are gradient fields (n, h, w, 2); the distance is Euclidean between them at a quarter of the size.
    """
    if len(fields) <= limit:
        return list(range(len(fields)))
    small = np.stack([cv2.resize(f, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).ravel() for f in fields])
    distance = np.linalg.norm(small - small.mean(axis=0), axis=1)
    distance = distance.max() - distance  # start with the most typical one
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


@dataclass(frozen=True)
class Other:
    """A photograph without an outline; :attr:`image` returns it as an RGB uint8 array (height, width, 3)."""

    image_id: str
    image: Callable[[], np.ndarray]


def build(
    annotated: list[Annotated], seed: int, others: Sequence[Other] = (), learns: bool = True
) -> tuple[Prior, dict[str, Any]]:
    """The prior of a data set and its report: held-out IoU of constant and template masks, and the limits for absence.

    Args:
        annotated: the outlined photographs.
        seed: of the choice if there are too many.
        others: photographs that the outlines are transferred to, if there are only few outlines.
        learns: whether appearance heads are trained if registration does not find the part.

    Raises:
        UserError: the part is found in fewer than half of ``others``.
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
    outlines = np.stack(labels)
    # float16 as in the file, so scores here equal those of later stages.
    templates = Templates(fields[chosen].astype(np.float16).astype(np.float32), outlines[chosen])
    info = {
        "size": [int(s) for s in size],
        "held_out": held_out,
        "group_of": group_of,
        "area_mean": float(np.mean(areas)),
        "area_sd": float(np.std(areas)),
        "components": int(np.median([n for n, _ in shapes])),
        "fill_holes": bool(np.mean([holes for _, holes in shapes]) < 0.005),
    }
    prior = Prior([a.image_id for a in annotated], groups, outlines, chosen, templates, info)
    scores, wholes = [], []
    ious: dict[str, dict[str, float]] = {"constant": {}, "template": {}}
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
    report: dict[str, Any] = {name: iou_summary(values, group_of) for name, values in ious.items()}
    prior.info |= {
        "score_threshold": ABSENT_SHARE * low,
        "score_doubtful": DOUBTFUL_SHARE * low,
        "whole_threshold": ABSENT_SHARE * whole if whole >= TELLING else None,
        "registers": bool(scores) and report["template"]["iou_mean"] >= REGISTERS,
    }
    if others:
        report |= add_found(prior, others)
    elif learns and scores and not prior.info["registers"]:
        report |= add_appearance(prior, annotated, seed, ious)
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
            f" percentile of the held-out scores of {'found' if others else 'annotated'} images",
            "surroundings": prior.info["whole_threshold"],
            "decides": prior.info["registers"],
        },
    }
    return prior, report


def add_found(prior: Prior, others: Sequence[Other]) -> dict[str, Any]:
    """Extend ``prior`` by what its few outlines find in ``others``: templates, labels, and the limits for absence.

    Returns:
        The entry of the report: how often the part was found, and how well these masks agree.
    """
    frame, outlined = prior.templates.frame, len(prior.image_ids)
    pictures, sizes = [], [tuple(prior.info["size"])] * outlined
    for other in tqdm(others, desc="prior: read others", unit="image"):
        image = other.image()
        pictures.append(registration_frame.log_luminance(image, frame))
        sizes.append(image.shape[:2])
    spread = propagate(prior.templates.fields, prior.labels, pictures, prior.clean)
    found, missing = sorted(spread.labels), [others[i].image_id for i in spread.missing]
    if len(found) < len(missing):
        next_one = others[spread.missing[most_typical([pictures[i] for i in spread.missing])]].image_id
        raise UserError(
            f"the part outlined on {' and '.join(prior.image_ids)} was found again in {len(found)} of {len(others)} "
            f"other photographs only: its position or pose differs too much (outline {next_one} as well, or about ten "
            "photographs; or run without masks: segmenter=none)"
        )
    fields = np.stack([registration_frame.gradient_field(pictures[i]) for i in found])
    fields = fields.astype(np.float16).astype(np.float32)
    names = [others[i].image_id for i in found]
    groups = [f"image {name}" for name in names]
    chosen = farthest_points(fields, groups, TEMPLATES - outlined)
    prior.templates = Templates(
        np.concatenate([prior.templates.fields, fields[chosen]]),
        np.concatenate([prior.labels, np.stack([spread.labels[found[i]] for i in chosen])]),
    )
    prior.chosen = np.array([*prior.chosen, *(outlined + i for i in chosen)])
    prior.labels = np.concatenate([prior.labels, np.stack([spread.labels[i] for i in found])])
    prior.image_ids, prior.groups = prior.image_ids + names, prior.groups + groups
    areas = prior.labels.mean(axis=(1, 2))
    low = float(np.percentile([spread.matches[i].score for i in found], PERCENTILE))
    prior.info |= {
        "held_out": "image",
        "group_of": prior.info["group_of"] | dict(zip(names, groups, strict=True)),
        "area_mean": float(areas.mean()),
        "area_sd": float(areas.std()),
        "score_threshold": ABSENT_SHARE * low,
        "score_doubtful": DOUBTFUL_SHARE * low,
        "whole_threshold": None,
        "chance_score": spread.chance,
        "extent": extent_of(prior.labels, [*sizes[:outlined], *(sizes[outlined + i] for i in found)]),
    }
    agreement = list(spread.agreement.values())
    return {
        "propagation": {
            "outlines": outlined,
            "photographs": len(others),
            "found": len(found),
            "not_found": missing[:NAMED],
            "agreement_mean": round(float(np.mean(agreement)), 6),
            "agreement_min": round(float(np.min(agreement)), 6),
            "chance_score": spread.chance,
            "note": f"All masks rest on {counted(outlined, 'outline')}. agreement: IoU of the mask of each photograph "
            "found with the mask from all others. It shows that the same part was found again; it is not a held-out "
            "IoU against drawn outlines.",
        }
    }


def extent_of(labels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> dict[str, list[float]]:
    """Largest (width, height) of the part and (x, y) of its mean centre, in units of a photograph's longer side.

    Args:
        labels: bool (n, h, w) in the label frame, none of them empty.
        sizes: (height, width) of each photograph.
    """
    extents, centres = [], []
    for label, size in zip(labels, sizes, strict=True):
        to_photograph = registration_frame.frame_affine(size, label.shape) / max(size)
        x, y, width, height = cv2.boundingRect(label.view(np.uint8))
        extents.append(to_photograph[[0, 1], [0, 1]] * (width, height))
        centres.append(to_photograph @ (x + (width - 1) / 2, y + (height - 1) / 2, 1))
    return {"size": np.max(extents, axis=0).tolist(), "centre": np.mean(centres, axis=0).tolist()}


def add_appearance(
    prior: Prior, annotated: list[Annotated], seed: int, others: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Give ``prior`` appearance heads if they find the part better than ``others`` (held-out IoU by name and image_id).

    They are trained only on the training side of the segmentation split, so a network fine-tuned on their guesses can
    be evaluated on the rest. If that side has too few groups to leave one out, each head leaves out some photographs,
    and they are compared on the other groups. Returns the entry of the report; empty if there are too few photographs.
    """
    from defectflow.parts import appearance

    side = [i for i, a in enumerate(annotated) if a.split == "train"]
    groups = [annotated[i].group for i in side]
    by_image, judged = len(set(groups)) < appearance.FOLDS, annotated
    if by_image and prior.info["held_out"] == "group":
        judged = [item for item in annotated if item.group not in groups]
    if by_image:
        groups = [f"image {annotated[i].image_id}" for i in side]
    if len(side) < appearance.FEWEST:
        return {}
    pictures = [to_square(annotated[i].image(), appearance.SIDE) for i in side]
    masks = [to_square(annotated[i].mask().astype(np.float32), appearance.SIDE) for i in side]
    prior.heads, seen = appearance.train_heads(pictures, masks, groups, seed)
    prior.info["trained_on"] = [[side[i] for i in indices] for indices in seen]
    prior.info["backbone"] = appearance.backbone_hash()
    ious = {}
    for item in tqdm(judged, desc="prior: hold out", unit="image"):
        guess, truth = prior.guess(item.image(), prior.leave_out(item.image_id)), item.mask()
        ious[item.image_id] = iou(prior.clean(guess.soft >= 0.5), truth)
    group_of = prior.info["group_of"]
    summary = iou_summary(ious, group_of)
    least = max(iou_summary({name: values[name] for name in ious}, group_of)["iou_mean"] for values in others.values())
    if summary["iou_mean"] <= least:
        prior.heads = {}
    elif judged is not annotated:
        prior.info["heads_held_out"] = "image"
    return {"appearance": summary | {"used": bool(prior.heads)}}


def read_others(tables: Sequence[str], annotated: Sequence[Annotated], seed: int, depth: str | None) -> list[Other]:
    """At most SAMPLE photographs without an outline, drawn at random from tables of all, sorted by name."""
    known = {item.image_id for item in annotated}
    rows = sorted(row for path in tables for row in read_table(path, ["image_id", "path"]).itertuples(index=False))
    rows = [row for row in rows if row.image_id not in known]
    kept = sorted(np.random.default_rng([seed, 5]).permutation(len(rows))[:SAMPLE])

    def other(image_id: str, path: str) -> Other:
        return Other(image_id, lambda: read_rgb(path, depth))

    return [other(*rows[i]) for i in kept]


def main(args: argparse.Namespace) -> None:
    """Write the prior and its report."""
    if args.found_report:
        check = read_json(args.found_report)
        trusted = check["use"] != "whole"
        built = build(read_found(args.table, args.depth), args.seed, learns=False) if trusted else None
        prior, report = settle(built, check, load_file(args.finder))
    else:
        annotated = read_annotated(args.pairs, args.table, args.splits)
        few = len(annotated) <= FEW_OUTLINES
        others = read_others(args.photographs, annotated, args.seed, args.depth) if few else []
        prior, report = build(annotated, args.seed, others)
    prior.save(args.out)
    write_json(args.report, report)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.parts.prior", description=__doc__)
    parser.add_argument("--pairs", help="folder of jpg + json pairs")
    parser.add_argument("--table", required=True, help="pairs.csv, or the table of masks written by find_part")
    parser.add_argument("--splits", help="splits.csv (groups)")
    parser.add_argument("--found-report", help="report of find_part: learn from found masks instead of drawn ones")
    parser.add_argument("--finder", help="tensors learned by find_part")
    parser.add_argument(
        "--photographs",
        nargs="*",
        default=[],
        help=f"tables of all photographs, read if {FEW_OUTLINES} or fewer are annotated",
    )
    add_option(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="prior.safetensors")
    parser.add_argument("--report", required=True, help="prior.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
