"""How far each part of each photograph is from what other photographs show."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from defectflow.core.device import product
from defectflow.core.parallel import in_threads
from defectflow.data.folds_and_holdout import order
from defectflow.detection.feature_files import PatchFile

SIDE = 16  # cells along the longer side of the grid: patches are averaged within each
REFERENCES = 150  # photographs that all others are compared with, at most
ENOUGH_GROUPS = 5  # from which photographs are not compared with those of their own group


@dataclass(frozen=True)
class Compared:
    """Distances between photographs, cell by cell.

    Attributes:
        image_ids: of the photographs, n of them.
        references: row of each of the r photographs that all are compared with.
        cells: float16 (n, c, r), distance of each cell of a photograph to the nearest cell of a reference; NaN where a
            photograph has no such cell, infinity for the photograph itself and for others of its group.
        whole: float32 (n, r), mean of these over the cells of a photograph; infinity as in ``cells``.
    """

    image_ids: Sequence[str]
    references: np.ndarray
    cells: np.ndarray
    whole: np.ndarray

    def farthest_cell(self, among: np.ndarray, rank: Callable[[int], int]) -> np.ndarray:
        """For each photograph the cell that is farthest from what other photographs show.

        Args:
            among: bool (r,), the references that count.
            rank: which one's distance counts, 1 for the nearest reference, as a function of how many there are.

        Returns:
            float (n,), NaN where no other reference is left to compare with.
        """
        result = np.full(len(self.image_ids), np.nan)
        for row in range(len(result)):
            others = among & np.isfinite(self.whole[row])
            if count := int(others.sum()):
                distances = self.cells[row][:, others]
                k = min(max(rank(count), 1), count) - 1
                result[row] = np.nanmax(np.partition(distances, k, axis=1)[:, k])
        return result

    def nearest(self, row: int, among: np.ndarray) -> int | None:
        """Row of the reference that looks most like a photograph; ``among``: bool (r,). None: there is no other."""
        distances = np.where(among, self.whole[row], np.inf)
        if not np.isfinite(distances).any():
            return None
        return int(self.references[int(distances.argmin())])


class References:
    """Photographs that others are compared with, and the photographs to compare: those that show the part.

    Args:
        files: patch files of all shards.
        groups: group of each photograph to compare, by image_id; "" for none. With ENOUGH_GROUPS of them, none of which
            holds more than a third of the photographs, no photograph is compared with one of its own group.
        among: image_ids of the references, of which at most REFERENCES are drawn; None: all.
        seed: of that draw.

    Attributes:
        image_ids: of the photographs to compare, sorted.
        names: of the references, sorted.
    """

    def __init__(
        self, files: Sequence[PatchFile], groups: Mapping[str, str], among: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        self._places = {
            item["image_id"]: (file, i)
            for file in files
            for i, item in enumerate(file.items)
            if item["image_id"] in groups and not item["copy_of"] and file.present[i]
        }
        self.image_ids = sorted(self._places)
        known = self._places.keys()
        drawn = (name for name in (self.image_ids if among is None else among) if name in known)
        self.names = sorted(order(drawn, seed)[:REFERENCES])
        self._bank, self._norms = _padded([_cells(*self._places[name]) for name in self.names])
        self._seed, self._groups = seed, {name: groups[name] for name in self.image_ids}
        sizes = Counter(group for group in self._groups.values() if group)
        self._apart = len(sizes) >= ENOUGH_GROUPS and 3 * max(sizes.values()) <= len(self.image_ids)

    def some(self, most: int) -> list[str]:
        """At most ``most`` of the photographs, sorted: the references, and others drawn."""
        others = order((name for name in self.image_ids if name not in set(self.names)), self._seed)
        return sorted([*self.names, *others[: max(0, most - len(self.names))]])

    def compare(self, names: Sequence[str], folder: str | Path | None = None) -> Compared:
        """Distances of some photographs, sorted, the references among them, from all references.

        Args:
            names: their image_ids.
            folder: where a temporary file may lie, 75 kB for each photograph; None: where the system has them.
        """
        row_of = {name: row for row, name in enumerate(names)}
        # On disk: 75 kB for a photograph.
        shape = (len(names), SIDE * SIDE, len(self.names))
        with tempfile.TemporaryFile(dir=folder) as stream:
            cells = np.memmap(stream, np.float16, "w+", shape=shape) if 0 not in shape else np.empty(shape, np.float16)
        whole = np.full((len(names), len(self.names)), np.inf, np.float32)
        found = in_threads(self._distances, names) if self.names else ()
        for row, own_cells in enumerate(tqdm(found, total=len(names), desc="compare", unit="image")):
            cells[row] = np.nan
            cells[row, : len(own_cells)] = own_cells
            whole[row] = own_cells.mean(axis=0)
        return Compared(names, np.array([row_of[name] for name in self.names], int), cells, whole)

    def farthest_cells(self, names: Sequence[str], among: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Of each of some photographs `Compared.farthest_cell` with the nearest reference, and `Compared.nearest`.

        Nothing is kept of a photograph but these two.

        Args:
            names: their image_ids.
            among: bool (r,), the references that count.

        Returns:
            float (n,), NaN where no other reference is left to compare with; and image_ids, "" there.
        """
        score, nearest = np.full(len(names), np.nan), [""] * len(names)
        columns = np.flatnonzero(among)
        some = self._bank[columns], self._norms[columns], [self.names[column] for column in columns]
        found = in_threads(lambda name: self._distances(name, some), names) if len(columns) else ()
        for row, cells in enumerate(tqdm(found, total=len(names), desc="compare", unit="image")):
            whole = cells.mean(axis=0)
            if np.isfinite(whole).any():
                score[row] = cells.min(axis=1).astype(np.float16).max()
                nearest[row] = self.names[columns[int(whole.argmin())]]
        return score, nearest

    def _distances(self, name: str, some: tuple[torch.Tensor, torch.Tensor, list[str]] | None = None) -> np.ndarray:
        """Of each cell of a photograph to the nearest one of each reference, or of ``some``: float32 (c, r)."""
        bank, norms, others = some or (self._bank, self._norms, self.names)
        cells = _cells(*self._places[name])
        squares = norms.flatten() - 2 * product(cells, bank.flatten(0, 1))
        nearest = squares.view(len(cells), len(others), -1).amin(dim=2) + cells.square().sum(dim=1, keepdim=True)
        found: np.ndarray = nearest.clamp_min_(0).sqrt_().numpy()
        group = self._groups[name] if self._apart else ""
        found[:, [other == name or bool(group and self._groups[other] == group) for other in others]] = np.inf
        return found


