"""Masks by registration, and doubt about any mask: what the masks stage and the inspector share. No torch."""

import numpy as np

from defectflow.part_prior import AGREEMENT, AREA_Z, Prior
from defectflow.registration import Match, iou

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
