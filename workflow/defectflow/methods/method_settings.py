"""What the settings of all detection methods have, and the register of the methods: by their classes of settings.

Standard library only: the Snakefile imports this module.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.backbones.network_settings import NetworkSettings
from defectflow.config.settings import Family, setting
from defectflow.config.values import ABSENT
from defectflow.core.files import UserError


@dataclass(frozen=True, kw_only=True)
class MethodSettings(NetworkSettings):
    """Base of the settings of a method.

    Attributes of a class:
        detector: dotted name of its `detector.Detector`, which is imported when it is needed.
        several_scales: whether it can judge by more than one `image_size`.
        checked_by: module that checks an entry before the first job, called with its `--settings`; "": none is needed.
        measures_outlines: whether it measures the outline of the part against what is around it.
        not_bundled: why no inspector judges by it; "": one can.
        whole_pictures: whether it judges the pixels of a picture by a network of its own, which inspectors compute
            with torch or as a graph.
    """

    section: ClassVar[str] = "detectors"
    detector: ClassVar[str] = ""
    several_scales: ClassVar[bool] = False
    checked_by: ClassVar[str] = ""
    measures_outlines: ClassVar[bool] = False
    not_bundled: ClassVar[str] = ""
    whole_pictures: ClassVar[bool] = False

    threshold: str | None = setting(ABSENT, "strategy of its own; otherwise that of the whole config")
    threshold_options: dict[str, float] | None = setting(ABSENT, "options of that strategy")

    def check(self, where: str) -> None:
        """Refuse several scales where the method has but one."""
        super().check(where)
        if self.tiles is not None and not self.several_scales:
            raise UserError(f"{where}: method {self.name} does not judge in tiles (leave them out, or use patchcore)")
        if len(self.sizes) > 1 and not self.several_scales:
            raise UserError(f"{where}: method {self.name} takes one image_size, not {self.image_size} (give a number)")


@dataclass(frozen=True, kw_only=True)
class PooledSettings(MethodSettings):
    """Base for methods whose image score is a summary of the distances of patches."""

    score: Literal["max", "top_k_mean", "percentile"] = setting(
        "max", "image score: the largest distance, the mean of the largest ones, or a quantile", stage="score"
    )
    top_fraction: float = setting(
        0.01, "share of the patches that top_k_mean averages; percentile uses the lowest of them", above=0, below=1,
        formerly="top_share",
        stage="score", read_if=lambda settings: settings.score != "max",
        refused="'top_fraction' is only read with score: top_k_mean or percentile (choose one, or leave it out)",
    )  # fmt: skip


METHODS = Family("defectflow.methods.*settings", MethodSettings)
