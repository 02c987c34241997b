"""The part of a set of photographs: maps that may show it, a patch classifier trained on each, and the best of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from defectflow.finding import patch_maps
from defectflow.finding.patch_maps import scaled
from defectflow.finding.self_check import LITTLE_BACKGROUND
from defectflow.finding.self_training import self_train
from defectflow.finding.stays_put import Poses, alike_together, consensus, register_all
from defectflow.parts.outlining import clean, grown, on_edges, outline, thresholded
from defectflow.parts.patch_finder import GRID, Basis, PatchFinder
from defectflow.parts.registration_frame import iou

LOOKED_AT = 6  # photographs on which the outlines from the maps are compared
FEWEST = 4  # photographs of one size from which registration is tried
CLEAR = 3.0  # edge along an outline above which more is no better
DOUBT = 0.15  # mean doubt of the heads of figure and ground at which agreeing with them is worth nothing
UNKNOWN = 0.8  # stands for how far masks lie on each other where the camera is not fixed
STABLE, AGREE, FAR = 0.6, 0.5, 4.0  # stability, agreement, and robust deviations of the area, of a sound mask
FILLS = 1.1 * LITTLE_BACKGROUND  # area from which a part is not outlined, since its masks will not be used
TOGETHER = 0.6  # weight of what the registered photographs say together, against each alone


@dataclass
class Found:
    """What was found in photographs, squashed to squares.

    Attributes:
        masks: bool (n, SIDE, SIDE).
        soft: float32 (n, GRID, GRID), probability of the part.
        chosen: name of the map.
        signs: what the self-check goes by, see `self_check.judge`.
        rows: of each photograph: area, stability (IoU of the outline with the soft map), agreement (IoU of maps with
            and without the place).
        finder: what was learned from the masks.
    """

    masks: list[np.ndarray]
    soft: np.ndarray
    chosen: str
    signs: dict[str, float]
    rows: list[dict[str, float]]
    finder: PatchFinder

    def sound(self) -> list[int]:
        """Indices of the photographs whose masks others may learn from: typical in size, drawn alike in two ways."""
        logs = np.log([max(row["area"], 1e-5) for row in self.rows])
        far = np.abs(logs - np.median(logs)) / max(_spread(logs), 0.03)
        kept = [row["stability"] >= STABLE and row["agreement"] >= AGREE for row in self.rows]
        return [k for k, good in enumerate(kept) if good and far[k] <= FAR]

    def usual_agreement(self) -> float:
        """How far what was learned can be trusted in nearly all sound photographs, see `PatchFinder.__call__`."""
        values = np.array([min(self.rows[k]["stability"], self.rows[k]["agreement"]) for k in self.sound()])
        return float(np.median(values) - FAR * max(_spread(values), 0.03)) if len(values) else 0.0


def maps_of(z: np.ndarray, figure: np.ndarray, poses: Poses | None, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Maps that may show the part, by name: each float32 (n, GRID, GRID) in [0, 1].

    Args:
        z: patches (n, GRID, GRID, DIMS).
        figure: float32 (n, GRID, GRID), probability of a thing before a background.
        poses: how the photographs lie on each other, if they do.
        rng: of all random numbers.
    """
    seed, root = int(rng.integers(1 << 30)), np.sqrt(figure.clip(0.01))
    steady = poses.steady if poses is not None and poses.fixed else 1.0
    rare, mean = patch_maps.rarity(z, rng), patch_maps.cluster_mean(z, figure, seed)
    found = {
        "clusters": root * (0.2 + patch_maps.shared_clusters(z, seed)) * steady,
        "objects": root * (0.2 + mean) * steady,
        "sum": figure + mean,
        "figure": figure,
        "rarity": rare * steady,
        "rare figure": np.sqrt(rare * figure.clip(0.01)),
    }
    return {name: scaled(value).astype(np.float32) for name, value in found.items()}


