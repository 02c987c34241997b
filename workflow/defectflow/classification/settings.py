"""Settings of the classifier of kinds. Standard library only: the Snakefile imports this module."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from defectflow.backbones.network_settings import NetworkSettings
from defectflow.config.settings import Settings, setting
from defectflow.config.values import ABSENT
from defectflow.core.files import UserError

OWN = "own"  # name of the network of the settings themselves
MOST = 400  # rows of a study
NETWORK = ("backbone", "image_size")  # keys that need other descriptors


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """The variants of `snakemake study`: all combinations of the given lists."""

    backbone: list[str] = setting(ABSENT, "networks", least=1, distinct=True)
    image_size: list[int] = setting(ABSENT, "sides", unit="pixels", minimum=64, maximum=4096, least=1, distinct=True)
    head: list[Literal["linear", "trained", "nearest"]] = setting(ABSENT, "heads", least=1, distinct=True)
    balance: list[Literal["effective_number", "none", "logit_adjustment", "reslt"]] = setting(
        ABSENT, "treatments of rare kinds", least=1, distinct=True
    )
    strength: list[float] = setting(ABSENT, "of a linear head", above=0, least=1, distinct=True)
    epochs: list[int] = setting(ABSENT, "of a trained head", minimum=1, maximum=10000, least=1, distinct=True)
    learning_rate: list[float] = setting(ABSENT, "of a trained head", above=0, maximum=1, least=1, distinct=True)
    optimizer: list[Literal["adam", "sgd"]] = setting(ABSENT, "of a trained head", least=1, distinct=True)
    networks: dict[str, Any] = setting(
        ABSENT, "{layers: [...], weights: file} of backbones whose layers or weights are not those of kinds, by name"
    )

    def check(self, where: str) -> None:
        """Refuse networks that are not used, and malformed entries."""
        for name, about in (self.networks or {}).items():
            if name not in (self.backbone or []):
                raise UserError(f"{where}.networks: {name!r} is not in the list backbone (add it, or leave it out)")
            if not isinstance(about, dict) or set(about) - {"layers", "weights"}:
                raise UserError(f"{where}.networks.{name}: {about!r} (give {{layers: [...], weights: FILE}})")


class Variant(NamedTuple):
    """A row of a study: name of its network, the varied values, and its settings."""

    network: str
    axes: dict[str, Any]
    settings: "KindSettings"


def _learns(settings: Any) -> bool:
    return bool(settings.head == "trained" or settings.training == "finetune")


@dataclass(frozen=True, kw_only=True)
class KindSettings(NetworkSettings):
    """The classifier of good parts and kinds of defects of `snakemake kinds`."""

    section: ClassVar[str] = "kinds"
    fixed: ClassVar[dict[str, Any]] = {"tiles": None, "input_shape": "auto"}

    training: Literal["frozen", "finetune"] = setting(
        "frozen", "frozen: the network stays as it is, and a head learns what is unlike good patches; finetune: the "
        "network learns from whole pictures, with flips, shifts and changes of light", stage="classify finetune",
    )  # fmt: skip
    image_size: int = setting(
        512, "side of the square that the picture is fitted into", unit="pixels", minimum=64, maximum=4096,
        stage="features",
    )  # fmt: skip
    head: Literal["linear", "trained", "nearest"] = setting(
        "linear", "on frozen features; linear: logistic regression; trained: a layer trained by an optimizer; "
        "nearest: the most similar photographs vote", stage="classify",
    )  # fmt: skip
    strength: float = setting(
        0.01, "of a linear head: inverse of the regularisation strength", above=0, stage="classify",
        read_if=lambda s: s.head == "linear",
    )  # fmt: skip
    neighbours: int = setting(
        3, "of head nearest: number of voting photographs", minimum=1, stage="classify",
        read_if=lambda s: s.head == "nearest",
    )  # fmt: skip
    balance: Literal["effective_number", "none", "logit_adjustment", "reslt"] = setting(
        "effective_number",
        "treatment of rare kinds by a linear head: weights by the effective number of photographs (Cui et al., 2019), "
        "nothing, logit adjustment (Menon et al., 2021), or residual fusion of branches (ResLT, Cui et al., 2021)",
        stage="classify", read_if=lambda s: s.head == "linear",
    )  # fmt: skip
    epochs: int = setting(
        100, "of a trained head or network", minimum=1, maximum=10000, stage="classify finetune", read_if=_learns
    )
    learning_rate: float = setting(
        0.001, "of a trained head or network", above=0, maximum=1, stage="classify finetune", read_if=_learns
    )
    optimizer: Literal["adam", "sgd"] = setting(
        "adam", "of a trained head or network", stage="classify finetune", read_if=_learns
    )
    rejected: float = setting(
        0.05, "largest share of defects of known kinds that may be called unknown", minimum=0, below=1, stage="classify"
    )
    join: bool = setting(False, "whether every run adds the kind of photographs called bad to predictions.csv")
    study: dict[str, Any] = setting(ABSENT, "variants of `snakemake study`", nested=StudySettings)

    def with_values(self, **values: Any) -> "KindSettings":
        """A copy with other values of some keys."""
        return dataclasses.replace(self, **values)

    def to_finetune(self) -> dict[str, Any]:
        """What the stage finetune reads, without the keys of other networks."""
        read = self.read_by("features", "finetune")
        return {key: value for key, value in read.items() if key in self.own_keys()}

    def not_carried_with(self, detector: Settings) -> str:
        """Why a bundle with this detector cannot name kinds, as its network makes other patches; "" if it can."""
        if self.training == "finetune":
            return "a finetuned network is none that the detector has (set kinds: {training: frozen} or {join: false})"
        for key in (*NetworkSettings.own_keys(), "tiles"):
            own, other = (getattr(settings, key, None) for settings in (self, detector))
            if key != "batch_size" and own != other:
                return (
                    f"{key} is {own} for kinds and {other} for detector {detector.name}, and an inspector has one "
                    "network (give both the same, or set kinds: {join: false})"
                )
        return ""

    def variants(self) -> list[Variant]:
        """The rows of the study: first the settings themselves, then all combinations of its lists.

        Raises:
            UserError: there are more than MOST.
        """
        study = StudySettings.from_dict(self.study or {}, "config.yaml: kinds.study")
        axes = {key: value for key, value in dataclasses.asdict(study).items() if value and key != "networks"}
        if axes and self.training == "finetune":
            raise UserError("config.yaml: kinds.study compares heads on networks as they are (set training: frozen)")
        rows = [Variant(OWN, {key: getattr(self, key) for key in axes}, self)]
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            about = (study.networks or {}).get(chosen.get("backbone", ""), {})
            if any(getattr(self, key) != value for key, value in about.items() if chosen["backbone"] == self.backbone):
                raise UserError(
                    f"config.yaml: kinds.study.networks: {self.backbone} is the network of kinds itself (give its "
                    "layers and weights there)"
                )
            made = self.with_values(**chosen, **about, study=None)
            other = {key: getattr(made, key) for key in NETWORK} != {key: getattr(self, key) for key in NETWORK}
            if "backbone" in chosen and chosen["backbone"] != self.backbone and "weights" not in about:
                made = made.with_values(weights=None)
            name = f"{made.backbone}-{made.image_size}" if other else OWN
            if chosen != rows[0].axes:
                rows.append(Variant(name, chosen, made))
        if len(rows) > MOST:
            raise UserError(
                f"config.yaml: kinds.study: {len(rows)} combinations are more than {MOST} (shorten the lists)"
            )
        return rows

    def networks(self) -> dict[str, "KindSettings"]:
        """The networks of the study by name, including that of the settings."""
        return {row.network: row.settings for row in reversed(self.variants())}
