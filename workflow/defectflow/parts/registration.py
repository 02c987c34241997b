"""Gradient registration: find an annotated part in a new photograph and transfer its label.

Pictures are compared by the gradient of their log-luminance, which does not depend on exposure and gain, from coarse to
fine: a search over rotation, scale and shift (normalised cross-correlation by FFT) on a small picture is refined by
Gauss-Newton on larger ones to a similarity transform per template; the labels of the best templates vote. Sources:
normalised cross-correlation as in Lewis 1995, "Fast Normalized Cross-Correlation"; inverse-compositional Gauss-Newton
as in Baker & Matthews 2004, "Lucas-Kanade 20 Years On".

numpy and OpenCV only: torch is never imported here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from defectflow.parts.registration_frame import (
    compose,
    fit_size,
    frame_affine,
    gradient_field,
    invert,
    iou,
    mask_from_frame,
    mask_in_frame,
    resized,
    turning,
    warp,
)
from defectflow.parts.registration_level import Level

FINE, LABEL = 256, 512  # longest side in pixels: gradient fields, label masks
COARSE, MIDDLE = 80, 96  # the same for the search and the first refinement; larger if the part is small:
ACROSS_COARSE, ACROSS_MIDDLE = 20, 40  # pixels of its extent (square root of its area), up to twice COARSE and FINE
ROTATIONS = 6.0 * np.arange(-2, 3)  # degrees
SCALES = 1.1 ** np.arange(-1, 2)
SEEDS = 4  # templates in the search over rotation and scale; all are used after it
STARTS = 4  # best poses of the search to refine
VOTES, RESERVE = 13, 3  # templates that vote, and additional ones tried
STEPS, FINE_STEPS = 12, 3  # of Gauss-Newton at most, on the middle and the fine level
AGREEING = 0.85  # share of the best score that a template needs to vote
SAME = 0.97  # correlation of two whole pictures without alignment from which they are the same photograph


@dataclass
class Match:
    """The part found in a photograph.

    Attributes:
        score: normalised cross-correlation of the best template's gradient after refinement, in [-1, 1].
        templates: indices of the voting templates, best first.
        affines: for each of them the 2x3 affine from registration-frame coordinates of the template to those of
            the photograph.
        whole: correlation of the whole pictures, not only of the part, under the affine of the best, in [-1, 1].
    """

    score: float
    templates: list[int]
    affines: list[np.ndarray]
    whole: float


@dataclass
class Templates:
    """Annotated photographs in the registration frame.

    Attributes:
        fields: gradient fields, float32 (n, h, w, 2).
        labels: label masks as bool (n, H, W), longest side LABEL pixels.
    """

    fields: np.ndarray
    labels: np.ndarray

    @property
    def frame(self) -> tuple[int, int]:
        return self.fields.shape[1:3]

    @cached_property
    def levels(self) -> tuple[Level, Level, Level]:
        """The pyramid: for the search, for the first refinement, and the full size."""
        # A soft weight: the label, dilated by about 2 % so that its outline counts.
        grown = np.ones((2 * round(0.015 * max(self.frame)) + 1,) * 2, np.uint8)
        weights = np.stack([cv2.dilate(mask_in_frame(m, self.frame), grown) for m in self.labels])
        across = max(np.count_nonzero(self.labels) / self.labels.size, 1e-6) ** 0.5
        coarse = min(max(COARSE, round(ACROSS_COARSE / across)), 2 * COARSE)
        middle = min(max(MIDDLE, round(ACROSS_MIDDLE / across)), FINE)
        first, second, full = (
            Level(self.fields, weights, fit_size(self.frame, side)) for side in (coarse, middle, max(self.frame))
        )
        return first, second, full

    def register(
        self,
        log_lum: np.ndarray,
        leave_out: Sequence[int] = (),
        votes: int = VOTES,
        groups: np.ndarray | None = None,
    ) -> Match:
        """Find the part of the templates in a photograph.

        Args:
            log_lum: float32 of shape ``frame``, from :func:`log_luminance`.
            leave_out: template indices that must not be used; at least one must remain.
            votes: how many templates vote.
            groups: [n], group of each template; the group of the best one gets no vote, if there are others.
        """
        usable = np.ones(len(self.fields), bool)
        usable[np.asarray(leave_out, int)] = False
        allowed = np.flatnonzero(usable)  # np.unique and its kin import numpy.ma at their first use, which takes 14 ms
        coarse, middle, fine = self.levels
        field = gradient_field(log_lum)
        small, medium, full = coarse.reduced(field), cv2.split(middle.reduced(field)), cv2.split(field)
        # Twice: the first pass corrects the error of the search grid, so that the second compares all templates in the
        # right pose.
        seeds = allowed[np.linspace(0, len(allowed) - 1, min(SEEDS, len(allowed))).round().astype(int)]
        scores, affines = coarse.peaks(small, self._poses(), seeds)
        nearest = scores.argmax(axis=1)
        refined = [
            middle.refine(int(seeds[nearest[k]]), medium, affines[k, nearest[k]], STEPS)
            for k in np.argsort(-scores.max(axis=1), kind="stable")[:STARTS]
        ]
        pose = max(refined, key=lambda item: item[1])[0]
        (scores,), (affines,) = coarse.peaks(small, [pose], allowed)
        # All of them if the nearest must be known: on the small picture many may rank before it.
        order, count = np.argsort(-scores, kind="stable"), votes + RESERVE
        found = []
        for k in order if groups is not None else order[:count]:
            found.append((int(allowed[k]), *middle.refine(int(allowed[k]), medium, affines[k], STEPS)))
        if groups is not None:
            same = self.same_picture(field)
            nearest = groups[max(found, key=lambda item: item[2])[0] if same is None else same]
            found = ([item for item in found if groups[item[0]] != nearest] or found)[:count]
        found = sorted(found, key=lambda item: -item[2])[:votes]
        found = [(index, *fine.refine(index, full, affine, FINE_STEPS)) for index, affine, _ in found]
        found.sort(key=lambda item: -item[2])
        # A template that fits clearly worse did not converge and gets no vote. Even the best may be below 0.
        least = min(AGREEING * found[0][2], found[0][2])
        found = [item for item in found if item[2] >= least]
        index, affine, score = found[0]
        return Match(score, [i for i, _, _ in found], [a for _, a, _ in found], self._whole(index, small, affine))

    def same_picture(self, field: np.ndarray) -> int | None:
        """The template that is the same picture as the one with gradient field ``field``, if there is one.

        By the correlation of whole pictures without alignment: it need not be the one whose part fits best.
        """
        size = fit_size(self.frame, COARSE)
        seen = resized(field, size).ravel()
        alike = self._pictures @ seen / max(float(np.linalg.norm(seen)), 1e-9)
        nearest = int(alike.argmax())
        return nearest if alike[nearest] >= SAME else None

    def _whole(self, index: int, small: np.ndarray, affine: np.ndarray) -> float:
        """Correlation of the whole template, as far as it overlaps, with ``small``, a field of the coarse level."""
        coarse = self.levels[0]
        seen = coarse.seen(small, affine)
        inside = coarse.seen(np.ones_like(small), affine, turn=False) > 0.5
        template, seen = coarse.fields[index][inside], seen[inside]
        return float(np.vdot(template, seen) / max(np.linalg.norm(template) * np.linalg.norm(seen), 1e-9))

    @cached_property
    def _boxes(self) -> list[tuple[int, ...]]:
        """x, y, width, height of the box around each label."""
        return [tuple(cv2.boundingRect(label.view(np.uint8))) for label in self.labels]

    @cached_property
    def _pictures(self) -> np.ndarray:
        """The whole fields, small, one a row of length 1."""
        size = fit_size(self.frame, COARSE)
        coarse = self.levels[0]
        if coarse.frame == size:
            rows = coarse.fields.reshape(len(self.fields), -1)
        else:
            rows = np.stack([resized(field, size).ravel() for field in self.fields])
        unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return unit

    def _poses(self) -> list[np.ndarray]:
        """The grid of the search: affines that rotate and scale about the centre of the frame."""
        centre = (np.array(self.frame[::-1]) - 1) / 2
        linear = [scale * turning(np.radians(angle)).astype(float) for angle in ROTATIONS for scale in SCALES]
        return [np.hstack([part, (centre - part @ centre)[:, None]]) for part in linear]

    def transfer(self, match: Match, size: tuple[int, int]) -> tuple[np.ndarray, float]:
        """The label from the votes of the matched templates.

        Returns:
            Share of votes per pixel of the photograph (float32, ``size``, in [0, 1]; threshold at 0.5), and the mean
            IoU of the single transferred labels with that vote (1.0 for a single one).
        """
        label_frame = self.labels.shape[1:3]
        to_frame = frame_affine(label_frame, self.frame)  # registration frame -> label frame
        # template -> registration frame -> photograph, all in pixels of the label frame
        forth = [compose(to_frame, compose(affine, invert(to_frame))) for affine in match.affines]
        window = self._window(match.templates, forth)
        mean = np.zeros(label_frame, np.float32)
        inside, votes = mean[window], []
        corner = np.array([[1.0, 0, window[1].start], [0, 1, window[0].start]])
        for index, affine in zip(match.templates, forth, strict=True):
            label = self.labels[index].astype(np.float32)
            vote = warp(label, compose(invert(affine), corner), inside.shape, border=0)
            inside += vote
            votes.append(vote >= 0.5)
        inside /= len(votes)
        voted = inside >= 0.5
        agreement = float(np.mean([iou(vote, voted) for vote in votes]))
        return mask_from_frame(mean, size), agreement

    def _window(self, templates: Sequence[int], affines: Sequence[np.ndarray]) -> tuple[slice, slice]:
        """Rows and columns of the label frame that contain every label moved by its affine, at least one pixel."""
        corners = []
        for index, affine in zip(templates, affines, strict=True):
            x, y, width, height = self._boxes[index]
            box = [(x - 1, y - 1), (x + width, y - 1), (x - 1, y + height), (x + width, y + height)]
            corners.append(np.array(box) @ affine[:, :2].T + affine[:, 2])
        everywhere = np.concatenate(corners)
        least, most = np.floor(everywhere.min(axis=0)).astype(int), np.ceil(everywhere.max(axis=0)).astype(int) + 1
        height, width = self.labels.shape[1:3]
        x0, y0 = (int(np.clip(v, 0, side - 1)) for v, side in zip(least, (width, height), strict=True))
        x1, y1 = (int(np.clip(v, low + 1, side)) for v, low, side in zip(most, (x0, y0), (width, height), strict=True))
        return slice(y0, y1), slice(x0, x1)
