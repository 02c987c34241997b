"""The segmenters: their settings, and how those without a network find the part.

Standard library only at the top: the Snakefile imports this module. More segmenters can be in other modules whose names
contain "segmenter".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from defectflow.config.settings import Family, Settings, setting
from defectflow.config.values import ABSENT, REQUIRED

if TYPE_CHECKING:
    import numpy as np

    from defectflow.parts.part_model import Guess, Prior


@dataclass(frozen=True, kw_only=True)
class Segmenter(Settings):
    """Base of the segmenters.

    Attributes of a class:
        makes_masks: whether it makes masks of the part.
        trains: whether it fine-tunes a network first.
        finds: whether it learns from masks that it found itself.
        needs_outlines: whether it learns from drawn outlines.
        prompts: whether it prompts a network for each photograph separately, and learns nothing from the set.
    """

    section: ClassVar[str] = "segmenters"
    makes_masks: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    finds: ClassVar[bool] = False
    needs_outlines: ClassVar[bool] = True
    prompts: ClassVar[bool] = False

    @classmethod
    def find(
        cls, prior: Prior, guess: Guess, image: np.ndarray, leave_out: list[int] | None
    ) -> tuple[np.ndarray, float]:
        """The mask of the part in a photograph.

        Args:
            prior: what is known of the part from the annotated photographs.
            guess: its estimate of the part, see `Prior.guess`.
            image: uint8 RGB (height, width, 3).
            leave_out: annotated photographs that must not be used, see `Prior.register`.

        Returns:
            The mask, bool (height, width), and an IoU that shows how reliable it is.
        """
        return prior.clean(guess.soft >= 0.5), guess.agreement


@dataclass(frozen=True, kw_only=True)
class NoSegmenter(Segmenter):
    """The whole photograph counts as the part."""

    name: ClassVar[str] = "none"
    makes_masks: ClassVar[bool] = False
    needs_outlines: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Constant(Segmenter):
    """The mean training mask: the baseline for all others."""

    name: ClassVar[str] = "constant"

    @classmethod
    def find(
        cls, prior: Prior, guess: Guess, image: np.ndarray, leave_out: list[int] | None
    ) -> tuple[np.ndarray, float]:
        """The mean mask, and its IoU with the prior's guess."""
        from defectflow.parts.registration_frame import iou

        mask = prior.clean(prior.constant(image.shape[:2], leave_out) >= 0.5)
        return mask, iou(mask, prior.clean(guess.soft >= 0.5))


@dataclass(frozen=True, kw_only=True)
class Template(Segmenter):
    """Registers the outlines of the most similar training images: no network, no training."""

    name: ClassVar[str] = "template"

    @classmethod
    def find(
        cls, prior: Prior, guess: Guess, image: np.ndarray, leave_out: list[int] | None
    ) -> tuple[np.ndarray, float]:
        """The registered mask, also where the guess is that of the appearance heads, and the agreement of its votes."""
        if guess.source != "appearance":
            return super().find(prior, guess, image, leave_out)
        soft, agreement = prior.template(guess.match, image.shape[:2])
        return prior.clean(soft >= 0.5), agreement


@dataclass(frozen=True, kw_only=True)
class OnnxCandidate(Settings):
    """A salient-object network of the user, whose foreground may be the part."""

    onnx: str = setting(REQUIRED, "local ONNX file of U2-Net or U2NetP")
    sha256: str | None = setting(ABSENT, "of the file", pattern="[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Found(Segmenter):
    """Finds the part in all photographs together, without an outline; templates or patches are learned from it."""

    name: ClassVar[str] = "found"
    finds: ClassVar[bool] = True
    needs_outlines: ClassVar[bool] = False

    candidates: list[dict[str, Any]] | None = setting(
        ABSENT,
        "additional networks that show where the part may be, each a mapping with onnx and sha256",
        nested=OnnxCandidate,
    )


@dataclass(frozen=True, kw_only=True)
class Sam(Segmenter):
    """SAM 2.1, fine-tuned on the annotated photographs."""

    name: ClassVar[str] = "sam2.1"
    trains: ClassVar[bool] = True

    model: Literal["nano", "sam2.1_hiera_t", "sam2.1_hiera_s", "sam2.1_hiera_b+", "sam2.1_hiera_l"] = setting(
        REQUIRED, "nano (our own, included weights), or the size of an official checkpoint", stage="segment masks"
    )
    checkpoint: str | None = setting(ABSENT, "local file to start from, or a URL (with allow_downloads)")
    sha256: str | None = setting(ABSENT, "of the checkpoint", pattern="[0-9a-f]{64}")
    bytes: int | None = setting(ABSENT, "size of the checkpoint", unit="bytes", minimum=1)
    engine: Literal["lean", "official"] = setting(
        "lean", "our training loop, or the trainer of the sam2 package", stage="segment"
    )
    trainable: Literal["decoder", "decoder_and_neck", "all"] = setting(
        "decoder", "trained part of the network", stage="segment"
    )
    steps: int = setting(400, "optimiser steps; 0: the checkpoint is used without training", minimum=0, stage="segment")
    batch_size: int | Literal["auto"] = setting(
        "auto", "photographs per step; auto: 4, or fewer if the memory of the GPU is too small", minimum=1,
        stage="segment",
    )  # fmt: skip
    augmentations: int = setting(
        3, "augmented copies of each photograph to train on", minimum=0, stage="segment",
        read_if=lambda settings: settings.engine == "lean",
        refused="engine official does not read 'augmentations' (its trainer augments photographs itself: leave it out)",
    )  # fmt: skip
    learning_rate: float | None = setting(
        None, "of the decoder; null: 0.0001, or 0.001 from scratch", above=0, stage="segment"
    )
    patience: int = setting(
        5, "validations without a new best mask before training stops", minimum=1, stage="segment",
        read_if=lambda settings: settings.engine == "lean",
        refused="engine official does not read 'patience' (its trainer always does all steps: leave it out)",
    )  # fmt: skip


SEGMENTERS = Family("defectflow.segmentation.*segmenter*", Segmenter)
