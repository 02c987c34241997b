"""The part of a set of photographs: seeds from several maps, a patch classifier trained on each, and the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from defectflow.finding import patch_maps
from defectflow.finding.outlining import clean, grown, on_edges, outline
from defectflow.finding.patch_maps import Basis, scaled
from defectflow.finding.self_training import self_train
from defectflow.finding.stays_put import Poses, consensus, register_all
from defectflow.parts.registration_frame import iou

LOOKED_AT = 8  # photographs on which the outlines of the seeds are compared
FEWEST = 4  # photographs of one size from which registration is tried
STABLE, AGREE, FAR = 0.6, 0.5, 4.0  # stability, agreement, and robust deviations of the area, of a sound mask
TOGETHER = 0.6  # weight of what the registered photographs say together, against each alone


@dataclass
class Found:
    """What was found in photographs, squashed to squares.

    Attributes:
        masks: bool (n, SIDE, SIDE).
        soft: float32 (n, GRID, GRID), probability of the part.
        chosen: name of the seed.
        signs: what the self-check goes by, see `self_check`.
        rows: of each photograph: area, stability (IoU of the outline with the soft map), agreement (IoU of maps with
            and without the place).
    """

    masks: list[np.ndarray]
    soft: np.ndarray
    chosen: str
    signs: dict[str, float]
    rows: list[dict[str, float]] = field(default_factory=list)

    def sound(self) -> list[int]:
        """Indices of the photographs whose masks others may learn from: typical in size, drawn alike in two ways."""
        logs = np.log([max(row["area"], 1e-5) for row in self.rows])
        spread = max(1.4826 * float(np.median(np.abs(logs - np.median(logs)))), 0.03)
        far = np.abs(logs - np.median(logs)) / spread
        kept = [row["stability"] >= STABLE and row["agreement"] >= AGREE for row in self.rows]
        return [k for k, good in enumerate(kept) if good and far[k] <= FAR]


def seeds_of(z: np.ndarray, figure: np.ndarray, poses: Poses | None, seed: int) -> dict[str, np.ndarray]:
    """Maps that may show the part, by name: each float32 (n, GRID, GRID) in [0, 1]."""
    root = np.sqrt(figure.clip(0.01))
    steady = poses.steady if poses is not None and poses.fixed else 1.0
    mean = patch_maps.cluster_mean(z, figure, seed)
    found = {
        "clusters": root * (0.2 + patch_maps.shared_clusters(z, seed)) * steady,
        "objects": root * (0.2 + mean) * steady,
        "sum": figure + mean,
        "figure": figure,
    }
    return {name: scaled(value).astype(np.float32) for name, value in found.items()}


def find(squares: Sequence[np.ndarray], features: Sequence[np.ndarray], alike: bool, seed: int) -> Found:
    """Find the part.

    Args:
        squares: uint8 RGB (SIDE, SIDE, 3), the photographs.
        features: float16 (GRID, GRID, CHANNELS) of each, see `patch_maps.patches`.
        alike: whether all photographs have one size.
        seed: of all random numbers.
    """
    rng = np.random.default_rng([seed, 23])
    z = Basis.fit(features, rng)(features)
    figure = patch_maps.rarity(z, rng)
    poses = register_all(squares) if alike and len(squares) >= FEWEST else None
    fixed = poses is not None and poses.fixed
    maps, edge, softs = seeds_of(z, figure, poses, seed), {}, {}
    some = np.unique(np.linspace(0, len(squares) - 1, LOOKED_AT).astype(int))
    for name, value in maps.items():
        softs[name] = self_train(z, value, rng)(z)
        shown = [clean(grown(softs[name][i], squares[i].shape) >= 0.5) for i in some]
        edge[name] = float(np.mean([on_edges(m, squares[i]) for m, i in zip(shown, some, strict=True)]))
    favour = {"clusters": 1.1 if fixed else 1.0}
    chosen = max(edge, key=lambda name: edge[name] * favour.get(name, 1.0))
    soft = softs[chosen]
    placeless = self_train(z, maps[chosen], rng, place=0.0)(z)
    raw, rows = [], []
    for i, square in enumerate(squares):
        mask, stable = outline(square, grown(soft[i], square.shape))
        raw.append(mask)
        rows.append({"stability": stable, "agreement": iou(soft[i] > 0.5, placeless[i] > 0.5)})
    masks = raw
    if fixed:
        used = set(poses.used().tolist())
        together = consensus(raw, poses)
        masks = [
            clean(TOGETHER * c + (1 - TOGETHER) * m >= 0.5) if i in used else m
            for i, (c, m) in enumerate(zip(together, raw, strict=True))
        ]
        for row, mask, m in zip(rows, masks, raw, strict=True):
            row["stability"] = iou(mask, m)
    for row, mask in zip(rows, masks, strict=True):
        row["area"] = float(mask.mean())
    signs = {
        "edge": float(np.median([on_edges(masks[i], squares[i]) for i in some])),
        "seeds": float(np.mean([iou(s > 0.5, soft > 0.5) for name, s in softs.items() if name != chosen])),
        "stability": float(np.mean([r["stability"] for r in rows])),
        "agreement": float(np.mean([r["agreement"] for r in rows])),
        "registration": poses.score if poses is not None else 0.0,
        "area": float(np.median([r["area"] for r in rows])),
        "spread": _spread([r["area"] for r in rows]),
        "figure": float(np.median(figure.max((1, 2)))),
        "rim": float(np.mean([m[patch_rim(m)].mean() for m in masks])),
    }
    return Found(masks, soft, chosen, signs, rows)


def patch_rim(mask: np.ndarray) -> np.ndarray:
    """The outermost 8 pixels of a mask, bool of its size."""
    rim = np.ones(mask.shape, bool)
    rim[8:-8, 8:-8] = False
    return rim


def _spread(areas: Sequence[float]) -> float:
    logs = np.log(np.maximum(areas, 1e-5))
    return float(1.4826 * np.median(np.abs(logs - np.median(logs))))


def typical(features: Sequence[np.ndarray]) -> int:
    """Index of the photograph most like all others: nearest to the mean of their patches."""
    means = np.stack([f.astype(np.float32).mean((0, 1)) for f in features])
    return int(np.linalg.norm(means - means.mean(0), axis=1).argmin())
