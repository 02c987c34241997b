"""The detector `profile`: how far the outline of a part leaves the tolerance band of good parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from defectflow.backbones.backbone_names import PICTURE_CELL
from defectflow.backbones.patch_embedding import picture_of
from defectflow.core.files import UserError
from defectflow.methods.detector import Detector, Fit, GoodPatches
from defectflow.methods.profile.outline import Outline, outline_of
from defectflow.methods.profile.settings import ProfileSettings

SHARED = 4  # good parts that the variance of all stations together counts for in that of each
NEAR = 1.5  # cells from the outline within which a cell shows its deviation


class Profile(Detector):
    """Deviation of the widths of a part from the mean of good parts, in units of what is usual at each station.

    The unit is the standard deviation among good parts at that station and side, drawn towards the median of all
    stations as if that were known from `SHARED` more parts, and never below ``certain`` pixels. The score is the
    largest deviation; the map shows it along the outline.

    Tensors: "" the mean widths, float32 (stations, 2); ``unit``, float32 (stations, 2).
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], settings: ProfileSettings
    ) -> None:
        self.mean, self.unit = (tensors[name].cpu().numpy().astype(float) for name in ("", "unit"))
        height, width = metadata["grid"]
        self._grid, self._settings = (int(height), int(width)), settings

    def judge(self, patches: torch.Tensor, position: torch.Tensor) -> tuple[float, torch.Tensor]:
        """See `Detector.judge`; the distance of a patch is the deviation at its station where the outline is near."""
        found = measured(patches, position, self._grid, self._settings)
        deviation = self.deviation(found)
        rows, columns = np.divmod(position.cpu().numpy(), self._grid[1])
        centres = np.stack([columns + 0.5, rows + 0.5, np.full(len(rows), 1 / PICTURE_CELL)]) * PICTURE_CELL
        centres[:2] -= 0.5
        across, along = found.place @ centres
        stations = np.clip(np.rint(along + (len(self.mean) - 1) / 2), 0, len(self.mean) - 1).astype(int)
        side = (across >= 0).astype(int)
        ends = np.stack([found.widths[stations, side], self.mean[stations, side]])
        reach = NEAR * PICTURE_CELL
        near = (np.abs(across) >= ends.min(axis=0) - reach) & (np.abs(across) <= ends.max(axis=0) + reach)
        distances = np.where(near, deviation[stations, side], 0).astype(np.float32)
        return float(deviation.max()), torch.from_numpy(distances).to(patches.device)

    def deviation(self, found: Outline) -> np.ndarray:
        """How far each width is from the mean, in units: float64 (stations, 2), 0 or more."""
        result: np.ndarray = np.abs(found.widths - self.mean) / self.unit
        return result

    @classmethod
    def fit(
        cls, good: GoodPatches, settings: ProfileSettings, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Fit:
        """Measure all good parts; a bank is the mean and the spread of some of them."""
        found = []
        for number in range(len(good.images)):
            rows = good.rows(torch.arange(len(good.images)) == number)
            found.append(measured(good.patches[rows], good.position[rows], good.grid, settings).widths)
        widths = np.stack(found)

        def bands(kept: torch.Tensor) -> dict[str, torch.Tensor]:
            own = widths[kept.numpy()]
            if len(own) < 2:
                raise UserError("fit: profile needs two good images in each bank (label more, or choose other folds)")
            mean, variance = own.mean(axis=0), own.var(axis=0, ddof=1)
            usual = float(np.median(variance[mean > 1])) if (mean > 1).any() else 0.0
            variance = ((len(own) - 1) * variance + SHARED * usual) / (len(own) - 1 + SHARED)
            unit = np.sqrt(variance + settings.certain**2)
            return {"": torch.from_numpy(mean).float(), "unit": torch.from_numpy(unit).float()}

        return bands


def measured(
    patches: torch.Tensor, position: torch.Tensor, grid: tuple[int, int], settings: ProfileSettings
) -> Outline:
    """The outline of a part from patches of the backbone "outline", float32 (p, 16), and their cells, int64 (p,)."""
    covered = picture_of(patches.cpu(), position.cpu(), grid)[0].numpy()
    return outline_of(covered, settings.axis, settings.smooth * min(covered.shape))
