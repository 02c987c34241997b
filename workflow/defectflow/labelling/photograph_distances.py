"""How far each part of each photograph is from what other photographs show."""

from __future__ import annotations

import tempfile
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
        best = int(distances.argmin())
        return int(self.references[best]) if np.isfinite(distances[best]) else None


def compare(
    files: Sequence[PatchFile],
    groups: Mapping[str, str],
    among: Sequence[str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Compared:
    """Compare photographs that show the part.

    Args:
        files: patch files of all shards.
        groups: group of each photograph to compare, by image_id; "" for none. With ENOUGH_GROUPS of them, none of which
            holds more than a third of the photographs, no photograph is compared with one of its own group.
        among: image_ids of the references, of which at most REFERENCES are drawn; None: all.
        seed: of that draw.
        folder: where a temporary file may lie, 75 kB for each photograph; None: where the system has them.
    """
    places = {
        item["image_id"]: (file, i)
        for file in files
        for i, item in enumerate(file.items)
        if item["image_id"] in groups and not item["copy_of"] and file.present[i]
    }
    names = sorted(places)
    row_of = {name: row for row, name in enumerate(names)}
    drawn = order((name for name in (names if among is None else among) if name in row_of), seed)[:REFERENCES]
    references = np.array(sorted(row_of[name] for name in drawn), int)
    bank, norms = _padded([_cells(*places[names[row]]) for row in references])
    own = np.array([groups[name] for name in names], object)
    sizes = {name: int((own == name).sum()) for name in set(own) - {""}}
    apart = len(sizes) >= ENOUGH_GROUPS and 3 * max(sizes.values()) <= len(names)

    def distances(name: str) -> np.ndarray:
        cells = _cells(*places[name])
        squares = norms - 2 * product(cells, bank)
        nearest = squares.view(len(cells), len(references), -1).amin(dim=2) + cells.square().sum(dim=1, keepdim=True)
        found: np.ndarray = nearest.clamp_min_(0).sqrt_().numpy()
        return found

    # On disk: 75 kB for a photograph.
    shape = (len(names), SIDE * SIDE, len(references))
    with tempfile.TemporaryFile(dir=folder) as stream:
        cells = np.memmap(stream, np.float16, "w+", shape=shape) if 0 not in shape else np.empty(shape, np.float16)
    whole = np.full((len(names), len(references)), np.inf, np.float32)
    found = in_threads(distances, names) if len(references) else ()
    for row, own_cells in enumerate(tqdm(found, total=len(names), desc="compare", unit="image")):
        same = references == row
        if apart and own[row]:
            same |= own[references] == own[row]
        own_cells[:, same] = np.inf
        cells[row] = np.nan
        cells[row, : len(own_cells)] = own_cells
        whole[row] = own_cells.mean(axis=0)
    return Compared(names, references, cells, whole)


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
    """All cells one after the other, as many of each photograph, float32 (r * c, d), and their squared norms (r * c,).

    A cell that fills up has an infinite norm: it is nearest to nothing.
    """
    if not photographs:
        return torch.empty(0, 1), torch.empty(0)
    most = max(map(len, photographs))
    bank = torch.zeros(len(photographs), most, photographs[0].shape[1])
    norms = torch.full((len(photographs), most), torch.inf)
    for row, cells in enumerate(photographs):
        bank[row, : len(cells)] = cells
        norms[row, : len(cells)] = cells.square().sum(dim=1)
    return bank.flatten(0, 1), norms.flatten()
