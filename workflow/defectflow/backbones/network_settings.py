"""What the patch features of a picture depend on: its size, and the network with its layers.

Standard library only: the Snakefile imports this module.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, Self

from defectflow.config.settings import Settings, setting
from defectflow.core.files import UserError

OPENVINO_BFLOAT16 = "openvino_bfloat16"  # a precision: bfloat16 as OpenVINO computes it, in the run and the inspector


@dataclass(frozen=True, kw_only=True)
class TileSettings(Settings):
    """Overlapping tiles of large pictures with small defects."""

    size: int = setting(
        1024, "side of a tile, a multiple of 32", unit="pixels", minimum=64, maximum=4096, stage="features"
    )
    overlap: int = setting(
        128, "what neighbouring tiles share at least; there they fade into each other", unit="pixels", minimum=0,
        maximum=1024, stage="features",
    )  # fmt: skip


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
    image_size: list[int] | int | Literal["auto"] = setting(
        512, "side of the square that the picture is fitted into, shorter side of a long picture; of patchcore also a "
        "list: several scales, each with a memory bank; auto: by the size of the part in the pictures of the set",
        unit="pixels", minimum=64, maximum=4096, least=1, distinct=True, stage="features",
    )  # fmt: skip
    input_shape: Literal["auto", "square"] = setting(
        "auto", "auto: long pictures keep their shape, see docs/detectors.md; square: none does",
        stage="features",
    )  # fmt: skip
    tiles: dict[str, Any] | None = setting(
        None, "judge pictures at full resolution in overlapping tiles, and as a whole reduced to image_size",
        stage="features", nested=TileSettings,
    )  # fmt: skip
    center_crop: int | None = setting(
        None, "side of the square cut from its middle (the paper uses 256 and 224)", unit="pixels", minimum=32,
        maximum=4096, stage="features",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16", "openvino_bfloat16"] = setting(
        "float32", "number format that the network computes in, by PyTorch or by OpenVINO", stage="features"
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
        """Sides of the square at all scales, in pixels, the largest first; [512] for auto until the set is known."""
        if self.image_size == "auto":
            return [512]
        return sorted(self.image_size, reverse=True) if isinstance(self.image_size, list) else [self.image_size]

    def of_set(self, side: int) -> Self:
        """These settings with a size in place of auto."""
        found = copy(self)
        object.__setattr__(found, "image_size", side)
        return found

    @property
    def tiling(self) -> TileSettings | None:
        """The settings of the tiles; None where there are none."""
        return None if self.tiles is None else TileSettings.from_dict(self.tiles, "tiles")

    def check(self, where: str) -> None:
        """Refuse a crop larger than the picture, scales that the largest cannot be reduced to, and such tiles."""
        largest = self.sizes[0]
        if self.image_size == "auto" and self.center_crop:
            raise UserError(f"{where}: center_crop is for an image_size that is a number (leave it out, or give one)")
        if self.tiling:
            self._check_tiles(where, self.tiling)
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

    def _check_tiles(self, where: str, tiles: TileSettings) -> None:
        if len(self.sizes) > 1 or self.center_crop or self.image_size == "auto":
            raise UserError(f"{where}: tiles take one image_size and no center_crop (leave the others out)")
        if self.backbone == "pixels":
            raise UserError(f"{where}: tiles are for a network (leave them out)")
        if tiles.size % 32:
            best = tiles.size // 32 * 32
            raise UserError(f"{where}.tiles: size {tiles.size} is no multiple of 32 (choose {best})")
        if tiles.overlap * 2 > tiles.size:
            best = tiles.size // 8
            raise UserError(
                f"{where}.tiles: overlap {tiles.overlap} is more than half of size {tiles.size} (choose {best})"
            )
