"""A bundle that errs, for the tests of learning and drift, and photographs to teach it with: see `bundle_set`.

Its photographs of the run are enough to choose a threshold on. What it is told of are plates with a bright spot, which
are good after all, and plates with a faint blot, which it misses.
"""

import shutil
from pathlib import Path

import bundle_set
import cv2
import numpy as np
from defectflow.bundling.held_out_photographs import farthest
from defectflow.core.bank_files import BankFile
from defectflow.inspection.bundle_files import read_bundle, write_manifest
from defectflow.inspection.held_out import FILE, HeldOut
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.mask_and_score import settings_of
from defectflow.inspection.measures import measure, shift, small
from defectflow.methods.patchcore.bank_in_numpy import PatchCore

RUN = [(seed, seed >= 112) for seed in range(100, 118)]  # 12 good, 6 bad


def spotted(seed: int) -> np.ndarray:
    """A good plate with a bright spot that no photograph of the bank has."""
    image = bundle_set.photograph(seed)
    rng = np.random.default_rng(seed)
    cv2.circle(image, (int(rng.integers(40, 90)), int(rng.integers(30, 65))), 9, (235, 235, 235), -1)
    return image


def faint(seed: int) -> np.ndarray:
    """A bad plate with a blot that is hardly darker."""
    image = bundle_set.photograph(seed).astype(int)
    rng = np.random.default_rng(seed)
    at = int(rng.integers(40, 90)), int(rng.integers(30, 65))
    image -= cv2.circle(np.zeros(image.shape, np.uint8), at, 8, (34, 34, 34), -1)
    return image.clip(0, 255).astype(np.uint8)


def make(bundle_folder: Path, target: Path, threshold: float = 2.2) -> Path:
    """A copy of ``bundle_folder`` with photographs of a run, and their threshold; returns it."""
    shutil.copytree(bundle_folder, target)
    bundle = read_bundle(target)
    settings = settings_of(bundle, "detector")
    inspector, file = Inspector.load(target, "torch"), BankFile(target / "bank.safetensors")
    detector = PatchCore(file.tensors("all"), file.settings, settings)
    photos = [bundle_set.photograph(seed, bad) for seed, bad in RUN]
    picture = np.mean([small(photo) for photo in photos[:12]], axis=0)
    rows = []
    for photo in photos:
        item = inspector.prepare(photo)
        patches = inspector.embed(item)
        score = float(detector.judge(patches, item.cells)[0])
        measures = measure(photo)._replace(**shift(picture, small(photo)))
        rows.append({"score": score, **farthest(detector, patches, item.cells, settings), "m": measures})
    HeldOut(
        [{"name": f"{seed}.png", "sha256": f"{seed}", "fold": str(seed % 3), "label": int(bad)} for seed, bad in RUN],
        np.array([row["score"] for row in rows]),
        np.array([row["patches"] for row in rows]),
        np.concatenate([row["kept"] for row in rows]),
        np.repeat(np.arange(len(rows)), [len(row["kept"]) for row in rows]),
        np.concatenate([row["distance"] for row in rows]),
        np.concatenate([row["weight"] for row in rows]),
        np.array([row["m"] for row in rows]),
        picture.astype(np.float32),
        None,
        np.concatenate([row["position"] for row in rows]) if "position" in rows[0] else None,
        np.array([row["units"] for row in rows]) if "units" in rows[0] else None,
    ).save(target / FILE)
    kept = {key: value for key, value in bundle.settings.items() if key not in ("format", "files")}
    write_manifest(target, kept | {"threshold": bundle.settings["threshold"] | {"value": threshold}})
    return target
