"""Settings of models of anomalib. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.config.values import REQUIRED
from defectflow.methods.picture_settings import PictureSettings


@dataclass(frozen=True, kw_only=True)
class AnomalibSettings(PictureSettings):
    """A model of anomalib, trained on the isolated pictures; scores and maps are the model's own."""

    name: ClassVar[str] = "anomalib"
    detector: ClassVar[str] = "defectflow.methods.anomalib_models.model.AnomalibModel"
    checked_by: ClassVar[str] = "defectflow.methods.anomalib_models.check"

    model: str = setting(REQUIRED, "class of anomalib, e.g. Padim, Stfpm, Fastflow", stage="fit score")
    options: dict[str, Any] | None = setting(
        None, "what the class takes, e.g. {backbone: patch-nano, layers: [layer2, layer3]}", stage="fit score"
    )
    weights: str | None = setting(
        None, "local file with the weights of the model's backbone, with timm's names or the original ones", stage="fit"
    )
    score: Literal["model", "max", "top_k_mean", "percentile"] = setting(
        "model",
        "image score: the model's own, or of its map the largest value, the mean of the largest ones, or a quantile",
        stage="score",
    )
