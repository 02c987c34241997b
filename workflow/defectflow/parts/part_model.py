"""The prior: what is known of the part from the annotated photographs (position, appearance, reliability), in one file.

Used by the baseline segmenters, for prompts of SAM and for detecting an absent part.
Only the appearance heads import torch.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.core.files import UserError, atomic
from defectflow.parts import registration_frame
from defectflow.parts.common_shape import CommonShape, Completed
from defectflow.parts.label_propagation import is_found
from defectflow.parts.registration import Match, Templates

if TYPE_CHECKING:
    from defectflow.parts.appearance import Appearance
    from defectflow.parts.patch_finder import PatchFinder

FORMAT = "defectflow-prior-2"
AGREEMENT = 0.85  # mean IoU of the transferred labels with their vote, below which a template mask is doubtful
AREA_Z = 5.0
FINDER = "finder."  # prefix of tensors in ``heads`` that were learned without outlines


def clean_mask(mask: np.ndarray, components: int = 1, fill_holes: bool = True) -> np.ndarray:
    """Keep the largest ``components`` connected components of a bool mask (height, width) and fill their holes."""
    cleaned = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return cleaned
    box = np.s_[y : y + height, x : x + width]  # in a large photograph the part is a small share
    inside = mask[box]
    # Outlines take a tenth of the time of labels, which are only needed if there are many components.
    _, hierarchy = cv2.findContours(inside.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parents = hierarchy[0, :, 3]
    if np.count_nonzero(parents < 0) > components:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8))
        order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:components]
        kept = np.zeros(count, bool)
        kept[order] = True
        inside = kept[labels]
    cleaned[box] = _filled(inside) if fill_holes else inside
    return cleaned


def _filled(mask: np.ndarray) -> np.ndarray:
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED).view(bool)


def label_shape(mask: np.ndarray) -> tuple[int, float]:
    """Number of components with at least 2 % of the area of the largest, and the holes' area as a share of ``mask``."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    area = np.count_nonzero(mask)
    return int((areas >= 0.02 * areas.max()).sum()), (np.count_nonzero(_filled(mask)) - area) / area


def iou_summary(values: dict[str, float], groups: dict[str, str]) -> dict[str, Any]:
    """Mean, minimum and number of IoUs by image_id, and mean and number by group; None if there are none."""
    by_group = defaultdict(list)
    for name, value in values.items():
        by_group[groups[name].removeprefix("group ").removeprefix("image ")].append(value)
    numbers = list(values.values())
    return {
        "iou_mean": round(float(np.mean(numbers)), 6) if numbers else None,
        "iou_min": round(float(np.min(numbers)), 6) if numbers else None,
        "n": len(numbers),
        "by_group": {g: {"iou_mean": round(float(np.mean(v)), 6), "n": len(v)} for g, v in sorted(by_group.items())},
    }


@dataclass(frozen=True)
class Guess:
    """The prior's estimate of the part in one photograph.

    Attributes:
        source: "template", "appearance", or "constant" if the part was not found.
        soft: float32 (height, width) in [0, 1].
        agreement: mean IoU of the voting labels or networks with the mask of their mean, in [0, 1].
        match: result of the registration, which is always done.
    """

    source: str
    soft: np.ndarray
    agreement: float
    match: Match

    @property
    def found(self) -> bool:
        """Whether the part was found at all."""
        return self.source != "constant"


