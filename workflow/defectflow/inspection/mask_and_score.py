"""The parts of an inspector from its bundle: the segmenter and the scorer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from defectflow.config.settings import Family, Settings
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError
from defectflow.images.bit_depth import DEPTH_NAMES
from defectflow.inspection.bundle_files import Bundle
from defectflow.inspection.runtimes import load_graph, picture_of
from defectflow.isolation.settings import IsolationSettings
from defectflow.methods import numpy_registry
from defectflow.methods.method_settings import METHODS
from defectflow.methods.numpy_detector import NumpyDetector, Scored, pool
from defectflow.parts.part_model import Prior
from defectflow.segmentation.baseline_masks import SOURCES, part_mask
from defectflow.segmentation.prompted_masks import PromptedFinder
from defectflow.segmentation.segmenters import SEGMENTERS

SEARCH = "search.safetensors"  # tables of a detector, see `NumpyDetector.tables`

# From the patches of an image (p, d) and their cells, int64 (p,).
Scorer = Callable[[np.ndarray, np.ndarray], Scored]

# What a bundle adds to an entry of the config.
ADDED = {
    "segmenter": {"method", "source", "prior_weight"},
    "isolation": {"size", "centre"},
    "detector": {"method", "taught", "taught_scales"},
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
    where, source = bundle.folder, bundle.settings["segmenter"].get("source")
    if source not in ("none", *SOURCES):
        known = ", ".join(("none", *SOURCES))
        raise UserError(f"{where}: segmenter source {source!r} is unknown to this version (known: {known})")
    known_methods = [*numpy_registry.DETECTORS, *(name for name, cls in METHODS.classes.items() if cls.whole_pictures)]
    if (method := bundle.settings["detector"].get("method")) not in known_methods:
        known = ", ".join(known_methods)
        raise UserError(f"{where}: detector method {method!r} is unknown to this version (known: {known})")
    for section, kind in (("segmenter", SEGMENTERS), ("isolation", IsolationSettings), ("detector", METHODS)):
        entry = {key: value for key, value in bundle.settings[section].items() if key not in ADDED[section]}
        classes = kind.classes.values() if isinstance(kind, Family) else [kind]
        strange = sorted(entry.keys() - {key for cls in classes for key in cls.own_keys()})
        if strange:
            raise UserError(f"{where}: {section} option {strange[0]!r} is unknown to this version (update defectflow)")
        try:
            settings_of(bundle, section)
        except UserError as error:
            raise UserError(f"{error}; unknown to this version (update defectflow)") from None
    if bundle.settings["depth"] not in DEPTH_NAMES:
        depth = bundle.settings["depth"]
        raise UserError(f"{where}: depth {depth!r} is unknown to this version (known: {', '.join(DEPTH_NAMES)})")


def settings_of(bundle: Bundle, section: str) -> Any:
    """Settings of the entry of a bundle; what others of its kind read may stand beside it.

    Args:
        section: "segmenter", "isolation" or "detector".
    """
    entry = bundle.settings[section]
    family = {"segmenter": SEGMENTERS, "detector": METHODS}.get(section)
    cls: type[Settings] = family.class_of(entry, f"{bundle.folder}: {section}") if family else IsolationSettings
    own = {key: value for key, value in entry.items() if key in cls.own_keys()}
    return cls.from_dict(own, f"{bundle.folder}: {section}", refuse=False)


def make_locator(bundle: Bundle, device: str = "cpu") -> Callable[[np.ndarray], Located] | None:
    """Function that finds the part in a photograph; None if the bundle has no segmenter. SAM runs on ``device``."""
    entry = bundle.settings["segmenter"]
    source = entry["source"]
    if source == "none":
        return None
    if SEGMENTERS.class_of(entry, f"{bundle.folder}: segmenter").prompts:
        return prompted_locator(bundle, device)
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


def prompted_locator(bundle: Bundle, device: str = "cpu") -> Callable[[np.ndarray], Located]:
    """As `make_locator`, by a promptable network; a pair of ONNX files needs no torch."""
    pair = {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
    names = pair if "encoder" in bundle.settings["segmenter"] else {"checkpoint": "segmenter.safetensors"}
    files = {key: bundle.path(name) for key, name in names.items()}
    try:
        finder = PromptedFinder.load(settings_of(bundle, "segmenter"), files, device)
    except ModuleNotFoundError as error:
        raise UserError(f"{bundle.folder}: its segmenter needs {error.name}, which is not installed") from None
    return lambda image: Located(*finder.find(image))


def read_bank(bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors of the detector and its settings, as its fit left them."""
    bank = BankFile(bundle.path("bank.safetensors"))
    return bank.tensors("all") | taught_patches(bundle), bank.settings


