"""Gradient registration: find an annotated part again in a new photograph and carry its label over.

Pictures are compared by the gradient of their log-luminance, which exposure and gain leave alone. A search over
rotation, scale and shift (normalised cross-correlation by FFT) is refined by Gauss-Newton to a similarity transform
per template; the labels of the best templates vote.
Sources: normalised cross-correlation as in Lewis 1995, "Fast Normalized Cross-Correlation"; inverse-compositional
Gauss-Newton as in Baker & Matthews 2004, "Lucas-Kanade 20 Years On".

numpy and OpenCV only: torch is never imported here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from scipy import fft

FINE, COARSE, LABEL = 256, 96, 512  # longest side in pixels: refinement, search, label masks
ROTATION_STEP, SCALE_STEP = 4.0, 1.06  # degrees, factor
ROTATIONS = ROTATION_STEP * np.arange(-3, 4)
SCALES = SCALE_STEP ** np.arange(-2, 3)
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
SEEDS = 4  # templates in the search over rotation and scale; all of them enter after it
VOTES = 13
OUTLIER = 0.35  # residual of the gradient (length at most 1) above which a pixel pulls no harder: hands, glare, defects
AGREEING = 0.85  # share of the best score that a template needs to vote
PADDING = 1.3  # of the frame in the FFT, so that shifts do not wrap around


def fit_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) scaled down so that the longer side is ``longest`` pixels (never scaled up)."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def frame_affine(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """2x3 float64 affine that takes pixel-centre coordinates (x, y) of a ``target`` frame to those of ``source``.

    Sizes are (height, width). The aspect ratio is kept, the picture is centred in the target.
    """
    scale = max(source[0] / target[0], source[1] / target[1])
    x = (source[1] - target[1] * scale) / 2
    y = (source[0] - target[0] * scale) / 2
    return np.array([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]])


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Affine (2x3) ``x -> outer(inner(x))``."""
    return outer @ np.vstack([inner, [0, 0, 1]])


def invert(affine: np.ndarray) -> np.ndarray:
    """Inverse of a 2x3 affine."""
    return cv2.invertAffineTransform(affine)


