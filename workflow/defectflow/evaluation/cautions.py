"""Warnings for readers of the metrics: one sentence for each reason to doubt them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from defectflow.backbones.backbone_names import WITHOUT_NETWORK
from defectflow.core.counted import counted
from defectflow.decision import good_only
from defectflow.decision.decisions import calibration_scores, is_evaluated
from defectflow.metrics import intervals

REVERSED = "Bad photographs score lower than good ones: are the labels swapped (1 is bad, 0 is good)?"
PROMPTED = {"prompted", "sam_onnx"}  # segmenters that ask a network in each photograph by itself
DATA_SHOWN = 10  # warnings of ingest that metrics.json repeats before the rest is only counted


def data_warnings(ingest_report: Mapping[str, Any], bearing: bool) -> list[str]:
    """Warnings of ingest_report.json as sentences: those that affect a figure (``bearing``), or the others."""
    found = [w for w in ingest_report.get("warnings", []) if bool(w["figure"]) == bearing]
    said = [f"{w['file']}: {w['text']}" for w in found[:DATA_SHOWN]]
    if len(found) > DATA_SHOWN:
        said.append(f"... and {len(found) - DATA_SHOWN} more of this kind in ingest_report.json.")
    return said


def headlines(metrics: Mapping[str, Any]) -> list[str]:
    """Warnings that affect everything else in metrics.json: shown above the figures, and among the warnings."""
    said = [metrics["assumed"]["said"]] if "assumed" in metrics else []
    if unfound := (metrics["segmentation"].get("found") or {}).get("found", {}).get("said"):
        said.append(unfound)
    if (metrics.get("background") or {}).get("warning"):
        said.append(metrics["background"]["warning"])
    if intervals.reversed_order(metrics["confidence_intervals"]["auroc"]):
        said.append(f"The AUROC ({metrics['image']['auroc']:.2f}) is clearly below 0.5. {REVERSED}")
    return said


def warnings(table: pd.DataFrame, unscored: Sequence[str], result: dict[str, Any], fit: dict[str, Any]) -> list[str]:
    """Warnings for the reader of the figures, most important first. ``unscored``: images without a score."""
    image, said = result["image"], headlines(result)
    known = table[is_evaluated(table)]
    n_good, n_bad = image["n_good"], image["n_bad"]
    if "assumed" in result:
        pass  # said above
    elif known.empty:
        said.append(
            "No labelled image has a held-out score, so there is no threshold, no verdict and no metric: "
            "label some good and bad images."
        )
    elif not n_bad:
        said.append(good_only.sentence(result["threshold"]["good_only"]))
    elif not n_good:
        said.append("No labelled good image was scored: the false positive rate is unknown.")
    if untrained(fit):
        said.append(
            "The backbone is not trained (random weights): its scores show that the pipeline runs, not what it can do."
        )
    of_photographs = _mask_warnings(result["segmentation"])
    if unscored:
        of_photographs.append(f"No score: {counted(len(unscored), 'image')} ({_names(unscored)}).")
    if known.empty:
        return said + of_photographs
    span = result["confidence_intervals"]["auroc"]
    if min(n_good, n_bad) < 30:
        tail = f": the AUROC may lie anywhere from {' to '.join(intervals.text(span))} (95 %)" if span else ""
        said.append(f"Few labelled images ({n_good} good, {n_bad} bad){tail}.")
    if span and not intervals.better_than_chance(span) and not intervals.reversed_order(span):
        said.append("With this number of images the AUROC cannot be distinguished from chance (0.5).")
    baseline = result["baseline"]["accuracy"]
    if n_good and n_bad and image["accuracy"] is not None and image["accuracy"] <= baseline:
        said.append(
            f"The accuracy ({image['accuracy']:.2f}) does not exceed that of always saying "
            f"{result['baseline']['majority_class']} ({baseline:.2f})."
        )
    good = known[known["label"] == 0]
    sessions = good["group"].where(good["group"] != "", good["image_id"]).nunique()
    if n_good and sessions < 5:
        apart = image.get("leave_group_out", {}).get("auroc")
        tail = f"; with whole groups left out the AUROC is {apart:.2f}" if apart is not None else ""
        groups = (
            f"come from {sessions} group{'s' if sessions > 1 else ''}: photographs of one group resemble each other"
        )
        if (good["group"] == "").all():
            groups = f"are {sessions}, and nothing says which were taken together (column group of labels.csv)"
        said.append(f"The good images {groups}, and a new session may score differently{tail}.")
    protocol = result["protocol"]
    if protocol["n_with_group_mates"]:
        said.append(
            f"{protocol['n_with_group_mates']} of {protocol['n_images']} images held out were scored and judged with "
            f"the help of others of their group ({protocol['name']}): the figures are those of groups already known."
        )
    if mixed := int((~known.loc[known["detection"] == "fold", "fold"].isin(calibration_scores(known))).sum()):
        said.append(
            f"The thresholds of {counted(mixed, 'image')} were chosen on scores by banks that contain good images of "
            "their own fold: with good images in three folds they would not be (label more of them, or set folds)."
        )
    said += _threshold_warnings(known, result)
    said += of_photographs
    pixel = result["pixel"]
    if pixel["n_bad_with_mask"] and pixel["n_bad_without_mask"]:
        said.append(f"No ground-truth mask: {counted(pixel['n_bad_without_mask'], 'bad image')}, in no pixel metric.")
    if pixel["components_off_the_part"]:
        said.append(
            f"Outside the part's mask: {counted(pixel['components_off_the_part'], 'marked defect')}, counted in the "
            "full frame only."
        )
    return said


def _threshold_warnings(known: pd.DataFrame, result: dict[str, Any]) -> list[str]:
    options, image, said = result["threshold"]["options"], result["image"], []
    wanted = {"max_fpr": "false_positive_rate", "alpha": "false_positive_rate", "max_fnr": "false_negative_rate"}
    caps = [(name, options[name], image[rate], rate) for name, rate in wanted.items() if name in options]
    if "recall" in options and image["recall"] is not None:
        caps.append(("1 - recall", 1 - options["recall"], 1 - image["recall"], "false_negative_rate"))
    for name, cap, rate, called in caps:
        if rate is not None and rate > cap + 1e-9:
            why = (
                "it holds on average" if name == "alpha" else "it holds on the images that the threshold was chosen on"
            )
            said.append(f"The {called.replace('_', ' ')} is {rate:.2f}, above {name} {cap:g}: {why}.")
    if "alpha" in options and (known["detection"] == "fold").any():
        said.append(
            f"{result['threshold']['strategy']} promises its rate for a fixed memory bank and independent images; here "
            "the images were scored by cross-validation, each fold by its own bank, so the promise is an approximation."
        )
    if result["threshold"]["strategy"] == "fixed":
        said.append(
            f"The threshold {options['value']:g} was set, not calibrated: if it was chosen by looking at these "
            "photographs, their figures are too good."
        )
    few = "percentile" in options and "assumed" not in result
    if few and (n := image["n_good"]) * (1 - options["percentile"] / 100) < 1:
        said.append(
            f"On {n} good images the percentile {options['percentile']:g} is their largest score: "
            "more good images are needed to estimate it."
        )
    if result["review"]:
        for cap, rate in (("max_fpr", "false_positive_rate_left"), ("max_fnr", "false_negative_rate_left")):
            value, limit = result["review"][rate], result["review"][cap]
            if value is not None and value > limit + 1e-9:
                said.append(
                    f"Outside the review band the {rate.removesuffix('_left').replace('_', ' ')} is {value:.2f}, above "
                    f"{cap} {limit:g}: it holds on the images that the band was chosen on."
                )
    return said


def _mask_warnings(segmentation: dict[str, Any]) -> list[str]:
    said = []
    train = segmentation.get("train", {})
    used = train.get("use", "sam2.1")
    if used != "sam2.1" and (train.get("sam2.1") or {}).get("iou_mean") is None:
        said.append(f"SAM 2.1 was judged on no held-out photograph: the masks come from the baseline {used!r}.")
    elif used != "sam2.1":
        said.append(
            f"SAM 2.1 finds the part worse (held-out IoU {_iou(train, 'sam2.1')}) than the baseline {used!r} "
            f"({_iou(train, used)}): the masks come from the baseline."
        )
    prior = segmentation.get("prior", {})
    spread = prior.get("propagation", {})
    if spread:
        said.append(_few_outlines(spread, prior))
    elif not train and prior.get("registration", {}).get("decides") is False:
        learned = prior.get("appearance", {})
        used = "appearance" if learned.get("used") else "template"
        instead = f"; masks come from the part's appearance ({_iou(prior, used)})" if learned.get("used") else ""
        said.append(
            f"Registration finds the part badly (held-out IoU {_iou(prior, 'template')}){instead}. If parts lie "
            "in any position and orientation, segmenter=sam2.1-nano, fine-tuned on your photographs, is more exact."
        )
    found = (segmentation.get("found") or {}).get("found", {})
    if found and not found["said"]:
        filled = found.get("completed")
        rest = ": what one lacks of the shape of the others is filled in." if filled else ", a missing piece too."
        said.append(
            f"No outline was drawn: the part was found in the photographs themselves (trust {found['trust']:.2f}); "
            f"parts.png shows what was found. What lies outside of it is not judged{rest}"
        )
    masks = segmentation.get("masks", {})
    if PROMPTED & masks.get("sources", {}).keys():
        said.append(
            "No outline was used: a network that was prompted by a box found the part in each photograph by itself, "
            "and nothing measures how well; parts.png shows what it found. What lies outside of it is not judged."
        )
    if masks.get("absent"):
        said.append(f"No part was found in {counted(len(masks['absent']), 'image')}: {_names(masks['absent'])}.")
    if masks.get("doubtful"):
        said.append(f"Doubtful: {counted(len(masks['doubtful']), 'mask')} ({_names(masks['doubtful'])}).")
    return said


def _few_outlines(spread: dict[str, Any], prior: dict[str, Any]) -> str:
    """What masks are worth that rest on one to three outlines."""
    count = spread["outlines"]
    outlines = f"{count} outlines" if count > 1 else "one outline"
    known = f" Between the outlined photographs alone the IoU is {_iou(prior, 'template')}." if count > 1 else ""
    missing = spread["not_found"]
    without = f", not in {_names(missing)}" if missing else ""
    return (
        f"All masks rest on {outlines}: the part was found again in {spread['found']} of {spread['photographs']} other "
        f"photographs{without}. Left out one at a time, these agree (IoU {spread['agreement_mean']:.3f}, at least "
        f"{spread['agreement_min']:.3f}): the same part was found again, and whether its outline is right, no held-out "
        f"figure says.{known} With outlines on ten photographs one does."
    )


def untrained(fit: dict[str, Any]) -> bool:
    """Whether fit.json says that the backbone has random weights (what works on pixels has no backbone)."""
    return fit.get("trained") is False and fit.get("backbone") not in WITHOUT_NETWORK


def _iou(report: dict[str, Any], name: str) -> str:
    value = (report.get(name) or {}).get("iou_mean")
    return "unknown" if value is None else f"{value:.3f}"


def _names(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
