"""Masks of the baselines, and checks for doubtful masks; shared by the masks stage and the inspector."""

import sys
from typing import Any

import numpy as np

from defectflow.core.files import UserError, read_json
from defectflow.parts.common_shape import Completed
from defectflow.parts.part_model import AGREEMENT, AREA_Z, Guess, Prior
from defectflow.segmentation.segmenters import SEGMENTERS, Template

# Where masks can come from; appearance stands in for template where registration fails, whole for a part not found.
WHOLE = "whole"
SOURCES = (
    *(name for name, cls in SEGMENTERS.classes.items() if cls.makes_masks and not cls.finds),
    "appearance",
)
PREDICTED_IOU = 0.7  # SAM's own estimate below which its mask is doubtful
LACKING = 0.25  # share of its shape that a found mask may lack before it is doubtful
PRIOR_IOU = 0.8  # IoU with the prior's mask below which constant and SAM masks are doubtful


def check_mask(
    prior: Prior,
    source: str,
    guess: Guess,
    mask: np.ndarray,
    prior_iou: float,
    predicted_iou: float | None = None,
    object_score: float | None = None,
    completed: Completed | None = None,
) -> dict[str, Any]:
    """Presence and doubt about one mask: the columns of the MASKS table except image_id and mask.

    Absence is decided by the registration score when registration is reliable on this data set (held out), else by the
    appearance heads, else by SAM's object score (a logit; below 0 is absent) if there is one. Otherwise presence
    is undecided and the mask is doubtful. Every doubt is named in ``reason``.
    """
    info, reasons, seen = prior.info, [], bool(prior.heads)
    score = f"registration score {guess.match.score:.2f}"
    why = prior.lost(guess.match) if not seen else "" if guess.found else "nothing looks like it"
    absent = lost = bool(why)
    if lost and not info["registers"] and not seen:
        absent = object_score is not None and object_score < 0
        if not absent:
            reasons.append(f"the part's place is uncertain ({why})")
    if absent:
        reason = f"no part found ({why})"
        mask = np.zeros_like(mask)
    elif not mask.any():
        absent, reason = True, "empty mask"
    else:
        if object_score is not None and object_score < 0:
            reasons.append("SAM sees no part")
        if not lost and not seen and guess.match.score < info["score_doubtful"]:
            reasons.append(f"weak {score} < {info['score_doubtful']:.2f}")
        if predicted_iou is not None and predicted_iou < PREDICTED_IOU:
            reasons.append(f"predicted IoU {predicted_iou:.2f} < {PREDICTED_IOU}")
        # Where registration fails, agreeing with it is no merit; agreement within the source always says something.
        itself = source in ("template", "appearance")
        limit = info.get("found", {}).get("usual_agreement", AGREEMENT) if itself else PRIOR_IOU
        if prior_iou < limit and (itself or info["registers"] or seen):
            reasons.append(f"IoU with the prior {prior_iou:.2f} < {limit:g}")
        if prior.shape is not None and completed is not None:
            if completed.fit < prior.shape.usual:
                reasons.append(f"its shape is unlike the others' (IoU {completed.fit:.3f} < {prior.shape.usual:.3f})")
            if completed.added > LACKING:
                reasons.append(f"{completed.added:.0%} of its shape were missing and are filled in")
        z = prior.area_z(np.count_nonzero(mask) / mask.size)
        if abs(z) > AREA_Z:
            reasons.append(f"area off by {z:+.1f} standard deviations")
        reason = "; ".join(reasons)
    area = np.count_nonzero(mask) / mask.size
    return {
        "source": source,
        "present": int(not absent),
        "doubtful": int(not absent and bool(reasons)),
        "reason": reason,
        "predicted_iou": predicted_iou,
        "prior_iou": prior_iou,
        "area": area,
        "area_z": prior.area_z(area),
        "registration_score": guess.match.score,
    }


def baseline_mask(
    prior: Prior, source: str, image: np.ndarray, leave_out: list[int] | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Mask (bool, size of ``image``) of a segmenter without a network, or of the appearance heads, and its row."""
    guess = prior.guess(image, leave_out)
    mask, agreement = SEGMENTERS.classes.get(source, Template).find(prior, guess, image, leave_out)
    completed = prior.completed(mask)
    if completed is not None:
        mask = completed.mask
    row = check_mask(prior, source, guess, mask, agreement, completed=completed)
    return mask if row["present"] else np.zeros_like(mask), row


def part_mask(
    prior: Prior, source: str, image: np.ndarray, leave_out: list[int] | None, predictor: Any = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Mask of the part in a photograph and its row, for the masks stage and an inspector alike.

    Args:
        prior: of the data set.
        source: one of SOURCES.
        image: uint8 RGB (height, width, 3).
        leave_out: cases of the prior that may not be used, or None; see `Prior.leave_out`.
        predictor: a `sam_model.Predictor`, where ``source`` is sam2.1.

    Returns:
        bool (height, width), nothing where the part is absent; and what `check_mask` says of it.
    """
    if predictor is None:
        return baseline_mask(prior, source, image, leave_out)
    found = predictor.predict(image, leave_out)
    row = check_mask(prior, source, found.guess, found.mask, found.prior_iou, found.predicted_iou, found.object_score)
    return found.mask if row["present"] else np.zeros_like(found.mask), row


def chosen_source(segmenter: str, train_json: str | None, prior: Prior) -> str:
    """Where masks come from: ``segmenter``, or what is better on this data set, with a line on stderr.

    That is the baseline that train.json says is better than SAM, and appearance if registration fails. Of a part that
    was found without an outline, WHOLE where what was found is not to be trusted.
    """
    if found := prior.info.get("found"):
        if found["use"] == WHOLE:
            print(f"{found['said']}", file=sys.stderr)
            return WHOLE
        return "appearance" if prior.heads else "template"
    if segmenter == "template" and prior.heads:
        print("Registration does not find the part reliably: masks come from 'appearance' instead", file=sys.stderr)
        return "appearance"
    if segmenter != "sam2.1":
        return segmenter
    assert train_json is not None, "the stage of sam2.1 has one"
    train = read_json(train_json)
    use: str = train.get("use", "")
    if use not in SOURCES:
        raise UserError(f"{train_json}: no valid 'use' (run segment again)")
    if use != "sam2.1":
        means = {k: train[k]["iou_mean"] for k in SOURCES if k in train}
        means_text = ", ".join(f"{k} {v:.3f}" for k, v in means.items() if v is not None)
        print(
            f"WARNING: fine-tuned SAM 2.1 is worse than a baseline on held-out photographs (IoU {means_text}): "
            f"masks are made by '{use}' instead",
            file=sys.stderr,
        )
    return use
