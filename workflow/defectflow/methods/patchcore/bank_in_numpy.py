"""PatchCore's scoring in numpy: what `memory_bank.PatchCore` says, without torch."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from defectflow.methods.numpy_detector import TABLES, NumpyDetector, Scored, pool, unit
from defectflow.methods.patchcore.known_defects import DEFECTS, GOOD_AFTER_ALL, toward_defects
from defectflow.methods.patchcore.scales import UNITS, Combination, grids_of, of_scale
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.search.nearest_in_numpy import Points

FIRST = 32  # patches that are searched first where the largest value is looked for
LEAST = 20_000  # patches for each thread: fewer are searched by one


class PatchCore(NumpyDetector):
    """`memory_bank.PatchCore` in numpy.

    Args:
        tensors: "" the bank, float (n, d); with "mean" and "axes" where it is stored along principal axes, and
            GOOD_AFTER_ALL and DEFECTS, float (m, d), where people have said that it was wrong. Of several scales
            these of each, by the names of `scales.named`.
        metadata: "distance".
        settings: score, neighbours, top_fraction.
    """

    name = "patchcore"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], settings: PatchCoreSettings):
        self._settings = settings
        grids = grids_of(metadata)
        self.combination = Combination(grids, tensors[UNITS]) if grids else None
        one = {key: value for key, value in metadata.items() if key != "coarser"}
        self._scales = [PatchCore(of_scale(tensors, k), one, settings) for k in range(len(grids))]
        if grids:
            return
        known = {key.removeprefix(TABLES): value for key, value in tensors.items() if key.startswith(TABLES)}
        self._bank = Points(tensors[""].astype(np.float32, copy=False), known or None)
        self._subspace = (tensors["mean"], tensors["axes"]) if "axes" in tensors else None
        self._cosine = metadata["distance"] == "cosine"
        self._good, self._defects = (
            Points(tensors[name].astype(np.float32)) if len(tensors.get(name, ())) else None
            for name in (GOOD_AFTER_ALL, DEFECTS)
        )

    def judge(self, patches: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
        """See `detector.Detector.judge`."""
        if self.combination:
            distances = self.combination.combined(self._of_each_scale(patches, position), position)
            return pool(distances, self._settings), distances
        patches = self.comparable(patches)
        distances, nearest = self._bank.nearest(patches)
        distances = self._taught(patches, self._measure(distances))
        if self._settings.score != "max":
            return pool(distances, self._settings), distances
        winner = int(distances.argmax())
        return self._reweighted(patches[winner], float(distances[winner]), int(nearest[winner])), distances

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """Distance of each patch (p, d) of one scale, float32 (p,)."""
        patches = self.comparable(patches)
        return self._taught(patches, self._measure(self._bank.nearest(patches)[0]))

    def _of_each_scale(self, patches: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
        assert self.combination is not None, "there are several scales"
        parts = zip(self._scales, self.combination.split(position), strict=True)
        return [scale.distances(patches[rows]) for scale, (rows, _) in parts]

    def score(self, patches: np.ndarray, position: np.ndarray) -> Scored:
        """See `NumpyDetector.score`: the largest distance is found without most of the others."""
        if self.combination and self._settings.score == "max":
            return self._score_of_scales(patches, position)
        if self.combination or self._settings.score != "max" or self._good or self._defects:
            return super().score(patches, position)
        patches = self.comparable(patches)
        begun = self._bank.begin(patches)
        found = self._bank.farthest(patches, begun)
        distances = self._measure(found.distances)
        winner = int(distances.argmax())
        patch, nearest = patches[found.rows[winner]], int(found.indices[winner])
        score = self._reweighted(patch, float(distances[winner]), nearest)
        return Scored(score, self._measure(found.bounds), lambda: self._measure(self._bank.nearest(patches, begun)[0]))

    def _score_of_scales(self, patches: np.ndarray, position: np.ndarray) -> Scored:
        """The largest value of the map of all scales: at the finest, only patches that may have it are searched."""
        assert self.combination is not None, "there are several scales"
        combined = self.combination.combined
        (finest, *_), ((rows, _), *parts) = self._scales, list(self.combination.split(position))
        known = [scale.distances(patches[own]) for scale, (own, _) in zip(self._scales[1:], parts, strict=True)]
        bank, queries = finest._bank, finest.comparable(patches[rows])
        # Of an upper bound, what was taught makes an upper bound again: it grows with the distance.
        bounds = finest._taught(queries, finest._measure(np.sqrt(bank.begin(queries).reached)))
        upper, measured = combined([bounds, *known], position), np.zeros(len(queries), bool)
        wanted = FIRST
        while not measured.any() or upper[measured].max() < upper.max():
            some = np.argsort(np.where(measured, -np.inf, upper))[-wanted:]
            bounds[some] = finest._taught(queries[some], finest._measure(bank.nearest(queries[some])[0]))
            measured[some] = True
            upper, wanted = combined([bounds, *known], position), 2 * wanted

        def distances() -> np.ndarray:
            parts = np.array_split(queries, max(1, min(self.workers, len(queries) // LEAST)))
            with ThreadPoolExecutor(len(parts)) as pool:
                found = list(pool.map(lambda part: bank.nearest(part)[0], parts))
            exact = finest._taught(queries, finest._measure(np.concatenate(found)))
            return combined([exact, *known], position)

        return Scored(float(upper.max()), upper, distances)

    def farthest(self, patches: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ``count`` patches (all, if there are fewer) that are farthest from the bank, the farthest first.

        Args:
            patches: float32 (p, d).
            count: how many.

        Returns:
            Their rows, int64 (k,); their distances, float32 (k,); and float32 (k,), what the re-weighting of the image
            score would multiply these by (1 where the score is not re-weighted).
        """
        patches = self.comparable(patches)
        distances, nearest = self._bank.nearest(patches)
        distances = self._measure(distances)
        rows = np.argsort(-distances, kind="stable")[:count]
        weights = np.ones(len(rows), np.float32)
        if self._settings.score == "max":
            weights[:] = [self._reweighted(patches[row], 1.0, int(nearest[row])) for row in rows]
        return rows, distances[rows], weights

    def tables(self) -> dict[str, np.ndarray]:
        """See `NumpyDetector.tables`; none of several scales."""
        return {} if self.combination else {f"{TABLES}{key}": value for key, value in self._bank.tables().items()}

    def deciding(self, patches: np.ndarray, position: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As `farthest` for several scales: the patches of all scales that the largest values of the map come from.

        Args:
            patches, position: see `judge`.
            count: values of the map.

        Returns:
            Their rows, int64 (k,) ascending, and their distances at their own scale, float32 (k,).
        """
        assert self.combination is not None, "there are several scales"
        found = self._of_each_scale(patches, position)
        heat = self.combination.combined(found, position)
        chosen = np.zeros(len(heat), bool)
        chosen[np.argsort(-heat, kind="stable")[:count]] = True
        rows = np.flatnonzero(self.combination.sources(chosen, position))
        return rows, np.concatenate(found)[rows]

    def judged(self, position: np.ndarray) -> int:
        """How many of the patches at ``position`` have a place in the map: all, or those of the finest scale."""
        return len(next(self.combination.split(position))[1]) if self.combination else len(position)

    @property
    def scales(self) -> list["PatchCore"]:
        """The bank of each scale, the finest first; itself where there is but one."""
        return self._scales or [self]

    @property
    def size(self) -> int:
        """Number of patches in the bank of one scale."""
        return len(self._bank.points)

    @property
    def dimensions(self) -> int:
        """Of the patches in the bank of one scale."""
        return int(self._bank.points.shape[1])

    def between(self, patches: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Distance of each patch (p, d) to the nearest of others (m, d), m >= 1, all `comparable`: float32 (p,)."""
        return self._measure(Points(others).nearest(patches)[0])

    def _taught(self, patches: np.ndarray, distances: np.ndarray) -> np.ndarray:
        if self._good:
            distances = np.minimum(distances, self._measure(self._good.nearest(patches)[0]))
        if self._defects:
            distances = toward_defects(distances, self._measure(self._defects.nearest(patches)[0]))
        return distances

    def comparable(self, patches: np.ndarray) -> np.ndarray:
        """Patches (p, d) in the coordinates of the bank."""
        patches = self.unprojected(patches)
        if self._subspace:
            mean, axes = self._subspace
            patches = (patches - mean) @ axes
        return patches

    def unprojected(self, patches: np.ndarray) -> np.ndarray:
        """Patches (p, d) whose Euclidean distances stand for that of the bank, before they are laid on its axes."""
        return unit(patches) if self._cosine else patches

    def _measure(self, euclidean: np.ndarray) -> np.ndarray:
        return np.square(euclidean) / 2 if self._cosine else euclidean

    def _reweighted(self, patch: np.ndarray, distance: float, nearest: int) -> float:
        """Equation 7 of the paper; see `memory_bank.Bank.reweighted`."""
        points = self._bank.points
        if min(self._settings.neighbours, len(points)) == 1:
            return distance
        support = self._bank.around(nearest, min(self._settings.neighbours, len(points)))
        distances = self._measure(np.linalg.norm(points[support] - patch, axis=1))
        weights = np.exp(distances - distances.max())
        return float((1 - weights[0] / weights.sum()) * distance)
