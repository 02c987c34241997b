"""Settings of the pixel difference. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar

from defectflow.methods.method_settings import PooledSettings


@dataclass(frozen=True, kw_only=True)
class PixelDifferenceSettings(PooledSettings):
    """Difference from the mean good picture: no network, so that only the size of the picture can be set."""

    name: ClassVar[str] = "pixel_difference"
    detector: ClassVar[str] = "defectflow.methods.pixel_difference.PixelDifference"
    not_bundled: ClassVar[str] = "is only a baseline for comparison, not an inspector"
    fixed: ClassVar[dict[str, Any]] = {
        "backbone": "pixels", "weights": None, "layers": ["layer2", "layer3"], "precision": "float32",
        "batch_size": "auto", "foreground_only": False,
    }  # fmt: skip