def log_luminance(image: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Log-luminance float32 of an RGB uint8 (height, width, 3) picture, fitted into ``frame``, edges repeated."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = max(image.shape[0] / frame[0], image.shape[1] / frame[1])
    small = (max(1, round(image.shape[0] / scale)), max(1, round(image.shape[1] / scale)))
    grey = cv2.resize(grey, small[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)
    if small != frame:
        to_small = frame_affine(small, frame)
        grey = warp(grey, to_small, frame)
    return np.log(grey.astype(np.float32) + 4)


def warp(image: np.ndarray, affine: np.ndarray, frame: tuple[int, int], border: int | None = None) -> np.ndarray:
    """Sample ``image`` at ``affine(x)`` for every pixel x of ``frame``; outside: edges repeated, or ``border``."""
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, affine, frame[::-1], flags=flags, borderMode=mode, borderValue=border or 0)


def gradient_field(log_lum: np.ndarray) -> np.ndarray:
    """Gradient of a log-luminance picture, float32 (height, width, 2), length squashed into [0, 1) by tanh."""
    dx = cv2.Sobel(log_lum, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(log_lum, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    length = np.hypot(dx, dy)
    typical = max(2 * float(length.mean()), 0.01)
    gain = np.tanh(length / typical) / np.maximum(length, 1e-6)
    return np.stack([dx * gain, dy * gain], axis=-1)


def mask_in_frame(mask: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """A bool mask (height, width) fitted into ``frame``, uint8 0..255 with soft edges."""
    scale = max(mask.shape[0] / frame[0], mask.shape[1] / frame[1])
    small = (max(1, round(mask.shape[0] / scale)), max(1, round(mask.shape[1] / scale)))
    grey = cv2.resize(mask.astype(np.uint8) * 255, small[::-1], interpolation=cv2.INTER_AREA)
    return grey if small == frame else warp(grey, frame_affine(small, frame), frame, border=0)


def mask_from_frame(soft: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A soft mask float32 in a frame, back to the photograph's (height, width), still soft."""
    return warp(soft, invert(frame_affine(size, soft.shape[:2])), size, border=0)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks of one shape; two empty masks agree (1.0)."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def _rotation(affine: np.ndarray) -> tuple[float, float]:
    """Rotation in radians and scale of the similarity part of a 2x3 affine."""
    return float(np.arctan2(affine[1, 0], affine[0, 0])), float(np.hypot(affine[0, 0], affine[1, 0]))


def _unrotate(vectors: np.ndarray, angle: float) -> np.ndarray:
    """Rotate the vectors (last axis) of a field by ``-angle``."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.stack([c * vectors[..., 0] + s * vectors[..., 1], c * vectors[..., 1] - s * vectors[..., 0]], axis=-1)


class Spectrum:
    """Templates of one size prepared for normalised cross-correlation by FFT."""

    def __init__(self, fields: np.ndarray, weights: np.ndarray):
        """``fields``: (n, h, w, 2) float32; ``weights``: (n, h, w) in [0, 1]."""
        self.frame = fields.shape[1:3]
        self.shape = tuple(fft.next_fast_len(int(s * PADDING), real=True) for s in self.frame)
        weighted = fields * weights[..., None]
        self.fields = np.conj(self._fft(np.moveaxis(weighted, -1, 1)))
        self.weights = np.conj(self._fft(weights))
        self.norms = np.sqrt((weighted * fields).sum(axis=(1, 2, 3)))
        self.areas = weights.sum(axis=(1, 2))

    def _fft(self, x: np.ndarray) -> np.ndarray:
        return fft.rfft2(x.astype(np.float32), self.shape)

    def peaks(self, picture: np.ndarray, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Best NCC (n,) in [-1, 1] and its shift (n, 2) = (x, y) in whole pixels, template to picture."""
        chosen = list(chosen)
        picture_fft = self._fft(np.moveaxis(picture, -1, 0))
        energy_map = (picture**2).sum(axis=-1)
        product = (self.fields[chosen] * picture_fft).sum(axis=1)
        numerator = fft.irfft2(product, self.shape)
        energy = fft.irfft2(self.weights[chosen] * self._fft(energy_map), self.shape)
        # Where the template would lie on emptiness (or outside) the quotient means nothing: keep a floor under it.
        floor = 0.5 * self.areas[chosen, None, None] * max(float(energy_map.mean()), 1e-3)
        ncc = numerator / (self.norms[chosen, None, None] * np.sqrt(np.maximum(energy, floor)) + 1e-9)
        flat = ncc.reshape(len(chosen), -1).argmax(axis=1)
        y, x = np.unravel_index(flat, self.shape)
        y = np.where(y > self.shape[0] // 2, y - self.shape[0], y)
        x = np.where(x > self.shape[1] // 2, x - self.shape[1], x)
        return ncc.reshape(len(chosen), -1)[np.arange(len(chosen)), flat], np.stack([x, y], axis=1).astype(float)


@dataclass
class Match:
    """Where a photograph shows the part.

    Attributes:
        score: normalised cross-correlation of the best template's gradient after refinement, in [-1, 1].
        templates: indices of the voting templates, best first.
        affines: for each of them the 2x3 affine from registration-frame coordinates of the template to those of
            the photograph.
    """

    score: float
    templates: list[int]
    affines: list[np.ndarray]


@dataclass
class Templates:
    """Annotated photographs in the registration frame.

    Attributes:
        fields: gradient fields, float32 (n, h, w, 2).
        labels: label masks as bool (n, H, W), longest side LABEL pixels.
    """

    fields: np.ndarray
    labels: np.ndarray
    _normal: dict[int, tuple] = field(default_factory=dict, repr=False)

    @property
    def frame(self) -> tuple[int, int]:
        return self.fields.shape[1:3]

    @cached_property
    def weights(self) -> np.ndarray:
        """Soft weight (n, h, w): the label, dilated by about 2 % so that its outline counts."""
        grown = np.ones((2 * round(0.015 * max(self.frame)) + 1,) * 2, np.uint8)
        return np.stack([cv2.dilate(mask_in_frame(m, self.frame), grown) for m in self.labels]).astype(np.float32) / 255

    @cached_property
    def coarse(self) -> Spectrum:
        frame = fit_size(self.frame, COARSE)
        fields = np.stack([cv2.resize(f, frame[::-1], interpolation=cv2.INTER_AREA) for f in self.fields])
        weights = np.stack([cv2.resize(w, frame[::-1], interpolation=cv2.INTER_AREA) for w in self.weights])
        return Spectrum(fields, weights)

    def register(self, log_lum: np.ndarray, leave_out: Sequence[int] = (), votes: int = VOTES) -> Match:
        """Find the part of the templates in a photograph.

        Args:
            log_lum: float32 of shape ``frame``, from :func:`log_luminance`.
            leave_out: template indices that may not be used; at least one must remain.
            votes: how many templates vote.
        """
        allowed = np.setdiff1d(np.arange(len(self.fields)), np.asarray(leave_out, int))
        # Twice: the first pass corrects what the grid of the search leaves, so that the second compares all templates
        # in the right pose.
        start = self._search(log_lum, allowed)
        nearest = self._nearest(gradient_field(warp(log_lum, start, self.frame)), allowed, 3)
        final = compose(start, nearest[0][1])
        found = self._nearest(gradient_field(warp(log_lum, final, self.frame)), allowed, votes + 3)
        # A template that fits clearly worse did not converge: it has no vote.
        found = [item for item in found[:votes] if item[2] >= AGREEING * found[0][2]]
        return Match(found[0][2], [i for i, _, _ in found], [compose(final, affine) for _, affine, _ in found])

    def _nearest(self, upright: np.ndarray, allowed: np.ndarray, count: int) -> list[tuple[int, np.ndarray, float]]:
        """The ``count`` most similar templates, refined: (template, affine to the picture, score), best first."""
        spectrum = self.coarse
        small = cv2.resize(upright, spectrum.frame[::-1], interpolation=cv2.INTER_AREA)
        scores, shifts = spectrum.peaks(small, allowed)
        found = []
        for i in np.argsort(-scores, kind="stable")[:count]:
            affine = np.eye(2, 3)
            affine[:, 2] = shifts[i] * self.frame[1] / spectrum.frame[1]
            found.append((int(allowed[i]), *self._refine(int(allowed[i]), upright, affine)))
        return sorted(found, key=lambda item: -item[2])

    def _search(self, log_lum: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Rotation, scale and shift (2x3 affine, template to picture) that correlate best on the coarse level."""
        seeds = allowed[np.unique(np.linspace(0, len(allowed) - 1, min(SEEDS, len(allowed))).round().astype(int))]
        centre = (np.array(self.frame[::-1]) - 1) / 2
        spectrum = self.coarse

        def attempt(angle: float, scale: float) -> tuple[float, float, float, np.ndarray]:
            c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
            linear = np.array([[c, -s], [s, c]])
            turn = np.hstack([linear, (centre - linear @ centre)[:, None]])
            turned = gradient_field(warp(log_lum, turn, self.frame))
            small = cv2.resize(turned, spectrum.frame[::-1], interpolation=cv2.INTER_AREA)
            scores, shifts = spectrum.peaks(small, seeds)
            shift = np.eye(2, 3)
            shift[:, 2] = shifts[scores.argmax()] * self.frame[1] / spectrum.frame[1]
            return float(scores.max()), angle, scale, compose(turn, shift)

        best = max((attempt(a, s) for a in ROTATIONS for s in SCALES), key=lambda found: found[0])
        for half in (0.5, 0.25):
            near = [(best[1] + i * half * ROTATION_STEP, best[2] * SCALE_STEP ** (j * half)) for i, j in NEIGHBOURS]
            best = max([best, *(attempt(a, s) for a, s in near)], key=lambda found: found[0])
        return best[3]

    def _prepare(self, index: int) -> tuple:
        """What Gauss-Newton needs of a template: pixels, their weight, field, coordinates and the solver matrix."""
        if index not in self._normal:
            weight = self.weights[index]
            rows, cols = np.nonzero(weight > 0.05)
            w, t = np.sqrt(weight[rows, cols]), self.fields[index]
            size = max(self.frame) / 4
            x, y = (cols - cols.mean()) / size, (rows - rows.mean()) / size
            columns = []
            for channel in range(2):
                tx = cv2.Sobel(t[..., channel], cv2.CV_32F, 1, 0, scale=1 / 8)[rows, cols] * size
                ty = cv2.Sobel(t[..., channel], cv2.CV_32F, 0, 1, scale=1 / 8)[rows, cols] * size
                # The vectors turn with the picture: the last term of the rotation's column.
                turn = x * ty - y * tx + (t[rows, cols, 1] if channel == 0 else -t[rows, cols, 0])
                columns.append(np.stack([x * tx + y * ty, turn, tx, ty, t[rows, cols, channel]], axis=1))
            system = np.concatenate([c * w[:, None] for c in columns])
            solver = np.linalg.solve(system.T @ system + 1e-3 * np.eye(5), system.T).astype(np.float32)
            field_ = np.concatenate([t[rows, cols, 0] * w, t[rows, cols, 1] * w]).astype(np.float32)
            self._normal[index] = (rows, cols, w.astype(np.float32), field_, (cols.mean(), rows.mean(), size), solver)
        return self._normal[index]

    def _refine(self, index: int, picture: np.ndarray, affine: np.ndarray, steps: int = 12) -> tuple[np.ndarray, float]:
        """Gauss-Newton (Huber's weights) to the similarity that correlates best; the best affine seen and its NCC."""
        rows, cols, w, template, (cx, cy, size), solver = self._prepare(index)
        norm = float(np.linalg.norm(template)) + 1e-9
        best, best_score = affine, -np.inf
        for _ in range(steps):
            sampled = _unrotate(warp(picture, affine, self.frame, border=0)[rows, cols], _rotation(affine)[0])
            values = np.concatenate([sampled[:, 0] * w, sampled[:, 1] * w])
            energy = float(np.linalg.norm(values))
            score = float(values @ template) / (norm * max(energy, 0.1 * norm))
            if score < best_score + 1e-5:
                break
            best, best_score = affine, score
            residual = values * (norm / max(energy, 0.1 * norm)) - template
            length = np.hypot(*residual.reshape(2, -1)) / w
            step = solver @ (residual * np.tile(np.minimum(1, OUTLIER / np.maximum(length, 1e-6)), 2))
            # Columns of the solver: scale, rotation, shift x, shift y (in units of `size`), gain.
            linear = np.array([[1 + step[0], -step[1]], [step[1], 1 + step[0]]], float)
            shift = np.array([step[2], step[3]], float) * size
            centre = np.array([cx, cy])
            delta = np.hstack([linear, (centre - linear @ centre + shift)[:, None]])
            affine = compose(affine, invert(delta))
            angle, scale = _rotation(affine)
            if abs(angle) > np.radians(12) or not 0.85 < scale < 1.18:
                break
        return best, best_score

    def transfer(self, match: Match, size: tuple[int, int]) -> tuple[np.ndarray, float]:
        """The label that the matched templates vote for.

        Returns:
            Share of votes per pixel of the photograph (float32, ``size``, in [0, 1]; threshold at 0.5), and the mean
            IoU of the single transferred labels with that vote (1.0 for a single one).
        """
        label_frame = self.labels.shape[1:3]
        to_frame = frame_affine(label_frame, self.frame)  # registration frame -> label frame
        votes = []
        for index, affine in zip(match.templates, match.affines, strict=True):
            # photograph (label frame) -> registration frame -> template -> label frame
            back = compose(to_frame, compose(invert(affine), invert(to_frame)))
            votes.append(warp(self.labels[index].astype(np.float32), back, label_frame, border=0))
        mean = np.mean(votes, axis=0)
        agreement = float(np.mean([iou(v >= 0.5, mean >= 0.5) for v in votes]))
        return mask_from_frame(mean, size), agreement
