"""The labelled photographs of a run in its bundle: what it takes to choose a threshold again, and to notice drift.

Each was scored by a bank built without it. Of its patches the file keeps those that are farthest from that bank, with
their distances: what is learned later can only come nearer to them, or be a defect like them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.core.files import UserError, atomic
from defectflow.inspection.bundle_files import Bundle
from defectflow.inspection.measures import Measures

FILE = "held_out.safetensors"


@dataclass(frozen=True)
class HeldOut:
    """Labelled photographs of a run.

    Attributes:
        photographs: of each: name, sha256, fold, label (0 good, 1 bad).
        score: float64 (n,), raw scores by banks without them.
        patches: number of patches on the part, of several scales at the finest, int64 (n,).
        kept: float16 (k, d), the farthest patches of all of them, see `bank_in_numpy.PatchCore.unprojected`.
        owner: int64 (k,), row of ``photographs`` that a patch belongs to, ascending.
        distance: float32 (k,), of these to their nearest patch in the bank without their photograph.
        weight: float32 (k,), see `bank_in_numpy.PatchCore.farthest`.
        measures: float64 (n, 6), see `Measures`; NaN where they are not known, as of a bundle older than a measure.
        picture: float32 (64, 64), mean of the good ones, see `measures.small`.
        review: limits of the review band {"max_fpr": ..., "max_fnr": ...}, or None.
        position: of several scales int64 (k,), cells of the kept patches in the grids of all scales, ascending in each
            photograph; otherwise None.
        units: of several scales float64 (n, scales, 2), see `scales.Combination`, of the bank without the photograph.
        used: uint64 (m,), the first 8 bytes of the sha256 of every photograph that the run learned from or was measured
            on, ascending: ``photographs`` are some of them. None in an older bundle.
    """

    photographs: list[dict[str, Any]]
    score: np.ndarray
    patches: np.ndarray
    kept: np.ndarray
    owner: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    measures: np.ndarray
    picture: np.ndarray
    review: dict[str, float] | None
    position: np.ndarray | None = None
    units: np.ndarray | None = None
    used: np.ndarray | None = None

    def name_of(self, sha256: str) -> str | None:
        """Name of the photograph of the run with this content, "" if it is not kept; None if it is none of the run."""
        known = {one["sha256"]: one["name"] for one in self.photographs}
        if sha256 in known or self.used is None:
            return known.get(sha256)
        return "" if (self.used == short(sha256)).any() else None

    @property
    def label(self) -> np.ndarray:
        """int64 (n,): 0 good, 1 bad."""
        return np.array([one["label"] for one in self.photographs], np.int64)

    def save(self, path: Path) -> None:
        """Write the file, atomically."""
        tensors = {
            name: np.ascontiguousarray(getattr(self, name))
            for name in (*TENSORS, *OPTIONAL)
            if getattr(self, name) is not None
        }
        about = {"photographs": self.photographs, "review": self.review, "measures": Measures._fields}
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"defectflow": json.dumps(about)})


TENSORS = ("score", "patches", "kept", "owner", "distance", "weight", "measures", "picture")
OPTIONAL = ("position", "units", "used")


def short(sha256: str) -> np.uint64:
    """The first 8 bytes of a sha256, as `HeldOut.used` has them."""
    return np.uint64(int(sha256[:16], 16))


def reference_picture(bundle: Bundle) -> np.ndarray | None:
    """`HeldOut.picture` of a bundle alone; None if it keeps no photographs of its run."""
    if FILE not in bundle.settings["files"]:
        return None
    with safe_open(bundle.path(FILE), framework="numpy") as file:
        picture: np.ndarray = file.get_tensor("picture")
        return picture


def read_held_out(bundle: Bundle) -> HeldOut:
    """The photographs of the run behind a bundle.

    Raises:
        UserError: the bundle has none (it is older than this version), or they are not readable.
    """
    path = bundle.path(FILE)
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["defectflow"])
            tensors = {name: file.get_tensor(name) for name in (*TENSORS, *(set(OPTIONAL) & set(file.keys())))}
        known = about["measures"]
        if known != list(Measures._fields[: len(known)]):
            raise KeyError("measures")
        missing = len(Measures._fields) - len(known)
        tensors["measures"] = np.pad(tensors["measures"], ((0, 0), (0, missing)), constant_values=np.nan)
        return HeldOut(about["photographs"], review=about["review"], **tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the photographs of a run ({error}; make the bundle again)") from None
