"""Settings of the rendered data set. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass

from defectflow.config.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class RenderedSettings(Settings):
    """A data set that is rendered instead of read."""

    views: int = setting(57, "good or unlabelled views", minimum=6, stage="render_demo")
    defects: int = setting(24, "bad views", minimum=0, stage="render_demo")
    kinds: int = setting(6, "kinds of defects among the bad views", minimum=1, maximum=8, stage="render_demo")
    size: int = setting(512, "side of a photograph", unit="pixels", minimum=64, stage="render_demo")
