"""Which damaged regions get a box, and who outlines them. Standard library only: the Snakefile imports this module."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from defectflow.config.settings import Settings, setting
from defectflow.config.values import ABSENT
from defectflow.core.files import UserError

LEAST_MARKED = 5  # bad photographs with a ground-truth mask, to learn outlines from and to compare them


@dataclass(frozen=True, kw_only=True)
class RegionSettings(Settings):
    """Which regions above the pixel threshold get a box, and whether a network draws their outlines."""

    section: ClassVar[str] = "regions"

    min_area: float = setting(0.0001, "smallest region, share of the photograph", minimum=0, maximum=1, stage="boxes")
    max_area: float = setting(1, "largest region, share of the photograph", minimum=0, maximum=1, stage="boxes")
    merge: float = setting(
        0.01, "regions with a smaller gap become one, share of the longer side", minimum=0, maximum=1, stage="boxes"
    )
    max_aspect: float | None = setting(
        None, "largest length over width of a region; null for no limit", minimum=1, stage="boxes"
    )
    refine: Literal["sam"] | None = setting(
        ABSENT, "sam: finer outlines by SAM 2.1, fine-tuned on the ground-truth masks of the set", stage="refine"
    )
    sam_model: Literal["sam2.1_hiera_t", "sam2.1_hiera_s", "sam2.1_hiera_b+", "sam2.1_hiera_l"] | None = setting(
        ABSENT, "size of an official checkpoint; without it our own small network with included weights",
        stage="refine", read_if=lambda settings: settings.refine == "sam",
        refused="sam_model is of use with refine: sam only (add it)",
    )  # fmt: skip
    sam_checkpoint: str | None = setting(
        ABSENT, "local file of an official checkpoint", stage="refine",
        read_if=lambda settings: settings.refine == "sam",
        refused="sam_checkpoint is of use with refine: sam only (add it)",
    )  # fmt: skip

    def check(self, where: str) -> None:
        """Refuse the size of a checkpoint without the file, and a file without its size."""
        if bool(self.sam_model) != bool(self.sam_checkpoint):
            raise UserError(f"{where}: sam_model and sam_checkpoint go together (set both, or neither)")

    def check_refinable(self, marked: Mapping[str, int]) -> None:
        """Refuse to refine regions without the named checkpoint, or in a set with too few ground-truth masks.

        Args:
            marked: number of bad photographs with a ground-truth mask, by data set.

        Raises:
            UserError: one line with the key and the remedy.
        """
        if not self.refine:
            return
        if self.sam_checkpoint and not Path(self.sam_checkpoint).is_file():
            raise UserError(f"{self.sam_checkpoint}: no such file (config.yaml names it under regions.sam_checkpoint)")
        for name, count in marked.items():
            if count < LEAST_MARKED:
                raise UserError(
                    f"config.yaml: regions.refine: sam learns from ground-truth masks of {LEAST_MARKED} or more bad "
                    f"photographs, and data set {name} has {count} (mark defects: data/README.md; or leave refine out)"
                )