def compare(
    files: Sequence[PatchFile],
    groups: Mapping[str, str],
    among: Sequence[str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Compared:
    """Compare all photographs that show the part; arguments as of `References` and its `compare`."""
    references = References(files, groups, among, seed)
    return references.compare(references.image_ids, folder)


def _cells(file: PatchFile, item: int) -> torch.Tensor:
    """Patches of a photograph averaged over cells of the grid, float32 (c, d); cells without a patch are left out."""
    height, width = file.config["grid"]
    step = -(-max(height, width) // SIDE)
    position, patches = file.position(item), file.patches(item)
    finest = position < height * width  # of several scales
    position, patches = position[finest], patches[finest]
    cell = position // width // step * SIDE + position % width // step
    found, inverse = cell.unique(return_inverse=True)
    sums = torch.zeros(len(found), patches.shape[1]).index_add_(0, inverse, patches)
    return sums / torch.bincount(inverse)[:, None]


def _padded(photographs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells of each photograph, as many of each, float32 (r, c, d), and their squared norms (r, c).

    A cell that fills up has an infinite norm: it is nearest to nothing.
    """
    if not photographs:
        return torch.empty(0, 0, 1), torch.empty(0, 0)
    most = max(map(len, photographs))
    bank = torch.zeros(len(photographs), most, photographs[0].shape[1])
    norms = torch.full((len(photographs), most), torch.inf)
    for row, cells in enumerate(photographs):
        bank[row, : len(cells)] = cells
        norms[row, : len(cells)] = cells.square().sum(dim=1)
    return bank, norms
