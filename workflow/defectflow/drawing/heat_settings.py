"""How heat is drawn: colours, where they end, how much of the photograph shines through.

Standard library only: the Snakefile imports this module.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.config.settings import Settings, setting
from defectflow.core.files import UserError

# Of drawn pictures, by kind: heatmaps hold values, the others a photograph, which takes a fifth of the space as JPEG.
SUFFIX = {"heatmaps": ".png", "overlays": ".jpg", "triptychs": ".jpg"}


@dataclass(frozen=True, kw_only=True)
class Look(Settings):
    """How anomaly maps look; none of it changes a figure, a verdict, an outline or a box."""

    section: ClassVar[str] = "drawing"
    formerly: ClassVar[str] = "pictures"

    colours: Literal["inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "gray"] = setting(
        "inferno", "matplotlib's colour map; the first five are safe for the colour-blind and in print", stage="render"
    )
    vmax_quantile: float = setting(
        0.999, "quantile of all maps of the run that gets the last colour", above=0, maximum=1, formerly="clip_q",
        stage="render",
    )  # fmt: skip
    gamma: float = setting(1.0, "exponent on the heat; below 1 lifts what is faint", above=0, stage="render")
    blur: float = setting(
        0.0, "sigma of another Gaussian on the heat, at a longer side of 256", unit="pixels", minimum=0, stage="render"
    )
    alpha_mode: Literal["excess", "heat", "constant"] = setting(
        "excess", "where overlays show heat: above the level of good images, by its colour, or all of it alike",
        stage="render",
    )  # fmt: skip
    alpha_min: float = setting(0.0, "opacity where heat begins", minimum=0, maximum=1, stage="render")
    alpha_max: float = setting(
        0.6, "opacity where it is full, at the level of the outlines", minimum=0, maximum=1, stage="render"
    )
    opacity: float = setting(
        1.0, "opacity of all heat together; 0 leaves the outlines alone", minimum=0, maximum=1, stage="render"
    )
    triptychs: bool = setting(False, "whether to write photograph, masks and heatmap side by side")

    def check(self, where: str) -> None:
        """Refuse heat that is less opaque where it is full than where it begins."""
        if self.alpha_min > self.alpha_max:
            raise UserError(
                f"{where}: alpha_min {self.alpha_min:g} must be from 0 to alpha_max, {self.alpha_max:g} "
                "(make the one smaller or the other larger)"
            )
