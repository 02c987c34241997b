"""The segmenters that prompt a network for each photograph separately, without outlines and training.

Standard library only: the Snakefile imports this module.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from defectflow.config.settings import setting
from defectflow.config.values import ABSENT, REQUIRED
from defectflow.core.files import UserError
from defectflow.segmentation.segmenters import Segmenter

SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True, kw_only=True)
class Prompted(Segmenter):
    """Base of the segmenters that are prompted with a box: how the box is made, and how proposals are scored."""

    needs_outlines: ClassVar[bool] = False
    prompts: ClassVar[bool] = True

    box: Literal["edges", "frame"] = setting(
        "edges", "the prompt: around most of the edges of the photograph, or the whole frame", stage="masks"
    )
    recentre: bool = setting(
        True, "whether the box is moved sideways from the middle of the frame to the edges nearest to it",
        stage="masks", read_if=lambda settings: settings.box == "edges",
        refused="'recentre' is not read with box: frame (leave it out)",
    )  # fmt: skip
    padding: float = setting(
        0.1, "share of the box added on each side", minimum=0, maximum=0.5, stage="masks",
        read_if=lambda settings: settings.box == "edges",
        refused="'padding' is not read with box: frame (leave it out)",
    )  # fmt: skip
    polarity: Literal["any", "auto", "brighter", "darker"] = setting(
        "any", "of the part against its surroundings; auto: that of the inset of the box; other proposals score lower",
        stage="masks",
    )  # fmt: skip
    fg_inset: float = setting(
        0.3, "the inset, in the middle of the box: this share of its width and height, which the part should cover",
        above=0, maximum=1, stage="masks",
    )  # fmt: skip
    within_box: bool = setting(False, "whether everything outside the box is cut off", stage="masks")
    centre_band: float = setting(
        0, "share of the box's width: pieces that do not reach into this middle band are dropped; 0: none",
        minimum=0, maximum=1, stage="masks",
    )  # fmt: skip
    height_band: float = setting(
        0, "share of the box's height: pieces that do not reach into this middle band are dropped; 0: none",
        minimum=0, maximum=1, stage="masks",
    )  # fmt: skip
    bridge: float = setting(
        0, "vertical gaps up to this share of the box's height are closed", minimum=0, maximum=0.5, stage="masks"
    )
    fill_holes: bool = setting(False, "whether holes are filled", stage="masks")
    scraps: float = setting(
        0.02, "pieces smaller than this share of the largest are dropped", minimum=0, maximum=1, stage="masks"
    )
    drop_border: bool = setting(False, "whether pieces that touch the border of the photograph are dropped",
                                stage="masks")  # fmt: skip
    area: list[float] = setting(
        [0.02, 0.9], "smallest and largest share of the photograph; other proposals are skipped",
        minimum=0, maximum=1, least=2, stage="masks",
    )  # fmt: skip

    def check(self, where: str) -> None:
        """Refuse an area that is not two numbers, the smaller first."""
        if len(self.area) != 2 or self.area[0] >= self.area[1]:
            raise UserError(f"{where}.area: {self.area} is not two shares, the smaller first (for example [0.02, 0.9])")


@dataclass(frozen=True, kw_only=True)
class PromptedSam(Prompted):
    """SAM 2.1 without training, prompted with a box in each photograph."""

    name: ClassVar[str] = "prompted"

    model: Literal["nano", "sam2.1_hiera_t", "sam2.1_hiera_s", "sam2.1_hiera_b+", "sam2.1_hiera_l"] = setting(
        REQUIRED, "nano (our own, included weights), or the size of an official checkpoint", stage="masks"
    )
    checkpoint: str | None = setting(ABSENT, "local file to start from, or a URL (with allow_downloads)")
    sha256: str | None = setting(ABSENT, "of the checkpoint", pattern=SHA256)
    bytes: int | None = setting(ABSENT, "size of the checkpoint", unit="bytes", minimum=1)


@dataclass(frozen=True, kw_only=True)
class SamOnnx(Prompted):
    """SAM 1 (MobileSAM, SAM ViT-B) as two ONNX files, prompted with a box in each photograph."""

    name: ClassVar[str] = "sam_onnx"

    encoder: str | None = setting(ABSENT, "required: local ONNX file, from the picture to its embedding")
    encoder_sha256: str | None = setting(ABSENT, "of the encoder", pattern=SHA256)
    decoder: str | None = setting(ABSENT, "required: local ONNX file, from the embedding and a prompt to masks")
    decoder_sha256: str | None = setting(ABSENT, "of the decoder", pattern=SHA256)
