"""Settings of the autoencoder. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.methods.picture_settings import PictureSettings


@dataclass(frozen=True, kw_only=True)
class VaeSettings(PictureSettings):
    """A convolutional variational autoencoder: what it cannot draw again as it draws good pictures is anomalous."""

    name: ClassVar[str] = "vae"
    detector: ClassVar[str] = "defectflow.methods.vae.autoencoder.Vae"
    reconstructs: ClassVar[bool] = True
    fixed: ClassVar[dict[str, Any]] = PictureSettings.fixed | {"weights": None}

    image_size: list[int] | int = setting(
        128, "side of the square that the picture is fitted into, a multiple of 32", unit="pixels", minimum=64,
        maximum=1024, stage="features",
    )  # fmt: skip
    score: Literal["max", "top_k_mean", "percentile", "evidence"] = setting(
        "max",
        "image score: the largest error, the mean of the largest ones, a quantile, or the negative evidence bound",
        stage="score",
    )
    latent: int = setting(64, "numbers that a picture is reduced to", minimum=1, maximum=4096, stage="fit score")
    width: int = setting(16, "channels of the first layer", minimum=4, maximum=256, stage="fit score")
    ssim: float = setting(
        0.5, "share of 1 - SSIM in the reconstruction error; the rest is L1", minimum=0, maximum=1, stage="fit score"
    )
    kl: float = setting(1, "weight of the Kullback-Leibler divergence", minimum=0, stage="fit score")
    learning_rate: float = setting(0.002, "largest learning rate", above=0, maximum=1, stage="fit")
