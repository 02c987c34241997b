"""Settings of isolation and of its varied copies. Standard library only: the Snakefile imports this module."""

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
        REQUIRED, "outside the part: as it is, black, or the part's mean colour", stage="isolate"
    )
    normalise: list[Literal["none", "brightness", "gray_world", "contrast", "clahe"]] = setting(
        ["none"], "steps in order: even out brightness (of the part), colour cast, contrast", least=1, stage="isolate"
    )
    crop: bool = setting(
        False, "whether to cut a window around the part, the same share of every frame", stage="isolate"
    )
    tight: int | None = setting(
        None, "side of the square that the box of each part is scaled to, whatever its distance (instead of crop)",
        unit="pixels", minimum=32, maximum=4096, stage="isolate",
        read_if=lambda settings: not settings.crop, refused="'tight' is not read with crop: true (choose one)",
    )  # fmt: skip
    upright: bool = setting(
        False, "whether to turn a part with a clear axis so that this stands upright, its heavier end down",
        stage="isolate", read_if=lambda settings: settings.tight is not None,
        refused="'upright' is read with tight only (leave it out)",
    )  # fmt: skip
    margin: float = setting(
        0.03, "share of the window added on each side of it", minimum=0, maximum=1, stage="isolate",
        read_if=lambda settings: settings.cuts, refused="'margin' is read with crop: true or tight only (leave it out)",
    )  # fmt: skip
    dilate: int = setting(
        0, "what the mask is grown by", unit="pixels", minimum=0, maximum=200, stage="isolate",
        read_if=lambda settings: not settings.keeps_all,
        refused="'dilate' is not read where nothing is cut (leave it out)",
    )  # fmt: skip

    @property
    def cuts(self) -> bool:
        """Whether a window is cut out of the photograph."""
        return self.crop or self.tight is not None

    @property
    def keeps_all(self) -> bool:
        """Whether the whole photograph stays as it is."""
        return self.background == "keep" and self.normalise == ["none"] and not self.cuts


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Weakly varied copies: of good images to learn from, and of labelled ones to test robustness."""

    section: ClassVar[str] = "augmentation"

    copies: int = setting(0, "copies of each good training image", minimum=0, maximum=20, stage="augment")
    robustness: list[float] = setting(
        [], "strengths of perturbed copies of labelled images, in units of what follows", above=0, maximum=10,
        distinct=True, stage="augment",
    )  # fmt: skip
    rotate: float = setting(5, "largest rotation", unit="degrees", minimum=0, maximum=180, stage="augment")
    translate: float = setting(0.03, "largest shift, share of the side", minimum=0, maximum=0.5, stage="augment")
    brightness: float = setting(0.1, "largest change, share of full scale", minimum=0, maximum=1, stage="augment")
    contrast: float = setting(0.1, "largest change, as a share", minimum=0, maximum=1, stage="augment")
    blur: int = setting(
        3, "largest side of the blurring kernel, 0 for none", unit="pixels", minimum=0, maximum=31, stage="augment"
    )
