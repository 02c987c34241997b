"""Maps of a whole set of photographs on a grid of patches: shared clusters, rarity against the rim, smooth figure."""

import numpy as np
from scipy.cluster.vq import kmeans2

from defectflow.parts.patch_finder import GRID, SAMPLE

CLUSTERS, RESTARTS = (24, 40), 2
KNOWN = 1000  # patches of the rims that others are compared with


def rim_of(width: int) -> np.ndarray:
    """The outermost ``width`` patches of a picture, bool (GRID, GRID)."""
    rim = np.ones((GRID, GRID), bool)
    rim[width:-width, width:-width] = False
    return rim


def clusters(z: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means of the set's patches (n, GRID, GRID, DIMS), fitted on SAMPLE of them: cluster of each (n, GRID, GRID)."""
    flat = z.reshape(-1, z.shape[-1])
    some = flat[np.random.default_rng(seed).permutation(len(flat))[:SAMPLE]]
    centres = kmeans2(some, count, iter=15, minit="++", seed=seed)[0]
    half = (centres**2).sum(1) / 2
    parts = np.array_split(flat, 1 + len(flat) // 16384)
    return np.concatenate([(half - p @ centres.T).argmin(1) for p in parts]).reshape(z.shape[:3])


def shared_clusters(z: np.ndarray, seed: int) -> np.ndarray:
    """How rare the cluster of each patch is on the rim, times the share of photographs that have it; in [0, 1]."""
    rim, out = rim_of(1), np.zeros(z.shape[:3], np.float32)
    for turn in range(RESTARTS):
        own = clusters(z, CLUSTERS[0], seed + turn)
        on, everywhere = (np.bincount(a.ravel(), minlength=CLUSTERS[0]) for a in (own[:, rim], own))
        present = np.array([(own == c).any((1, 2)).mean() for c in range(CLUSTERS[0])])
        out += (np.clip(1 - (on + 1) / (everywhere + 20) / rim.mean(), 0, 1) * present)[own]
    return out / RESTARTS


def cluster_mean(z: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    """``values`` (n, GRID, GRID), averaged over each cluster of the set's patches; the largest is 1."""
    out = np.zeros(values.shape, np.float32)
    for turn in range(RESTARTS):
        own = clusters(z, CLUSTERS[1], seed + turn)
        total, count = (
            np.bincount(own.ravel(), values.ravel(), CLUSTERS[1]),
            np.bincount(own.ravel(), None, CLUSTERS[1]),
        )
        out += (total / np.maximum(count, 1))[own]
    return out / max(float(out.max()), 1e-6)


def rarity(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance of each patch to the nearest of the patches on the rims of all photographs, in [0, 1]."""
    flat, on_rim = z.reshape(-1, z.shape[-1]), z[:, rim_of(2)].reshape(-1, z.shape[-1])
    known = on_rim[rng.permutation(len(on_rim))[:KNOWN]]
    half = (known**2).sum(1) / 2
    parts = np.array_split(flat, 1 + len(flat) // 4096)
    nearest = [(half - p @ known.T).min(1) * 2 + (p**2).sum(1) for p in parts]
    distance = np.sqrt(np.concatenate(nearest).clip(0)).reshape(z.shape[:3])
    return scaled(distance - np.quantile(distance[:, rim_of(2)], 0.5)).astype(np.float32)


def scaled(values: np.ndarray) -> np.ndarray:
    """Values divided by their 99.5 % quantile, limited to [0, 1]."""
    limited: np.ndarray = np.clip(values / (np.quantile(values, 0.995) + 1e-6), 0, 1)
    return limited
