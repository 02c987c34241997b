"""The window of a crop from the extent of the outlined parts, the same for the workflow and a bundle."""

from pathlib import Path

from defectflow.core.tables import PAIRS, read_table
from defectflow.isolation.crop_and_background import crop_geometry, geometry_of
from defectflow.parts.part_model import Prior


def window_of(
    pairs: str | Path, prior: str | Path | None, margin: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Size and mean centre of the window, see :func:`crop_and_background.crop_geometry`.

    Args:
        pairs: pairs.csv of the outlined photographs; not read if ``prior`` has the extent.
        prior: prior.safetensors; its extent of the part takes precedence, which it has if few photographs are outlined.
        margin: share of the size added on each side.
    """
    extent = Prior.load(prior).info.get("extent") if prior else None
    return geometry_of(extent, margin) if extent else crop_geometry(read_table(pairs, PAIRS), margin)
