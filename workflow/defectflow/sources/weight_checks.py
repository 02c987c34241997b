"""Weights and checkpoints that a config names, checked before the first job: files, checksums, and whether they fit.

Standard library only: the Snakefile imports this module.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError
from defectflow.sources import preflight

PACKAGE = Path(__file__).parents[1]


def is_url(path: str) -> bool:
    """Whether a checkpoint has to be downloaded."""
    return "://" in path


def check_files(run: Any, settings: Any, allow_downloads: bool, cache: str) -> None:
    """Check that local weights and checkpoints of a run exist and have the stated checksum.

    Args:
        run: a `configuration.Run`.
        settings: `configuration.Checked.settings`.
        allow_downloads: whether a checkpoint may be a URL.
        cache: file in which checksums are remembered.

    Raises:
        UserError: one line with the key or the file, and the remedy.
    """
    segmenter, detector = settings["segmenters"][run.segmenter], settings["detectors"][run.detector]
    entry, given = f"segmenters.{run.segmenter}", segmenter.own_keys()
    if detector.measures_outlines and not segmenter.makes_masks:
        raise UserError(
            f"config.yaml: detectors.{run.detector} measures the outline of the part, and segmenter {run.segmenter} "
            "makes no masks (choose found, or outline some photographs and choose template; or take the run out of "
            "compare)"
        )
    if detector.measures_outlines and settings["isolations"][run.isolation].background != "keep":
        raise UserError(
            f"config.yaml: detectors.{run.detector} measures the outline of the part against what is around it, and "
            f"isolation {run.isolation} cuts that away (set isolation: none)"
        )
    start = segmenter.checkpoint if "checkpoint" in given else None
    if start and is_url(start):
        if not allow_downloads:
            raise UserError(
                f"config.yaml: {entry}.checkpoint is a URL and allow_downloads is false "
                "(set it to true, or give the path of a local copy)"
            )
        if not segmenter.sha256:
            raise UserError(f"config.yaml: {entry}: a checkpoint from a URL needs its sha256")
    elif start and segmenter.sha256:
        preflight.check_sha256(start, segmenter.sha256, cache, segmenter.bytes)
    elif segmenter.trains and segmenter.engine == "official" and not start:
        raise UserError(f"config.yaml: {entry}: engine official needs a checkpoint (set it, or engine: lean)")
    elif segmenter.prompts and not start and "model" in given and segmenter.model != "nano":
        raise UserError(f"config.yaml: {entry}: model {segmenter.model} needs its checkpoint (set it, or model: nano)")
    pair = [key for key in ("encoder", "decoder") if key in given]
    named = {f"{entry}.checkpoint": start, f"detectors.{run.detector}.weights": detector.weights}
    named |= {f"{entry}.{key}": getattr(segmenter, key) for key in pair}
    for key, path in (named | {"kinds.weights": settings["kinds"].weights}).items():
        if path and not is_url(path) and not Path(path).is_file():
            raise UserError(f"{path}: no such file (config.yaml names it under {key})")
    for one in (segmenter.candidates if "candidates" in given else None) or []:
        if not Path(one["onnx"]).is_file():
            raise UserError(f"{one['onnx']}: no such file (config.yaml names it under {entry}.candidates)")
        if one.get("sha256"):
            preflight.check_sha256(one["onnx"], one["sha256"], cache)
    for key in pair:
        if not getattr(segmenter, key):
            raise UserError(f"config.yaml: {entry}: method {segmenter.name} needs {key} (the path of its ONNX file)")
        if expected := getattr(segmenter, f"{key}_sha256"):
            preflight.check_sha256(getattr(segmenter, key), expected, cache)


def check_network(name: str, detector: Any, allow_downloads: bool) -> None:
    """Refuse a network that cannot be had, before parts are found in all pictures. timm takes seconds to ask.

    Args:
        name: of the entry of detectors.
        detector: its settings.
        allow_downloads: whether timm may fetch weights.

    Raises:
        UserError: what the check of `backbones.networks` says.
    """
    ours = detector.backbone == "patch-nano" and detector.layers == ["layer2", "layer3"] and not detector.weights
    if ours or (detector.backbone in ("pixels", "picture", "outline") and not detector.checked_by):
        return
    if detector.checked_by:
        read = detector.read_by("features", "fit", "score")
        settings = json.dumps({key: value for key, value in read.items() if key in detector.own_keys()})
        command = [sys.executable, "-m", detector.checked_by, "--settings", settings]
    else:
        command = [sys.executable, "-m", "defectflow.backbones.networks", detector.backbone]
        command += ["--layers", *detector.layers]
        command += ["--size", *map(str, [detector.center_crop] if detector.center_crop else detector.sizes)]
        command += ["--weights", detector.weights] if detector.weights else []
        command += ["--allow-downloads"] if allow_downloads else []
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True).stderr
    for problem in re.findall(r"^error: (.*)", told, re.MULTILINE):  # any other end is for the job to tell
        raise UserError(f"config.yaml: detectors.{name}: {problem}")
