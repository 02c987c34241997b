"""Settings of PatchCore. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.methods.method_settings import PooledSettings


@dataclass(frozen=True, kw_only=True)
class PatchCoreSettings(PooledSettings):
    """Distance of each patch to its nearest neighbour in a memory bank of good patches."""

    name: ClassVar[str] = "patchcore"
    detector: ClassVar[str] = "defectflow.methods.patchcore.memory_bank.PatchCore"
    several_scales: ClassVar[bool] = True

    max_patches: int = setting(
        2_000_000, "above this number of patches each image is thinned out first (a million need 5 to 10 GB in fit)",
        minimum=1, stage="fit",
    )  # fmt: skip
    coreset_ratio: float = setting(1, "share of the patches kept in the memory bank", above=0, maximum=1, stage="fit")
    coreset_max: int = setting(10_000, "largest number of patches in the memory bank", minimum=1, stage="fit")
    density: float = setting(
        1, "share of the patches that are learned from, the densest; below 1 for photographs with defects among them",
        above=0, maximum=1, stage="fit",
    )  # fmt: skip
    density_neighbours: int = setting(
        8, "the nearer so many neighbours in other photographs, the denser", minimum=1, stage="fit",
        read_if=lambda settings: settings.density < 1,
        refused="'density_neighbours' is only read with a density below 1 (set it, or leave this out)",
    )  # fmt: skip
    bank_dtype: Literal["float32", "float16", "pca_float16"] = setting(
        "float32",
        "number format of the stored bank; pca_float16: along the axes with 99 % of its variance",
        formerly="bank",
        stage="fit",
    )
    distance: Literal["euclidean", "cosine"] = setting("euclidean", "distance between patches", stage="fit")
    neighbours: int = setting(
        9, "neighbours in the re-weighting of the image score (PatchCore, equation 7); 1 switches it off", minimum=1,
        stage="score", read_if=lambda settings: settings.score == "max" and len(settings.sizes) == 1,
        refused="'neighbours' is only read with score: max and one image_size (leave it out)",
    )  # fmt: skip
