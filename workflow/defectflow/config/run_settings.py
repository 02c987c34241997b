"""What stands at the top of config.yaml. Standard library only: the Snakefile imports this module."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from defectflow.config.settings import Settings, setting
from defectflow.config.values import ABSENT, REQUIRED

NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"  # of an entry; it becomes the name of a folder


@dataclass(frozen=True, kw_only=True)
class ComparedRun(Settings):
    """One more run for the leaderboard; what is missing is taken from the top of the config."""

    segmenter: str | None = setting(ABSENT, "entry of segmenters", pattern=NAME)
    isolation: str | None = setting(ABSENT, "entry of isolations", pattern=NAME)
    detector: str | None = setting(ABSENT, "entry of detectors", pattern=NAME)


@dataclass(frozen=True, kw_only=True)
class ReviewSettings(Settings):
    """Review band: the largest shares of images that may be judged wrongly without a person."""

    max_fpr: float = setting(
        REQUIRED, "of good images, called bad without a person", minimum=0, maximum=1, stage="evaluate"
    )
    max_fnr: float = setting(
        REQUIRED, "of bad images, called good without a person", minimum=0, maximum=1, stage="evaluate"
    )


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """What to run, and how."""

    dataset: str = setting(REQUIRED, "the entry of datasets to use", pattern=NAME)
    segmenter: str = setting(
        REQUIRED, "entry of segmenters; auto: template if there are outlines, otherwise found", pattern=NAME
    )
    isolation: str = setting(
        REQUIRED,
        "entry of isolations; auto: crop if masks come from outlines, zero_out if they were found, otherwise none",
        pattern=NAME,
    )
    detector: str = setting(REQUIRED, "entry of detectors", pattern=NAME)
    compare: list[dict[str, Any]] = setting([], "further runs for the leaderboard", nested=ComparedRun)
    threshold: str = setting("auto", "strategy that chooses the threshold (docs/verdicts.md)")
    threshold_options: dict[str, float] = setting({}, "options of the strategy")
    review: dict[str, Any] | None = setting(
        None, "doubtful images go to a person, to keep these limits; null: none", nested=ReviewSettings
    )
    folds: int | Literal["auto", "holdout", "kfold", "leave_one_out", "leave_group_out"] = setting(
        "auto", "how labelled images are held out; or a number of folds", minimum=2
    )
    seed: int = setting(0, "seed of all random numbers", minimum=0)
    shards: int | Literal["auto"] = setting(
        "auto", "jobs per sharded stage; auto: 1 up to 100 images, then 2, doubled until one holds 2,000", minimum=1,
        maximum=500,
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where networks run; auto: CUDA if available")
    on_problem: Literal["stop", "leave_out"] = setting("stop", "what to do if input is broken or contradictory")
    keep_features: Literal["auto", "all", "none"] = setting(
        "auto",
        "patch features that stay on disk after a run; auto: where they and banks take at most 1 MB a photograph",
    )
    label_format: Literal[
        "coco", "yolo_segment", "yolo_detect", "pascal_voc", "mvtec", "labelme", "label_studio", "cvat"
    ] = setting("coco", "what `snakemake export_labels` writes (docs/labels.md)")
    allow_downloads: bool = setting(False, "whether weights given as a URL or by timm name may be fetched")


def name_of(folder: str) -> str:
    """A name for results from that of a folder: without accents, and _ for anything but letters and digits."""
    plain = unicodedata.normalize("NFKD", folder.replace("ß", "ss"))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", plain).strip("_.+-") or "photographs"
