"""What the patch features of a picture depend on: its size, and the network with its layers.

Standard library only: the Snakefile imports this module.
"""

from dataclasses import dataclass
from typing import Literal

from defectflow.config.settings import Settings, setting
from defectflow.core.files import UserError


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """What turns a picture into patch features."""

    backbone: str = setting("patch-nano", "patch-nano (included), or a timm name with its tag", stage="features")
    weights: str | None = setting(
        None, "local file with that backbone's weights, with timm's names or the original ones"
    )
    layers: list[str] = setting(
        ["layer2", "layer3"], "feature modules of the network, lowest first", least=1, stage="features"
    )
    image_size: list[int] | int = setting(
        512, "side of the square that the picture is fitted into, shorter side of a long picture; of patchcore also a "
        "list: several scales, each with a memory bank", unit="pixels", minimum=64, maximum=4096, least=1,
        distinct=True, stage="features",
    )  # fmt: skip
    input_shape: Literal["auto", "square"] = setting(
        "auto", "auto: long pictures keep their shape, see docs/detectors.md; square: none does",
        stage="features",
    )  # fmt: skip
    center_crop: int | None = setting(
        None, "side of the square cut from its middle (the paper uses 256 and 224)", unit="pixels", minimum=32,
        maximum=4096, stage="features",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "number format that the network computes in", stage="features"
    )
    batch_size: int | Literal["auto"] = setting(
        "auto", "pictures at a time on a GPU; auto: as many as fit in its memory", minimum=1, stage="features"
    )
    foreground_only: bool = setting(
        True, "whether patches outside the part are left out of bank and score", formerly="object_only",
        stage="features",
    )  # fmt: skip

    @property
    def sizes(self) -> list[int]:
        """Sides of the square at all scales, in pixels, the largest first."""
        return sorted(self.image_size, reverse=True) if isinstance(self.image_size, list) else [self.image_size]

    def check(self, where: str) -> None:
        """Refuse a crop that is larger than the picture, and scales that the largest cannot be reduced to."""
        largest = self.sizes[0]
        for size in self.sizes[1:]:
            if largest % size:
                raise UserError(
                    f"{where}: image_size {size} is no whole fraction of {largest} (choose {largest // 2}, for example)"
                )
        if self.center_crop and len(self.sizes) > 1:
            raise UserError(f"{where}: center_crop is for one image_size (leave it out, or give one image_size)")
        if self.center_crop and self.center_crop > largest:
            raise UserError(
                f"{where}: center_crop {self.center_crop} is larger than image_size {largest} "
                "(make the one smaller or the other larger)"
            )
