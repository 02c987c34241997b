"""The model card of a bundle: what it is, what it was made from, and how far to trust it."""

from collections.abc import Mapping
from typing import Any

from defectflow.metrics import intervals


def card(settings: Mapping[str, Any], metrics: Mapping[str, Any], fit: Mapping[str, Any]) -> str:
    """Markdown, from the content of bundle.json (before its files are listed), of metrics.json and of fit.json."""
    image, spans, threshold = metrics["image"], metrics["confidence_intervals"], settings["threshold"]
    detector, network = settings["detector"], settings["network"]
    rows = [
        ("AUROC", figure(image["auroc"], spans["auroc"])),
        ("accuracy", figure(image["accuracy"], spans["accuracy"])),
        ("recall: bad images called bad", figure(image["recall"], spans["recall"])),
        ("precision: images called bad that are bad", figure(image["precision"], spans["precision"])),
        ("false alarms: good images called bad", figure(image["false_positive_rate"], spans["false_positive_rate"])),
    ]
    if "leave_group_out" in image:
        apart = image["leave_group_out"]
        rows.insert(1, ("AUROC, whole groups (sessions) held out", figure(apart["auroc"], apart["auroc_interval"])))
    rule = ", ".join([threshold["strategy"], *(f"{k} {v:g}" for k, v in threshold["options"].items())])
    band = settings["review"]
    lines = [
        f"# Inspector {settings['name']}",
        "",
        "Tells good from bad photographs of one part, and shows where the damage is. Made by defectflow.",
        "",
        "```sh",
        "defectflow inspect THIS_FOLDER photographs/ --out results/",
        "```",
        "",
        "## What it is",
        "",
        f"- The part is found by: {settings['segmenter']['source']}.",
        f"- What the detector sees: background {settings['isolation']['background']}, light "
        f"{', '.join(settings['isolation']['normalise'])}{', cropped' if settings['isolation']['crop'] else ''}, "
        f"fitted into {network['input_size'][1]} x {network['input_size'][0]} pixels.",
        f"- Detector: {detector['method']}, backbone {network['backbone']} ({', '.join(network['layers'])}), "
        f"{learned(detector, fit)} of {fit['good_images']} good images.",
        f"- Bad from raw score {threshold['value']:.6g} on (rule: {rule}); shown as 0.50.",
        *([f"- To a person: raw scores from {band[0]:.6g} up to {band[1]:.6g}."] if band else []),
        "",
        "## How far to trust it",
        "",
        f"Measured on {image['n_good']} good and {image['n_bad']} bad images, each scored by a bank built without it",
        "and judged by a threshold chosen without it. The bank in this bundle holds all good images. Images unlike",
        "these (another camera, light or part) are not covered.",
        "",
        "| figure | value [95 % interval] |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
    ]
    if metrics["warnings"]:
        lines += ["Warnings of the run:", "", *(f"- {text}" for text in metrics["warnings"]), ""]
    lines += [
        "## What is in it",
        "",
        "safetensors, ONNX and JSON: nothing that is executed. bundle.json has the settings, the versions it was made",
        "with, and size and sha256 of every file. prior.safetensors, if there is one, holds gradient pictures and",
        "masks of annotated photographs: treat it as you treat these.",
        "",
    ]
    return "\n".join(lines)


def learned(detector: Mapping[str, Any], fit: Mapping[str, Any]) -> str:
    """What a picture is compared with, in words that end before "of ... good images"."""
    size = fit["banks"]["all"]["size"]
    return {
        "patchcore": f"{detector['distance']} distances to {size} patches",
        "padim": f"Mahalanobis distances to a Gaussian in each of {size} places",
        "centroid": "cosine distances to the centroid",
    }[detector["method"]]


def figure(value: float | None, interval: list[float] | None) -> str:
    """A figure with its interval, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{', '.join(intervals.text(interval))}]" if interval else "")
