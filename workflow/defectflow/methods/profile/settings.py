"""Settings of the profile. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.methods.method_settings import MethodSettings


@dataclass(frozen=True, kw_only=True)
class ProfileSettings(MethodSettings):
    """The outline of the part, as widths along its axis, against that of good parts: geometry alone, no network."""

    name: ClassVar[str] = "profile"
    detector: ClassVar[str] = "defectflow.methods.profile.tolerance_bands.Profile"
    measures_outlines: ClassVar[bool] = True
    not_bundled: ClassVar[str] = "measures outlines, which inspectors do not"
    fixed: ClassVar[dict[str, Any]] = {
        "backbone": "outline", "weights": None, "layers": ["outline"], "center_crop": None, "tiles": None,
        "precision": "float32", "batch_size": "auto", "foreground_only": True,
    }  # fmt: skip

    axis: Literal["vertical", "horizontal", "own"] = setting(
        "vertical", "along what widths are measured: of the picture, so that a tilted part is a deviation; own: the "
        "long axis of each part, for parts that lie in any direction", stage="fit score",
    )  # fmt: skip
    smooth: float = setting(
        0.005, "length along the axis that widths are averaged over (sigma), as a share of the picture's side",
        minimum=0, maximum=0.1, stage="fit score",
    )  # fmt: skip
    certain: float = setting(
        0.25, "how exactly outlines are known, as a share of a pixel of the picture as it is measured; no tolerance is "
        "smaller", above=0, maximum=20, stage="fit",
    )  # fmt: skip
