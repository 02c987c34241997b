"""Settings for training the included weights. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar

from defectflow.config.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(Settings):
    """Training of the included weights (target pretrain, not part of all)."""

    section: ClassVar[str] = "pretrain"

    pool: str = setting("data/pool", "folder of varied photographs")
    photographs: str | None = setting(
        None,
        "folder of real photographs with object masks (index.csv), for sam2.1-nano and part-nano; none: only rendered",
    )
    figure_teacher: str | None = setting(
        None, "ONNX file of U2-Net or U2NetP; part-nano also learns from its masks of the pool"
    )
    teacher_name: str = setting("resnet18.tv_in1k", "timm name of the network that patch-nano is distilled from")
    teacher_weights: str = setting("data/weights/resnet18.tv_in1k.safetensors", "local file with its weights")
    minutes: float = setting(90, "time for each of the three networks", unit="minutes", above=0)
