"""Label propagation: transfer the outlines of one to three photographs to the others by registration.

In rounds: photographs with a mask are registered to those without, so a photograph that differs from the outlined ones
is reached through intermediate ones. Every mask is then checked against the mask from all other photographs.

numpy and OpenCV only: torch is never imported here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from defectflow.parts.registration import COARSE, Match, Templates
from defectflow.parts.registration_frame import fit_size, gradient_field, iou, resized

SAMPLE = 200  # photographs that outlines are transferred to; the rest is learned from these
ROUNDS = 5
# Correlation of whole pictures from which the part counts as found; unrelated pictures stay below 0.33.
WHOLE = 0.35
# Or the correlation of the part alone: this factor above the score in negatives of photographs, where every match is
# wrong. An outline of few pixels fits by chance with 0.5, a large one with 0.2.
ABOVE_CHANCE, LEAST_SCORE = 2.0, 0.4
NEGATIVES = 12  # photographs for the estimate of chance
SAME_MASK = 0.85  # IoU of a mask with the one from all other photographs below which the part counts as not found


def is_found(match: Match, chance: float) -> bool:
    """Whether a match is better than chance: the whole pictures correlate, or the part does, far above ``chance``."""
    return match.whole >= WHOLE or match.score >= max(ABOVE_CHANCE * chance, LEAST_SCORE)


@dataclass
class Propagated:
    """Result of label propagation.

    Attributes:
        labels: mask of each photograph found, bool in the label frame, by its index.
        agreement: IoU of each with the mask from all others, by its index.
        matches: the registration of that check, by index.
        chance: the best score in negatives of photographs, in [0, 1].
        missing: indices of the photographs where the part was not found.
    """

    labels: dict[int, np.ndarray] = field(default_factory=dict)
    agreement: dict[int, float] = field(default_factory=dict)
    matches: dict[int, Match] = field(default_factory=dict)
    chance: float = 0.0
    missing: list[int] = field(default_factory=list)


def chance_score(templates: Templates, pictures: Sequence[np.ndarray]) -> float:
    """The best score that ``templates`` reach in the negatives of some of the ``pictures``, at least 0.

    A negative has the edges of the photograph but never contains the part, not even if that is symmetric, unlike a
    mirror image.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(pictures) - 1, min(NEGATIVES, len(pictures)))})
    return max([0.0, *(templates.register(-pictures[i]).score for i in chosen)])


def propagate(
    fields: np.ndarray, labels: np.ndarray, pictures: Sequence[np.ndarray], clean: Callable[[np.ndarray], np.ndarray]
) -> Propagated:
    """Find the part outlined in one to three photographs in other photographs.

    Args:
        fields, labels: of the outlined photographs, as in :class:`registration.Templates`.
        pictures: log-luminance of the others in the registration frame, float32 (h, w) each.
        clean: clean-up of a thresholded vote, see :meth:`part_model.Prior.clean`.
    """
    found, result = dict[int, np.ndarray](), Propagated()
    others = [gradient_field(p).astype(np.float16).astype(np.float32) for p in pictures]

    def templates() -> Templates:
        chosen = sorted(found)
        return Templates(
            np.stack([*fields, *(others[i] for i in chosen)]), np.stack([*labels, *(found[i] for i in chosen)])
        )

    for _ in range(ROUNDS):
        bank, new = templates(), {}
        result.chance = chance_score(bank, pictures)
        rest = [i for i in range(len(pictures)) if i not in found]
        for i in tqdm(rest, desc="prior: carry over", unit="image"):
            match = bank.register(pictures[i])
            if is_found(match, result.chance):
                new[i] = clean(bank.transfer(match, labels.shape[1:])[0] >= 0.5)
        found |= {i: mask for i, mask in new.items() if mask.any()}
        if not new:
            break
    bank, order = templates(), sorted(found)
    for place, i in enumerate(tqdm(order, desc="prior: hold out", unit="image")):
        match = bank.register(pictures[i], [len(fields) + place])
        agreement = iou(clean(bank.transfer(match, labels.shape[1:])[0] >= 0.5), found[i])
        if is_found(match, result.chance) and agreement >= SAME_MASK:
            result.labels[i], result.agreement[i], result.matches[i] = found[i], agreement, match
    result.missing = [i for i in range(len(pictures)) if i not in result.labels]
    return result


def most_typical(pictures: Sequence[np.ndarray]) -> int:
    """Index of the picture (log-luminance, all of one size) whose gradients correlate best with those of the others."""
    size = fit_size(pictures[0].shape, COARSE)
    rows = np.stack([resized(gradient_field(p), size).ravel() for p in pictures])
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return int((rows @ rows.sum(axis=0)).argmax())
