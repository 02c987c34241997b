"""Which damaged regions get a box. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar

from defectflow.config.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class RegionSettings(Settings):
    """Which regions above the pixel threshold get a box."""

    section: ClassVar[str] = "regions"

    min_area: float = setting(0.0001, "smallest region, share of the photograph", minimum=0, maximum=1, stage="boxes")
    max_area: float = setting(1, "largest region, share of the photograph", minimum=0, maximum=1, stage="boxes")
    merge: float = setting(
        0.01, "regions with a smaller gap become one, share of the longer side", minimum=0, maximum=1, stage="boxes"
    )
    max_aspect: float | None = setting(
        None, "largest length over width of a region; null for no limit", minimum=1, stage="boxes"
    )
