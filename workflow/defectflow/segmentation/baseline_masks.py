"""Masks of the baselines, and checks for doubtful masks; shared by the masks stage and the inspector."""

import sys
from typing import Any

import numpy as np

from defectflow.core.files import UserError, read_json
from defectflow.parts.common_shape import Completed
from defectflow.parts.part_model import AGREEMENT, AREA_Z, Guess, Prior
from defectflow.segmentation.segmenters import SEGMENTERS, Segmenter

# Where masks can come from; appearance replaces template if registration fails, whole is for a part not found.
WHOLE = "whole"
SOURCES = (
    *(name for name, cls in SEGMENTERS.classes.items() if cls.makes_masks and not cls.finds),
    "appearance",
)
PREDICTED_IOU = 0.7  # IoU predicted by SAM below which its mask is doubtful
LACKING = 0.25  # share of the common shape that may be filled in before a mask is doubtful
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
    """Presence of the part and doubts about its mask: the columns of the MASKS table except image_id and mask.

    The part is absent according to the registration score if registration is reliable on this data set (held out), else
    according to the appearance heads, else to SAM's object score (a logit; below 0 is absent) if there is one.
    Otherwise presence is undecided and the mask is doubtful. Every doubt is named in ``reason``.
    """
    info, reasons, seen = prior.info, [], bool(prior.heads)
    score = f"registration score {guess.match.score:.2f}"
    why = prior.lost(guess.match) if not seen else "" if guess.found else "nothing looks like the part"
    absent = lost = bool(why)
    if lost and not info["registers"] and not seen:
        absent = object_score is not None and object_score < 0
        if not absent:
            reasons.append(f"the position of the part is uncertain ({why})")
    if absent:
        reason = f"no part found ({why})"
        mask = np.zeros_like(mask)
    elif not mask.any():
        absent, reason = True, "empty mask"
    else:
        if object_score is not None and object_score < 0:
            reasons.append("SAM finds no part")
        if not lost and not seen and guess.match.score < info["score_doubtful"]:
            reasons.append(f"weak {score} < {info['score_doubtful']:.2f}")
        if predicted_iou is not None and predicted_iou < PREDICTED_IOU:
            reasons.append(f"predicted IoU {predicted_iou:.2f} < {PREDICTED_IOU}")
        # If registration fails, agreement with it means nothing; agreement within the source always does.
        itself = source in ("template", "appearance")
        limit = info.get("found", {}).get("usual_agreement", AGREEMENT) if itself else PRIOR_IOU
        if prior_iou < limit and (itself or info["registers"] or seen):
            reasons.append(f"IoU with the prior {prior_iou:.2f} < {limit:g}")
        if prior.shape is not None and completed is not None:
            if completed.fit < prior.shape.usual:
                reasons.append(f"its shape differs from the others (IoU {completed.fit:.3f} < {prior.shape.usual:.3f})")
            if completed.added > LACKING:
                reasons.append(f"{completed.added:.0%} of its shape was missing and is filled in")
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
    """Mask (bool, size of ``image``) by a segmenter without a network or by the appearance heads, and its row."""
    guess = prior.guess(image, leave_out)
    mask, agreement = SEGMENTERS.classes.get(source, Segmenter).find(prior, guess, image, leave_out)
    completed = prior.completed(mask)
    if completed is not None:
        mask = completed.mask
    row = check_mask(prior, source, guess, mask, agreement, completed=completed)
    return mask if row["present"] else np.zeros_like(mask), row


def part_mask(
    prior: Prior, source: str, image: np.ndarray, leave_out: list[int] | None, predictor: Any = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Mask of the part in a photograph and its row, for the masks stage and for inspectors.

    Args:
        prior: of the data set.
        source: one of SOURCES.
        image: uint8 RGB (height, width, 3).
        leave_out: photographs of the prior that must not be used, or None; see `Prior.leave_out`.
        predictor: a `sam_model.Predictor` if ``source`` is sam2.1.

    Returns:
        bool (height, width), empty if the part is absent; and the result of `check_mask`.
    """
    if predictor is None:
        return baseline_mask(prior, source, image, leave_out)
    found = predictor.predict(image, leave_out)
    row = check_mask(prior, source, found.guess, found.mask, found.prior_iou, found.predicted_iou, found.object_score)
    return found.mask if row["present"] else np.zeros_like(found.mask), row


def chosen_source(segmenter: str, train_json: str | None, prior: Prior) -> str:
    """Where masks come from: ``segmenter``, or what is better on this data set (then with a line on stderr).

    Better is the baseline named by train.json instead of SAM, and appearance if registration fails. For a part found
    without an outline, WHOLE if the result is not trusted.
    """
    if found := prior.info.get("found"):
        if found["use"] == WHOLE:
            print(f"{found['said']}", file=sys.stderr)
            return WHOLE
        return "appearance" if prior.heads else "template"
    if segmenter == "template" and prior.heads:
        print("Registration does not find the part reliably: 'appearance' is used for masks instead", file=sys.stderr)
        return "appearance"
    if segmenter != "sam2.1":
        return segmenter
    assert train_json is not None, "sam2.1 has one"
    train = read_json(train_json)
    use: str = train.get("use", "")
    if use not in SOURCES:
        raise UserError(f"{train_json}: no valid 'use' (run segment again)")
    if use != "sam2.1":
        means = {k: train[k]["iou_mean"] for k in SOURCES if k in train}
        means_text = ", ".join(f"{k} {v:.3f}" for k, v in means.items() if v is not None)
        print(
            f"WARNING: fine-tuned SAM 2.1 is worse than a baseline on held-out photographs (IoU {means_text}): "
            f"'{use}' is used for masks instead",
            file=sys.stderr,
        )
    return use
