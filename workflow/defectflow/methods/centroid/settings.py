"""Settings of the centroid. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar

from defectflow.config.settings import setting
from defectflow.methods.method_settings import MethodSettings


@dataclass(frozen=True, kw_only=True)
class CentroidSettings(MethodSettings):
    """1 - cos to the mean good embedding."""

    name: ClassVar[str] = "centroid"
    detector: ClassVar[str] = "defectflow.methods.centroid.centroid.Centroid"

    max_patches: int = setting(
        2_000_000, "above this number of patches places are learned from fewer images", minimum=1, stage="fit"
    )
