"""What candidates leaves of each photograph: a small picture, and its patches in the components of its shard."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.core.files import UserError, atomic
from defectflow.parts.patch_finder import CHANNELS, GRID, SIDE, Basis

FORMAT = "defectflow-candidates-1"
KEPT = 96  # components of a shard that are kept, of CHANNELS: twice as many as the set is looked at with


@dataclass
class Candidates:
    """Photographs that the part is looked for in.

    Attributes:
        image_ids, paths: of the photographs.
        sizes: (height, width) of each, in pixels.
        squares: uint8 RGB (SIDE, SIDE, 3), squashed.
        features: float16 (GRID, GRID, CHANNELS) of each, see `patch_maps.patches`.
        figure: float32 (GRID, GRID) of each, probability of a thing before a background, see `parts.figure_ground`.
        doubt: mean standard deviation of the heads over the figure, of each.
        surface: probability that there is no thing, of each.
        backbone: sha256 of the weights that the patches come from; "" without photographs.
        others: float32 (k, GRID, GRID) of each, figures that k networks of the user see; empty without any.
    """

    image_ids: list[str]
    paths: list[str]
    sizes: list[tuple[int, int]]
    squares: Sequence[np.ndarray]
    features: Sequence[np.ndarray]
    figure: Sequence[np.ndarray]
    doubt: Sequence[float]
    surface: Sequence[float]
    backbone: str = ""
    others: Sequence[np.ndarray] = ()


def write(path: str | Path, candidates: Candidates, rng: np.random.Generator) -> None:
    """Write as safetensors, atomically: 1.5 MB a photograph."""
    count = len(candidates.image_ids)
    tensors = {
        "squares": np.stack(candidates.squares) if count else np.zeros((0, SIDE, SIDE, 3), np.uint8),
        "patches": np.zeros((0, GRID, GRID, KEPT), np.float16),
        "figure": np.stack(candidates.figure) if count else np.zeros((0, GRID, GRID), np.float32),
        "doubt": np.array(candidates.doubt, np.float32),
        "surface": np.array(candidates.surface, np.float32),
        "mean": np.zeros(CHANNELS, np.float32),
        "components": np.zeros((KEPT, CHANNELS), np.float32),
    }
    if len(candidates.others):
        tensors["others"] = np.stack(candidates.others)
    if count:
        basis = Basis.fit(candidates.features, rng, KEPT)
        tensors["patches"] = basis(candidates.features).astype(np.float16)
        tensors["mean"], tensors["components"] = basis.mean, np.ascontiguousarray(np.linalg.pinv(basis.weights))
    meta = {"format": FORMAT, "image_ids": candidates.image_ids, "paths": candidates.paths, "sizes": candidates.sizes}
    meta["backbone"] = candidates.backbone
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"candidates": json.dumps(meta)})


def read_all(paths: Sequence[str | Path]) -> Candidates:
    """Read what `write` wrote of every shard, in the order of image ids.

    Raises:
        UserError: a file is absent or is not such a file.
    """
    rows: list[tuple[Any, ...]] = []
    backbone, has_others = "", False
    for path in paths:
        try:
            with safe_open(path, "numpy") as stream:
                meta = json.loads((stream.metadata() or {}).get("candidates", "{}"))
                if meta.get("format") != FORMAT:
                    raise UserError(f"{path}: not candidates of this version (run candidates again)")
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error})") from None
        whole = (tensors["patches"].astype(np.float32) @ tensors["components"] + tensors["mean"]).astype(np.float16)
        sizes = [tuple(size) for size in meta["sizes"]]
        has_others = has_others or "others" in tensors
        tensors.setdefault("others", np.zeros((len(sizes), 0, GRID, GRID), np.float32))
        told = (tensors[name] for name in ("figure", "doubt", "surface", "others"))
        backbone = meta["backbone"] or backbone
        rows += zip(meta["image_ids"], meta["paths"], sizes, tensors["squares"], whole, *told, strict=True)
    rows.sort(key=lambda row: row[0])
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(9)]
    ids, sources, sizes, squares, features, figure, doubt, surface, networks = columns
    others = networks if has_others else []
    return Candidates(ids, sources, sizes, squares, features, figure, doubt, surface, backbone, others)
