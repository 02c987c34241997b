"""The parts of an inspector from its bundle: the segmenter and the scorer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from defectflow.core.files import UserError
from defectflow.images.bit_depth import DEPTH_NAMES
from defectflow.inspection.bundle_files import Bundle
from defectflow.isolation.crop_and_background import BACKGROUNDS, NORMALISATIONS
from defectflow.methods import numpy_registry
from defectflow.parts.part_model import Prior
from defectflow.segmentation.baseline_masks import SOURCES, part_mask

# Score of an image and distances of its patches, float32 (p,), from these (p, d) and their cells, int64 (p,).
Scorer = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]

# Config keys that this version knows; those after the bar are for training only.
KNOWN = {
    "segmenter": "method model source prior_weight | checkpoint sha256 bytes engine trainable steps batch_size "
    "augmentations learning_rate",
    "isolation": "background normalise crop margin dilate size centre",
    "detector": "method backbone layers image_size center_crop precision foreground_only distance neighbours "
    "score top_fraction bank_dtype | weights batch_size max_patches coreset_ratio coreset_max dimensions threshold "
    "threshold_options",
}


class Located(NamedTuple):
    """The part in a photograph: its mask, bool (height, width), and what is to be said about it (MASKS table)."""

    mask: np.ndarray
    record: dict[str, Any]


def check_known(bundle: Bundle) -> None:
    """Refuse settings that this version does not know, so that verdicts never differ from the workflow's.

    Raises:
        UserError: an entry has an unknown key or value.
    """
    where = bundle.folder
    for section, words in KNOWN.items():
        entry = bundle.settings[section]
        strange = sorted(entry.keys() - set(words.split()))
        if strange:
            raise UserError(f"{where}: {section} option {strange[0]!r} is unknown to this version (update defectflow)")
    values = {
        ("segmenter", "source"): ("none", *SOURCES),
        ("isolation", "background"): BACKGROUNDS,
        ("detector", "method"): tuple(numpy_registry.METHODS),
        ("detector", "score"): ("max", "top_k_mean", "percentile"),
        ("detector", "distance"): ("euclidean", "cosine"),
    }
    for (section, key), known in values.items():
        value = bundle.settings[section].get(key)
        if value not in known:
            raise UserError(
                f"{where}: {section} {key} {value!r} is unknown to this version (known: {', '.join(known)})"
            )
    if bundle.settings["depth"] not in DEPTH_NAMES:
        depth = bundle.settings["depth"]
        raise UserError(f"{where}: depth {depth!r} is unknown to this version (known: {', '.join(DEPTH_NAMES)})")
    for value in bundle.settings["isolation"]["normalise"]:
        if value not in NORMALISATIONS:
            raise UserError(f"{where}: isolation normalise {value!r} is unknown to this version (update defectflow)")


def make_locator(bundle: Bundle, device: str = "cpu") -> Callable[[np.ndarray], Located] | None:
    """Function that finds the part in a photograph; None if the bundle has no segmenter. SAM runs on ``device``."""
    entry = bundle.settings["segmenter"]
    source = entry["source"]
    if source == "none":
        return None
    prior = Prior.load(bundle.path("prior.safetensors"))
    try:
        _ = prior.appearance  # imports torch where the bundle has such heads
        if source == "sam2.1":
            from defectflow.segmentation.sam_model import Predictor
    except ModuleNotFoundError as error:
        raise UserError(f"{bundle.folder}: its segmenter {source} needs {error.name}, which is not installed") from None
    predictor = None
    if source == "sam2.1":
        weights, weight = bundle.path("segmenter.safetensors"), entry["prior_weight"]
        predictor = Predictor(entry["model"], weights, prior, device, weight)
    return lambda image: Located(*part_mask(prior, source, image, None, predictor))


def read_bank(bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and settings of the detector, as written by the fit."""
    path = bundle.path("bank.safetensors")
    try:
        with safe_open(path, framework="numpy") as stream:
            settings = json.loads((stream.metadata() or {}).get("defectflow", "{}"))
            tensors = {name.removeprefix("all").removeprefix("/"): stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a bank file ({error})") from None
    return tensors, settings


def numpy_scorer(bundle: Bundle) -> Scorer:
    """The detector of a bundle in numpy."""
    tensors, settings = read_bank(bundle)
    entry = bundle.settings["detector"]
    return numpy_registry.METHODS[entry["method"]](tensors, settings, entry).judge


def torch_scorer(bundle: Bundle, device: str = "cpu") -> Scorer:
    """The detector of a bundle with torch, as the workflow has it, on "cpu" or "cuda"."""
    import torch

    from defectflow.core.device import pick_device
    from defectflow.methods.detector import ScoreOptions
    from defectflow.methods.registry import METHODS

    tensors, settings = read_bank(bundle)
    entry = bundle.settings["detector"]
    options = ScoreOptions(entry["score"], entry["neighbours"], entry["top_fraction"])
    where = pick_device(device)
    bank = {k: torch.from_numpy(v).to(where) for k, v in tensors.items()}
    detector = METHODS[entry["method"]](bank, settings, options)

    def run(patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        score, distances = detector.judge(torch.from_numpy(patches).to(where), torch.from_numpy(position).to(where))
        return score, distances.cpu().numpy()

    return run
