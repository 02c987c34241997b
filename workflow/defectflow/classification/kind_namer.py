"""What names the kind of a defect in a new photograph: written by classify, used by inspectors; numpy alone."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.classification.heads.calibration import probabilities
from defectflow.classification.heads.head_arrays import Head
from defectflow.classification.heads.novelty import KnownKinds
from defectflow.core.files import UserError, atomic

FILE = "namer.safetensors"
UNKNOWN = "unknown kind"
MOST_UNLIKE = 20  # patches of a photograph, for the spread of differences ...
RELATIVE = 0.75  # power of typical distances that distances are divided by; chosen on rendered sets
MEAN_OF = 10  # ... and the first so many of these for their mean
ROWS = 1024  # patches of a photograph that are compared at a time
NEAREST = 5  # good patches whose mean a patch is compared with


class KindNamer(NamedTuple):
    """A classifier of kinds that has learned from all labelled photographs.

    Attributes:
        names: the classes, good first.
        head: log-odds of descriptors.
        temperature: of these, see `calibration`.
        known: where the known kinds lie.
        limit: novelty above which a kind is unknown.
        good: float16 (m, d), patches of good photographs to compare with.
        typical: float32 (m,), the distance that each of them has to the nearest of another group.
        network: what the patches were made with, as patch files have it.
    """

    names: list[str]
    head: Head
    temperature: float
    known: KnownKinds
    limit: float
    good: np.ndarray
    typical: np.ndarray
    network: dict[str, Any]

    def describe(self, patches: np.ndarray) -> np.ndarray:
        """Descriptor of a photograph beside all good ones, float32 (2 d,), of its patches, float32 (p, d)."""
        good = self.good.astype(np.float32)
        half_norms, count = np.square(good).sum(axis=1) / 2, min(NEAREST, len(good))
        beside, closest = [], []
        for begin in range(0, len(patches), ROWS):
            closeness = patches[begin : begin + ROWS] @ good.T - half_norms
            beside.append(np.argpartition(closeness, len(good) - count, axis=1)[:, len(good) - count :])
            closest.append(closeness.max(axis=1))
        near = np.concatenate(beside)
        distance = np.sqrt(np.maximum(np.square(patches).sum(axis=1) - 2 * np.concatenate(closest), 0))
        rows = np.argsort(-distance / self.typical[near].mean(axis=1) ** RELATIVE, kind="stable")[:MOST_UNLIKE]
        differences = patches[rows] - good[near[rows]].mean(axis=1)
        parts = (differences[:MEAN_OF].mean(axis=0), differences.std(axis=0))
        result: np.ndarray = np.concatenate([part / max(float(np.linalg.norm(part)), 1e-12) for part in parts])
        return result

    def chances(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-odds and calibrated probabilities, float (n, k), and novelty, float (n,), of float (n, d)."""
        logits = self.head(descriptors)
        return logits, probabilities(logits, self.temperature), self.known.novelty(descriptors)

    def name(self, patches: np.ndarray) -> tuple[str, float]:
        """The kind of a photograph that is bad, and its probability among the kinds.

        ``patches``: float32 (p, d), p at least 1, of the part.
        """
        _, chance, novelty = self.chances(self.describe(patches)[None])
        kinds = chance[0, 1:]
        best = int(kinds.argmax())
        name = UNKNOWN if novelty[0] > self.limit else self.names[1 + best]
        return name, float(kinds[best] / max(kinds.sum(), 1e-12))

    def save(self, path: Path) -> None:
        """Write the file (safetensors), atomically."""
        known = dict(zip(("known_mean", "known_spread", "known_directions"), self.known, strict=True))
        tensors = {
            **{f"head.{k}": v for k, v in self.head.tensors().items()},
            **known,
            "good": self.good,
            "typical": self.typical,
        }
        about = {key: getattr(self, key) for key in ("names", "temperature", "limit", "network")}
        with atomic(path) as temporary:
            save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary, {"kinds": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> "KindNamer":
        """Read the file.

        Raises:
            UserError: it is absent or no such file.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["kinds"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            head = Head.of({k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")})
            known = KnownKinds(*(tensors[f"known_{part}"] for part in ("mean", "spread", "directions")))
            return cls(head=head, known=known, good=tensors["good"], typical=tensors["typical"], **about)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a classifier of kinds ({error}; make it again)") from None
