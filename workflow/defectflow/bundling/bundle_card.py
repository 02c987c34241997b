"""The model card of a bundle: what it is, what it was made from, and how reliable it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defectflow.backbones.network_input import input_in_words
from defectflow.classification.kind_namer import KindNamer
from defectflow.metrics import intervals
from defectflow.reporting.html_pages import environment, rule

TEMPLATES = Path(__file__).parent / "templates"


def card(
    settings: Mapping[str, Any], metrics: Mapping[str, Any], fit: Mapping[str, Any], namer: Path | None = None
) -> str:
    """Markdown, from the content of bundle.json (before its files are listed), of metrics.json and of fit.json.

    ``namer``: what names kinds of defects, where the bundle does.
    """
    template = environment(TEMPLATES, escape=False).get_template("bundle_card.md")
    text: str = template.render(
        settings=settings,
        **{key: settings[key] for key in ("isolation", "network", "detector", "threshold")},
        image=metrics["image"],
        spans=metrics["confidence_intervals"],
        warnings=metrics["warnings"],
        learned=learned(settings["detector"], fit),
        good_images=fit["good_images"],
        sizes=input_in_words(settings["network"]),
        figure=figure,
        rule=rule,
        kinds=KindNamer.load(namer).names[1:] if namer else [],
    )
    return text


def learned(detector: Mapping[str, Any], fit: Mapping[str, Any]) -> str:
    """What a picture is compared with, as text that is followed by "of ... good images"."""
    size = fit["banks"]["all"]["size"]
    return {
        "patchcore": f"{detector.get('distance')} distances to {size} patches",
        "padim": f"Mahalanobis distances to a Gaussian in each of {size} places",
        "centroid": "cosine distances to the centroid",
        "vae": "an autoencoder, trained on the pictures",
        "anomalib": f"{detector.get('model')}, trained on the pictures",
        "spade": f"distances to {size} patches, those of the {detector.get('nearest_images')} most similar",
    }[detector["method"]]


def figure(value: float | None, interval: list[float] | None) -> str:
    """A figure with its interval, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{', '.join(intervals.text(interval))}]" if interval else "")
