"""Settings of isolation and augmentation. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.config.settings import Settings, setting
from defectflow.config.values import REQUIRED


@dataclass(frozen=True, kw_only=True)
class IsolationSettings(Settings):
    """What the detector sees."""

    section: ClassVar[str] = "isolations"
    by_name: ClassVar[bool] = True

    background: Literal["keep", "zero", "mean"] = setting(
        REQUIRED, "pixels outside the part: unchanged, black, or the part's mean colour", stage="isolate"
    )
    normalise: list[Literal["none", "brightness", "gray_world", "contrast", "clahe"]] = setting(
        ["none"],
        "steps in order: normalise brightness (of the part), colour cast, contrast",
        least=1,
        distinct=True,
        stage="isolate",
    )
    crop: bool = setting(
        False, "whether to cut a window around the part, of the same share of every frame", stage="isolate"
    )
    tight: int | None = setting(
        None, "side of the square to which the box of each part is scaled (instead of crop)",
        unit="pixels", minimum=32, maximum=4096, stage="isolate",
        read_if=lambda settings: not settings.crop, refused="'tight' is not read with crop: true (choose one)",
    )  # fmt: skip
    upright: bool = setting(
        False, "whether to rotate a part with a clear axis upright, its heavier end down",
        stage="isolate", read_if=lambda settings: settings.tight is not None,
        refused="'upright' is only read with tight (leave it out)",
    )  # fmt: skip
    margin: float = setting(
        0.03, "share of the window added on each side", minimum=0, maximum=1, stage="isolate",
        read_if=lambda settings: settings.cuts, refused="'margin' is only read with crop: true or tight (leave it out)",
    )  # fmt: skip
    dilate: int = setting(
        0, "by how much the mask is dilated", unit="pixels", minimum=0, maximum=200, stage="isolate",
        read_if=lambda settings: not settings.keeps_all,
        refused="'dilate' is not read if the photograph is left unchanged (leave it out)",
    )  # fmt: skip

    @property
    def cuts(self) -> bool:
        """Whether a window is cut out of the photograph."""
        return self.crop or self.tight is not None

    @property
    def keeps_all(self) -> bool:
        """Whether the whole photograph is left unchanged."""
        return self.background == "keep" and self.normalise == ["none"] and not self.cuts


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Weak augmentation: copies of good images for training, and of labelled ones to test robustness."""

    section: ClassVar[str] = "augmentation"

    copies: int = setting(0, "copies of each good training image", minimum=0, maximum=20, stage="augment")
    robustness: list[float] = setting(
        [], "strengths of perturbed copies of labelled images, in units of the values below", above=0, maximum=10,
        distinct=True, stage="augment",
    )  # fmt: skip
    synthetic: int = setting(
        0, "defects of each kind drawn on each judged good image: an indicator of recall, see docs/verdicts.md",
        minimum=0, maximum=20, stage="augment",
    )  # fmt: skip
    rotate: float = setting(5, "largest rotation", unit="degrees", minimum=0, maximum=180, stage="augment")
    translate: float = setting(0.03, "largest shift, share of the side", minimum=0, maximum=0.5, stage="augment")
    brightness: float = setting(0.1, "largest change, share of full scale", minimum=0, maximum=1, stage="augment")
    contrast: float = setting(0.1, "largest change, as a share", minimum=0, maximum=1, stage="augment")
    blur: int = setting(
        3, "largest side of the blurring kernel, 0 for none", unit="pixels", minimum=0, maximum=31, stage="augment"
    )