def taught_patches(bundle: Bundle) -> dict[str, np.ndarray]:
    """Tensors that `defectflow learn` added to those of the detector; none in a bundle that was not taught."""
    taught = bundle.settings.get("taught")
    return load_file(bundle.path(taught["patches"])) if taught else {}


def make_scorer(
    bundle: Bundle, runtime: str, precision: str = "fp32", threads: int = 1, streams: int = 1, device: str = "cpu"
) -> Scorer:
    """The detector of a bundle; arguments and errors as of `runtimes.load_network`."""
    own = max(1, threads // streams)
    if runtime == "torch":
        return torch_scorer(bundle, own, device)
    if METHODS.classes[bundle.settings["detector"]["method"]].whole_pictures:
        return picture_scorer(bundle, load_graph(bundle, runtime, precision, threads, streams))
    return numpy_scorer(bundle, own)


def picture_scorer(bundle: Bundle, run: Callable[[np.ndarray], np.ndarray]) -> Scorer:
    """A detector that judges whole pictures, by its graph, see `picture_detector.PictureGraph`."""
    settings, (height, width) = settings_of(bundle, "detector"), bundle.settings["network"]["grid"]

    def score(patches: np.ndarray, position: np.ndarray) -> Scored:
        found = run(picture_of(patches, position, (height, width)))[:, 0]
        distances: np.ndarray = found[position]
        pooled = settings.score in ("max", "top_k_mean", "percentile")
        return Scored(pool(distances, settings) if pooled else float(found[-1]), distances, lambda: distances)

    return score


def numpy_scorer(bundle: Bundle, threads: int = 1) -> Scorer:
    """The detector of a bundle in numpy, with so many threads for one photograph."""
    detector = numpy_detector(bundle)
    detector.workers = threads
    return detector.score


def numpy_detector(bundle: Bundle) -> NumpyDetector:
    """The detector of a bundle in numpy, with the tables of its search if the bundle has them."""
    tensors, metadata = read_bank(bundle)
    if SEARCH in bundle.settings["files"]:
        tensors |= load_file(bundle.path(SEARCH))
    entry = bundle.settings["detector"]
    return numpy_registry.DETECTORS[entry["method"]](tensors, metadata, settings_of(bundle, "detector"))


def torch_detector(bundle: Bundle, device: str = "cpu") -> Any:
    """The detector of a bundle with torch, a `detector.Detector`, as the workflow has it, on "cpu" or "cuda".

    Raises:
        UserError: it needs a library that is not installed.
    """
    import torch

    from defectflow.core.device import pick_device
    from defectflow.methods.registry import detector_class

    tensors, metadata = read_bank(bundle)
    method, where = bundle.settings["detector"]["method"], pick_device(device)
    bank = {k: torch.from_numpy(np.asarray(v)).to(where) for k, v in tensors.items()}
    try:
        return detector_class(method)(bank, metadata, settings_of(bundle, "detector"))
    except ModuleNotFoundError as error:
        raise UserError(f"{bundle.folder}: its detector {method} needs {error.name}, which is not installed") from None


def torch_scorer(bundle: Bundle, threads: int = 1, device: str = "cpu") -> Scorer:
    """The detector of a bundle with torch, with so many threads for one photograph, on "cpu" or "cuda"."""
    import torch

    from defectflow.core.device import pick_device

    detector, where = torch_detector(bundle, device), pick_device(device)

    def run(patches: np.ndarray, position: np.ndarray) -> Scored:
        torch.set_num_threads(threads)  # of the thread that calls
        score, found = detector.judge(torch.from_numpy(patches).to(where), torch.from_numpy(position).to(where))
        distances = found.cpu().numpy()
        return Scored(score, distances, lambda: distances)

    return run
