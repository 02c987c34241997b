"""Settings of PaDiM. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar

from defectflow.config.settings import setting
from defectflow.methods.method_settings import PooledSettings


@dataclass(frozen=True, kw_only=True)
class PadimSettings(PooledSettings):
    """A Gaussian for each place of the grid, which therefore needs the patches of all places."""

    name: ClassVar[str] = "padim"
    detector: ClassVar[str] = "defectflow.methods.padim.padim.Padim"
    fixed: ClassVar[dict[str, Any]] = {"foreground_only": False}

    dimensions: int = setting(100, "dimensions of a patch, drawn at random", minimum=1, stage="fit")
