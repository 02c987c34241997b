"""Settings of methods that learn from whole pictures. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar

from defectflow.config.settings import setting
from defectflow.core.files import UserError
from defectflow.methods.method_settings import MethodSettings

STRIDE = 32  # pixels: what networks halve five times keeps whole numbers


def pools(settings: Any) -> bool:
    """Whether the image score averages or ranks cells of the map, which `top_fraction` is for."""
    return settings.score in ("top_k_mean", "percentile")


@dataclass(frozen=True, kw_only=True)
class PictureSettings(MethodSettings):
    """Base for methods that train a network on the isolated pictures of good photographs.

    Attributes of a class:
        reconstructs: whether the network draws pictures, which `snakemake reconstructions` shows.
    """

    whole_pictures: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = False
    fixed: ClassVar[dict[str, Any]] = {
        "backbone": "picture", "layers": ["picture"], "center_crop": None, "precision": "float32", "batch_size": "auto",
    }  # fmt: skip

    image_size: list[int] | int = setting(
        256, "side of the square that the picture is fitted into, a multiple of 32", unit="pixels", minimum=64,
        maximum=1024, stage="features",
    )  # fmt: skip
    top_fraction: float = setting(
        0.01, "share of the cells that top_k_mean averages; percentile uses the lowest of them", above=0, below=1,
        stage="score", read_if=pools,
        refused="'top_fraction' is only read with score: top_k_mean or percentile (choose one, or leave it out)",
    )  # fmt: skip
    steps: int = setting(400, "steps of the training of each network", minimum=1, stage="fit")
    train_batch_size: int = setting(8, "pictures in a step", minimum=1, stage="fit")

    def check(self, where: str) -> None:
        """Refuse a side that networks cannot halve five times."""
        super().check(where)
        if self.sizes[0] % STRIDE:
            nearest = max(64, round(self.sizes[0] / STRIDE) * STRIDE)
            raise UserError(f"{where}: image_size {self.sizes[0]} is no multiple of {STRIDE} (choose {nearest})")