@dataclass
class Prior:
    """Annotated masks, templates and their statistics.

    Attributes:
        image_ids, groups: of the annotated photographs.
        labels: bool (annotated, H, W) in the label frame.
        chosen: int (templates,), indices of the annotated photographs that serve as templates.
        templates: see :class:`registration.Templates`, in the order of ``chosen``.
        info: statistics: size (typical height, width), held_out ("group" or "image"), group_of (group of every
            annotated photograph, also those beyond the limit of the prior), area_mean, area_sd (shares of the
            picture), score_threshold (below: absent), score_doubtful, whole_threshold (correlation of whole pictures,
            below which a small part is absent; None if it is not informative), components, fill_holes,
            chance_score (of negatives, see :mod:`label_propagation`; only if few outlines were transferred),
            extent (size and centre of the part then, see :func:`prior.extent_of`),
            registers (held-out template IoU is good enough to rely on the score), trained_on and backbone
            (of the appearance heads, see :class:`appearance.Appearance`), heads_held_out ("image" if each head has
            seen some photographs of every group it learned from; only then).
        heads: weights of the appearance heads by name; empty if registration is at least as good.
        shape: the common shape of a part found without an outline; None otherwise, or if there is none.
    """

    image_ids: list[str]
    groups: list[str]
    labels: np.ndarray
    chosen: np.ndarray
    templates: Templates
    info: dict[str, Any]
    heads: dict[str, np.ndarray] = field(default_factory=dict)
    shape: CommonShape | None = None

    def save(self, path: str | Path) -> None:
        """Write as safetensors, atomically."""
        tensors: dict[str, np.ndarray] = {
            "fields": self.templates.fields.astype(np.float16),
            "labels": np.packbits(self.labels.reshape(len(self.labels), -1), axis=1),
            "chosen": self.chosen.astype(np.int32),
            **{f"heads.{name}": value for name, value in self.heads.items()},
        }
        if self.shape is not None:
            tensors["shape"] = self.shape.mean
        # One metadata key: safetensors writes several in random order.
        meta = {
            "format": FORMAT,
            "image_ids": self.image_ids,
            "groups": self.groups,
            "label_frame": self.labels.shape[1:],
            **({"shape": {"agreement": self.shape.agreement, "usual": self.shape.usual}} if self.shape else {}),
            **self.info,
        }
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"prior": json.dumps(meta)})

    @classmethod
    def load(cls, path: str | Path) -> "Prior":
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is missing or not such a file.
        """
        try:
            with safe_open(path, "numpy") as stream:
                info = json.loads((stream.metadata() or {}).get("prior", "{}"))
                if info.pop("format", None) != FORMAT:
                    raise UserError(f"{path}: not a prior of this version (run prior again)")
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error})") from None
        height, width = info.pop("label_frame")
        labels = np.unpackbits(tensors["labels"], axis=1, count=height * width).reshape(-1, height, width).view(bool)
        chosen = tensors["chosen"].astype(int)
        own = labels if np.array_equal(chosen, np.arange(len(labels))) else labels[chosen]
        templates = Templates(tensors["fields"].astype(np.float32), own)
        heads = {key.removeprefix("heads."): value for key, value in tensors.items() if key.startswith("heads.")}
        shape = CommonShape(tensors["shape"], **info.pop("shape")) if "shape" in info else None
        return cls(info.pop("image_ids"), info.pop("groups"), labels, chosen, templates, info, heads, shape)

    def leave_out(self, image_id: str) -> list[int] | None:
        """Annotated photographs that must not be used for ``image_id``.

        Its group if it is annotated itself, or only the photograph if there is only one group, or if every appearance
        head has seen others of its group; empty if nothing else would remain. None for a photograph that is not
        annotated, see :meth:`register`.
        """
        group = self.info["group_of"].get(image_id)
        if group is None:
            return None
        if (self.info.get("heads_held_out") if self.heads else "") == "image" or self.info["held_out"] == "image":
            out = [i for i, other in enumerate(self.image_ids) if other == image_id]
        else:
            out = [i for i, other in enumerate(self.groups) if other == group]
        return out if len(out) < len(self.image_ids) else []

    @cached_property
    def _label_sum(self) -> np.ndarray:
        total: np.ndarray = self.labels.sum(axis=0, dtype=np.float32)
        return total

    def mean_label(self, leave_out: Sequence[int] | None = ()) -> np.ndarray:
        """Mean annotated mask, float32 in the label frame, values in [0, 1]."""
        total, leave_out = self._label_sum, leave_out or ()
        if len(leave_out):
            total = total - self.labels[list(leave_out)].sum(axis=0, dtype=np.float32)
        return total / (len(self.labels) - len(leave_out))

    def constant(self, size: tuple[int, int], leave_out: Sequence[int] | None = ()) -> np.ndarray:
        """Mean annotated mask for a photograph of ``size`` (height, width): float32 in [0, 1]."""
        return registration_frame.mask_from_frame(self.mean_label(leave_out), size)

    def register(self, image: np.ndarray, leave_out: Sequence[int] | None = ()) -> Match:
        """Find the part in an RGB uint8 photograph of any size, without the annotated photographs ``leave_out``.

        None leaves out the group that the photograph resembles most, because banks and thresholds come from photographs
        whose own group is left out. Outlines of the same session fit better, but include a border of background that is
        in no bank: on a set of real photographs (hawk) 10 of 12 good ones were called bad with them. If there is only
        one group, the photograph itself is left out, if it is annotated.
        """
        return self.register_field(registration_frame.log_luminance(image, self.templates.frame), leave_out)

    def register_field(self, log_lum: np.ndarray, leave_out: Sequence[int] | None = ()) -> Match:
        """As :meth:`register`, from the log-luminance in the registration frame."""
        if leave_out is None:
            if self.info["held_out"] == "group":
                return self.templates.register(log_lum, groups=np.array(self.groups)[self.chosen])
            same = self.templates.same_picture(registration_frame.gradient_field(log_lum))
            return self.templates.register(log_lum, [] if same is None or len(self.chosen) == 1 else [same])
        return self.templates.register(log_lum, np.nonzero(np.isin(self.chosen, list(leave_out)))[0].tolist())

    def lost(self, match: Match) -> str:
        """Why the part counts as absent by this match; "" if it is present.

        A part of few pixels fits somewhere in any picture: if its surroundings are the same in all annotated
        photographs, they must fit too.
        """
        limit, whole = self.info["score_threshold"], self.info.get("whole_threshold")
        score = f"registration score {match.score:.2f}"
        if match.score < limit:
            return f"{score} < {limit:.2f}"
        if whole is not None and match.whole < whole:
            return f"its surroundings differ: correlation {match.whole:.2f} < {whole:.2f}"
        chance = self.info.get("chance_score")
        if chance is not None and not is_found(match, chance):
            return f"{score} may be chance, and the surroundings differ: correlation {match.whole:.2f}"
        return ""

    def template(self, match: Match, size: tuple[int, int]) -> tuple[np.ndarray, float]:
        """Soft mask (float32, ``size``) voted by the matched labels, and their agreement (mean IoU with it)."""
        return self.templates.transfer(match, size)

    @cached_property
    def appearance(self) -> "Appearance | PatchFinder | None":
        """The appearance heads, or the patch classifier learned without outlines; None if there is neither."""
        if not self.heads:
            return None
        if own := {name[len(FINDER) :]: value for name, value in self.heads.items() if name.startswith(FINDER)}:
            from defectflow.parts.patch_finder import PatchFinder

            return PatchFinder.read(own).opened(self.info["backbone"])
        from defectflow.parts.appearance import Appearance

        return Appearance(self.heads, self.info["trained_on"], self.info["backbone"])

    def guess(self, image: np.ndarray, leave_out: Sequence[int] | None = ()) -> Guess:
        """Find the part in an RGB uint8 photograph (height, width, 3) by the method that suits this data set.

        By appearance if there are heads, otherwise by registration; the mean mask if no part is found.
        """
        size, match = image.shape[:2], self.register(image, leave_out)
        if self.appearance and (found := self.appearance.locate(image, leave_out or ())):
            if (found[0] >= 0.5).any():
                return Guess("appearance", found[0], found[1], match)
        elif not self.lost(match):
            return Guess("template", *self.template(match, size), match)
        return Guess("constant", self.constant(size, leave_out), 0.0, match)

    def clean(self, mask: np.ndarray) -> np.ndarray:
        """Keep as many components as the annotated masks have, and fill holes unless those have holes."""
        return clean_mask(mask, self.info["components"], self.info["fill_holes"])

    def completed(self, mask: np.ndarray) -> Completed | None:
        """A bool mask (height, width) completed by the shape of the part; None if no shape is known."""
        return self.shape.complete(mask) if self.shape is not None and mask.any() else None

    def area_z(self, area: float) -> float:
        """Distance of a share of the picture from the annotated ones, in their standard deviations (at least 1 %)."""
        mean, deviation = float(self.info["area_mean"]), float(self.info["area_sd"])
        return (area - mean) / max(deviation, 0.01 * mean)
