"""What an entry of `datasets:` can say. Standard library only: the Snakefile imports this module."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from defectflow.config.settings import Settings, setting
from defectflow.config.values import ABSENT
from defectflow.core.files import UserError
from defectflow.demo.settings import RenderedSettings


@dataclass(frozen=True, kw_only=True)
class AboutSettings(Settings):
    """What nobody can read from photographs, for the card of the data set."""

    license: str = setting(ABSENT, "URL of the licence, as https://spdx.org/licenses/ has them")
    creator: str = setting(ABSENT, "person or organisation that took the photographs")
    url: str = setting(ABSENT, "page of the data set")
    published: str = setting(ABSENT, "date of publication, YYYY-MM-DD", pattern=r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(Settings):
    """Where the photographs, outlines and labels of a data set are."""

    section: ClassVar[str] = "datasets"
    by_name: ClassVar[bool] = True

    path: str | None = setting(ABSENT, "folder of the whole data set")
    images: str | None = setting(ABSENT, "folder of the photographs")
    annotations: str | list[str] | None = setting(
        ABSENT,
        "file or folder of annotations (docs/labels.md), a list of several, or [] for none; searched for if left out",
    )
    labels: str | None = setting(ABSENT, "labels.csv; searched for if left out")
    feedback: str | None = setting(
        ABSENT, "table of what people said about verdicts: labels beside those of labels.csv (docs/learning.md)"
    )
    good: list[str] = setting(ABSENT, "more names for folders of good photographs")
    links: list[str] = setting(ABSENT, "other folders that links may lead to")
    categories: list[str] | Literal["all"] = setting(
        ABSENT, "folders in the MVTec layout below path, each of them a data set; or all", least=1
    )
    category: str | None = setting(ABSENT, "only annotations of this category, or label, are the part")
    part: Literal["auto", "whole"] = setting(
        "auto", "auto: segmenter auto finds the part; whole: the photograph is the part (textures, close-ups)"
    )
    about: dict[str, Any] = setting(ABSENT, "licence, creator and more, for `snakemake card`", nested=AboutSettings)
    unlabelled: Literal["auto", "judge", "learn"] = setting(
        "auto",
        "photographs without a label; judge: only judged; learn: taken as mostly good and learned from; auto: learn "
        "where no photograph has a label",
    )
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = setting("auto", "bits that 16-bit photographs hold")
    rendered: dict[str, Any] = setting(ABSENT, "render this data set instead of reading one", nested=RenderedSettings)

    def check(self, where: str) -> None:
        """Refuse an entry that says nothing of where its photographs are."""
        if self.path is None and self.images is None and self.rendered is None:
            raise UserError(
                f"{where}: it has neither path nor images nor rendered (give the folder of the photographs)"
            )
