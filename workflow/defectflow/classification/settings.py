"""Settings of the classifier of kinds. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.backbones.network_settings import NetworkSettings
from defectflow.config.settings import setting


@dataclass(frozen=True, kw_only=True)
class KindSettings(NetworkSettings):
    """The classifier of good parts and kinds of defects of `snakemake kinds`."""

    section: ClassVar[str] = "kinds"

    image_size: int = setting(
        512, "side of the square that the picture is fitted into", unit="pixels", minimum=64, maximum=4096,
        stage="features",
    )  # fmt: skip
    head: Literal["linear", "nearest"] = setting(
        "linear", "linear: logistic regression on frozen features; nearest: the most similar photographs vote",
        stage="classify",
    )  # fmt: skip
    strength: float = setting(
        0.01, "of a linear head: inverse of the penalty on its weights", above=0, stage="classify",
        read_if=lambda s: s.head == "linear",
    )  # fmt: skip
    neighbours: int = setting(
        3, "of head nearest: photographs that vote", minimum=1, stage="classify",
        read_if=lambda s: s.head == "nearest",
    )  # fmt: skip
    balance: Literal["effective_number", "none", "logit_adjustment", "reslt"] = setting(
        "effective_number",
        "what a linear head does about rare kinds: weights by the effective number of photographs (Cui et al., 2019), "
        "nothing, logit adjustment (Menon et al., 2021), or residual fusion of branches (ResLT, Cui et al., 2021)",
        stage="classify", read_if=lambda s: s.head == "linear",
    )  # fmt: skip
    rejected: float = setting(
        0.05, "share of defects of known kinds that may be called unknown", minimum=0, below=1, stage="classify"
    )
