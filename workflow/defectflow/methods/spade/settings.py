"""Settings of SPADE. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.methods.method_settings import PooledSettings


@dataclass(frozen=True, kw_only=True)
class SpadeSettings(PooledSettings):
    """Distance of each patch to the nearest one in those good photographs that resemble the whole picture most."""

    name: ClassVar[str] = "spade"
    detector: ClassVar[str] = "defectflow.methods.spade.spade.Spade"

    patches: int = setting(1000, "patches kept of each good photograph, a coreset", minimum=1, stage="fit")
    nearest_images: int = setting(
        10, "good photographs, the most similar ones, that a picture is compared with (50 in the paper)", minimum=1,
        stage="score",
    )  # fmt: skip
    score: Literal["max", "top_k_mean", "percentile", "retrieval"] = setting(  # type: ignore[assignment]  # one more
        "max",
        "image score: the largest distance, the mean of the largest ones, or a quantile; or retrieval, the mean "
        "distance of the whole picture to the most similar photographs, as in the paper",
        stage="score",
    )
    top_fraction: float = setting(
        0.01, "share of the patches that top_k_mean averages; percentile uses the lowest of them", above=0, below=1,
        stage="score", read_if=lambda settings: settings.score in ("top_k_mean", "percentile"),
        refused="'top_fraction' is only read with score: top_k_mean or percentile (choose one, or leave it out)",
    )  # fmt: skip
