"""The prior of a part found without an outline, if it is trusted, and its report."""

from typing import Any

import numpy as np

from defectflow.parts.common_shape import CommonShape
from defectflow.parts.part_model import FINDER, Prior
from defectflow.parts.registration import Templates

AS_WELL = 0.01  # IoU by which registration may be worse than the classifier of patches and still be used
LEARNABLE = 0.8  # agreement (held-out IoU) with found masks below which they are not trusted


def nothing() -> Prior:
    """The prior of a part that was not found."""
    templates = Templates(np.zeros((1, 1, 1, 2), np.float32), np.zeros((1, 1, 1), bool))
    return Prior([""], [""], templates.labels, np.zeros(1, int), templates, {"group_of": {}, "held_out": "image"})


def settle(
    built: tuple[Prior, dict[str, Any]] | None, check: dict[str, Any], finder: dict[str, np.ndarray]
) -> tuple[Prior, dict[str, Any]]:
    """The prior of a found part, or an empty one if it is not trusted, and its report.

    Args:
        built: prior and report of the found masks, see `prior.build`; None if the self-check rejects them.
        check: report of the stage find_part.
        finder: learned tensors, see `patch_finder.PatchFinder`, and the mean of the common shape.
    """
    use, reason = check["use"], check["reason"]
    prior, report = built or (nothing(), {})
    if built:
        registered, learned = report["template"]["iou_mean"] or 0.0, check["signs"]["learned"]
        # If outlines vary, for example by perspective, those of other photographs fit less well than patches. The
        # classifier has seen the photographs that it is compared on, but has a few dozen weights: where registration
        # finds the part too, its IoU held out differs by less than 0.02, and the choice is the same.
        registers = prior.info["registers"] and registered >= learned - AS_WELL
        agreement = registered if registers else learned
        report["learned"] = {"source": "template" if registers else "appearance", "agreement": agreement}
        if agreement < LEARNABLE:
            use, reason = "whole", f"the model learned from it finds something else (IoU {agreement:.2f})"
        if "shape" in check:
            prior.shape = CommonShape(finder["shape"], **check["shape"])
        if not registers:
            prior.heads = {f"{FINDER}{name}": value for name, value in finder.items() if name != "shape"}
            prior.info["backbone"] = check["backbone"]
        for measured in ("constant", "template"):  # measured against found masks: by groups it has no meaning
            report[measured].pop("by_group")
    told = {"use": use, "trust": check["trust"], "reason": reason, "said": "", "completed": prior.shape is not None}
    if prior.heads:
        told["usual_agreement"] = check["usual_agreement"]
    if use == "whole":
        prior = nothing()
        told["said"] = (
            f"The part was not found without an outline ({reason}): all figures are for whole photographs.  "
            f"Outline the part on one photograph, {check['outline_asked_for']} (the most typical one), or set "
            "`part: whole` if the photograph is the part."
        )
    prior.info["found"] = told
    return prior, {"found": told, "finding": check} | report