def find(
    squares: Sequence[np.ndarray],
    features: Sequence[np.ndarray],
    figure: np.ndarray,
    doubt: float,
    alike: bool,
    seed: int,
    networks: np.ndarray | None = None,
    outlined: bool = True,
) -> Found:
    """Find the part.

    Args:
        squares: uint8 RGB (SIDE, SIDE, 3), the photographs.
        features: float16 (GRID, GRID, CHANNELS) of each, see `patch_maps.patches`.
        figure: float32 (n, GRID, GRID), probability of a thing before a background, see `parts.figure_ground`.
        doubt: mean standard deviation of its heads over the figure.
        alike: whether all photographs have one size.
        seed: of all random numbers.
        networks: float32 (n, k, GRID, GRID), figures that k networks of the user see, each one more map.
        outlined: whether all masks are outlined; otherwise, and for a part that fills much of the photographs, they are
            the map cut at 0.5, which takes a third of the time and is enough to say that they will not be used.
    """
    rng = np.random.default_rng([seed, 23])
    basis = Basis.fit(features, rng)
    z = basis(features)
    poses = register_all(squares) if alike and len(squares) >= FEWEST else None
    maps = maps_of(z, figure, poses, rng)
    for k, seen in enumerate(() if networks is None else networks.swapaxes(0, 1)):
        maps[f"network {k + 1}"] = scaled(seen).astype(np.float32)
    softs = {"head": figure} | {name: self_train(z, value, rng)(z) for name, value in maps.items()}
    some = np.unique(np.linspace(0, len(squares) - 1, LOOKED_AT).astype(int))
    small = [cv2.resize(squares[i], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for i in some]
    fixed = poses if poses is not None and poses.fixed else None
    trusted = float(np.clip((DOUBT - doubt) / (DOUBT - 0.05), 0, 1))
    worth, edge, heads, fills = {}, {}, {}, {}
    for name, soft in softs.items():
        drawn = [outline(picture, grown(soft[i], picture.shape))[0] for picture, i in zip(small, some, strict=True)]
        edge[name] = float(np.mean([on_edges(mask, picture) for mask, picture in zip(drawn, small, strict=True)]))
        heads[name] = float(np.mean([iou(soft[i] > 0.5, figure[i] > 0.5) for i in some]))
        fills[name] = min(
            float(np.median([mask.mean() for mask in drawn])), float(np.median((soft > 0.5).mean((1, 2))))
        )
        worth[name] = min(edge[name], CLEAR) / CLEAR * (0.5 + trusted * heads[name])
        worth[name] *= np.exp(-_spread(np.log((soft > 0.5).mean((1, 2)).clip(1e-4))))
        worth[name] *= 1 - float((soft[:, patch_maps.rim_of(1)] > 0.5).mean())
        worth[name] *= alike_together(soft, fixed) if fixed else 1.0
    chosen = max(worth, key=lambda name: worth[name])
    soft = softs[chosen]
    anywhere = self_train(z, soft, rng, place=0.0)
    if outlined and fills[chosen] < FILLS:
        masks, rows = outlines(squares, soft, anywhere(z), poses, outline)
    else:
        masks, rows = outlines(squares, soft, anywhere(z), None, thresholded)
    shares = np.stack([cv2.resize(m.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA) for m in masks])
    finder = PatchFinder(basis, self_train(z, shares, rng, rounds=1), self_train(z, shares, rng, place=0.0, rounds=1))
    others = [iou(s > 0.5, soft > 0.5) for name, s in softs.items() if name != chosen]
    logs = np.log([max(row["area"], 1e-5) for row in rows])
    signs = {
        "edge": float(np.median([on_edges(masks[i], squares[i]) for i in some])),
        "maps": float(np.mean(others)),
        "head": heads[chosen],
        "stability": float(np.mean([row["stability"] for row in rows])),
        "agreement": float(np.mean([row["agreement"] for row in rows])),
        "registration": poses.score if poses is not None else 0.0,
        "area": float(np.exp(np.median(logs))),
        "spread": _spread(logs),
        "figure": float(np.median(figure.max((1, 2)))),
        "doubt": doubt,
        "together": alike_together(soft, fixed) if fixed else UNKNOWN,
        "rim": float(np.mean([on_rim(mask) for mask in masks])),
    }
    signs["learned"] = float(np.mean([iou(finder(squares[i], features[i])[0], masks[i]) for i in some]))
    return Found(masks, soft, chosen, signs, rows, finder)


def outlines(
    squares: Sequence[np.ndarray],
    soft: np.ndarray,
    placeless: np.ndarray,
    poses: Poses | None,
    draw: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]],
) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """Masks of all photographs and what is known of each, see `Found`; of a fixed camera, by what all say together."""
    raw, rows = [], []
    for square, own, other in zip(squares, soft, placeless, strict=True):
        mask, stable = draw(square, grown(own, square.shape))
        raw.append(mask)
        rows.append({"stability": stable, "agreement": iou(own > 0.5, other > 0.5)})
    masks = raw
    if poses is not None and poses.fixed:
        used, together = set(poses.used().tolist()), consensus(raw, poses)
        masks = [
            clean(TOGETHER * shared + (1 - TOGETHER) * own >= 0.5) if k in used else own
            for k, (shared, own) in enumerate(zip(together, raw, strict=True))
        ]
        for row, mask, own in zip(rows, masks, raw, strict=True):
            row["stability"] = iou(mask, own)
    for row, mask in zip(rows, masks, strict=True):
        row["area"] = float(mask.mean())
    return masks, rows


def on_rim(mask: np.ndarray) -> float:
    """Share of the outermost 8 pixels of a mask that belong to the part."""
    rim = np.ones(mask.shape, bool)
    rim[8:-8, 8:-8] = False
    return float(mask[rim].mean())


def typical(features: Sequence[np.ndarray]) -> int:
    """Index of the photograph most like all others: nearest to the mean of their patches."""
    means = np.stack([f.astype(np.float32).mean((0, 1)) for f in features])
    return int(np.linalg.norm(means - means.mean(0), axis=1).argmin())


def _spread(logs: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(logs - np.median(logs))))
