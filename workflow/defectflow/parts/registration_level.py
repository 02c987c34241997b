"""One resolution of a registration: the best correlation of templates, and Gauss-Newton steps from there.

numpy and OpenCV only: torch is never imported here.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from defectflow.parts.registration_frame import compose, frame_affine, invert, rotation_of, turning, warp
from defectflow.parts.registration_search import Spectrum

GAIN = 1e-4  # in correlation, below which the iteration ends
OUTLIER = 0.35  # gradient residual (length at most 1) above which a pixel's influence is limited: hands, glare, defects
VISIBLE = 0.05  # weight above which a pixel of a template is used
POINTS = 4096  # pixels of a template used, evenly spread, or up to twice as many; more do not help
TURNED = math.radians(12)  # a refinement that rotates farther than this from its start has failed
ROW = 64  # pixels are sampled in rows of this length


class Level:
    """Templates in a frame of their own size or a smaller one. Affines are in pixels of the full size."""

    def __init__(self, fields: np.ndarray, weights: np.ndarray, frame: tuple[int, int]):
        """``fields`` (n, h, w, 2) and ``weights``, uint8 (n, h, w), of the full size; ``frame``: (height, width)."""
        self._to_full = frame_affine(weights.shape[1:], frame)
        self._from_full = invert(self._to_full)
        self.frame = frame
        self._fields, self._weights = fields, weights
        self._prepared: dict[int, tuple[Any, ...] | None] = {}

    def reduced(self, picture: np.ndarray) -> np.ndarray:
        """A field or mask of the full size, averaged down to this size."""
        if picture.shape[:2] == self.frame:
            return picture
        return cv2.resize(picture, self.frame[::-1], interpolation=cv2.INTER_AREA)

    def _field(self, index: int) -> np.ndarray:
        return self.reduced(self._fields[index])

    def _weight(self, index: int) -> np.ndarray:
        return self.reduced(self._weights[index].astype(np.float32) / 255)

    @cached_property
    def fields(self) -> np.ndarray:
        """Of all templates, float32 (n, h, w, 2) of this frame."""
        return np.stack([self._field(k) for k in range(len(self._fields))])

    @cached_property
    def _spectrum(self) -> Spectrum:
        return Spectrum(self.fields, np.stack([self._weight(k) for k in range(len(self._fields))]))

    def peaks(
        self, picture: np.ndarray, affines: Sequence[np.ndarray], chosen: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare templates with a field of this frame under each of m ``affines``, template to picture.

        Returns:
            Best NCC (m, n) of each of the n chosen templates, and the affines including the best shift (m, n,
            2, 3).
        """
        poses = np.stack(affines)
        scores, shifts = self._spectrum.peaks(np.stack([self.seen(picture, affine) for affine in poses]), chosen)
        shifted = np.repeat(poses[:, None], len(chosen), axis=1)
        shifted[..., 2] += (shifts * self._to_full[[0, 1], [0, 1]]) @ poses[..., :2].swapaxes(1, 2)
        return scores, shifted

    def seen(self, picture: np.ndarray, affine: np.ndarray, turn: bool = True) -> np.ndarray:
        """A field of this frame as seen by a template under ``affine``; vectors are rotated if ``turn``."""
        seen = warp(picture, self._own(affine), self.frame, border=0)
        return seen @ turning(rotation_of(affine)[0]) if turn else seen

    def _own(self, affine: np.ndarray) -> np.ndarray:
        return compose(self._from_full, compose(affine, self._to_full))

    def _prepare(self, index: int) -> tuple[Any, ...] | None:
        """Data of a template for Gauss-Newton, at n pixels of the part; None if it has none.

        Their positions, float32 (3, n) = x, y, 1; square roots of their weights (n,), field (2, n) times these, its
        norm, centre (x, y), unit of length, solver (5, 2 n). n is a multiple of ROW, or less than that.
        """
        if index not in self._prepared:
            weight, t = self._weight(index), self._field(index)
            rows, cols = np.nonzero(weight > VISIBLE)
            if not len(rows):
                return self._prepared.setdefault(index, None)
            step = max(1, len(rows) // POINTS)
            rows, cols = rows[::step], cols[::step]
            rows, cols = (a[: len(a) // ROW * ROW or len(a)] for a in (rows, cols))
            w = np.sqrt(weight[rows, cols])
            centre, size = np.array([cols.mean(), rows.mean()]), max(self.frame) / 4
            x, y = (cols - centre[0]) / size, (rows - centre[1]) / size
            dx, dy = (cv2.Sobel(t, cv2.CV_32F, *axis, scale=size / 8)[rows, cols].T for axis in ((1, 0), (0, 1)))
            field = t[rows, cols].T
            # Scale, rotation, shift x, shift y, gain. Vectors rotate with the picture: last term of the rotation.
            turned = np.stack([field[1], -field[0]])
            system = np.stack([x * dx + y * dy, x * dy - y * dx + turned, dx, dy, field]) * w
            system = system.reshape(5, -1)
            solver = (np.linalg.inv(system @ system.T + 1e-3 * np.eye(5)) @ system).astype(np.float32)
            points = np.stack([cols, rows, np.ones_like(rows)]).astype(np.float32)
            template = field * w
            norm = float(np.linalg.norm(template)) + 1e-9
            self._prepared[index] = (points, w, np.ascontiguousarray(template), norm, centre, size, solver)
        return self._prepared[index]

    def refine(
        self, index: int, picture: Sequence[np.ndarray], affine: np.ndarray, steps: int
    ) -> tuple[np.ndarray, float]:
        """Gauss-Newton with Huber weights for the similarity with the best correlation.

        Args:
            index: of the template.
            picture: both components of a field of this frame, float32 (h, w) each.
            affine: start, 2x3, template to picture.
            steps: largest number of steps.

        Returns:
            The best affine seen and its NCC.
        """
        prepared = self._prepare(index)
        if prepared is None:  # a label smaller than a pixel
            return affine, 0.0
        points, w, template, norm, centre, size, solver = prepared
        affine = self._own(affine)
        first_angle, first_scale = rotation_of(affine)
        best, best_score = affine, -np.inf
        shape = (2, -1, min(ROW, len(w)))
        # Reused in each step: allocating arrays would take as long as the arithmetic.
        seen, values, residual = (np.empty_like(template) for _ in range(3))
        planes, length, other = seen.reshape(shape), np.empty_like(w), np.empty_like(w)
        for _ in range(steps):
            x, y = (affine.astype(np.float32) @ points).reshape(shape)
            for plane, out in zip(picture, planes, strict=True):
                cv2.remap(plane, x, y, cv2.INTER_LINEAR, out, borderMode=cv2.BORDER_CONSTANT)
            np.matmul(turning(rotation_of(affine)[0]).T, seen, out=values)
            values *= w
            energy = max(float(np.sqrt(np.dot(values.ravel(), values.ravel()))), 0.1 * norm)
            score = float(np.dot(values.ravel(), template.ravel())) / (norm * energy)
            gain = score - best_score
            if gain > 0:
                best, best_score = affine, score
            if gain < GAIN:
                break
            np.multiply(values, norm / energy, out=residual)
            residual -= template
            np.multiply(residual[0], residual[0], out=length)
            length += np.multiply(residual[1], residual[1], out=other)
            np.sqrt(length, out=length)
            length /= w
            np.maximum(length, 1e-6, out=length)
            np.divide(OUTLIER, length, out=length)
            residual *= np.minimum(1, length, out=length)
            step = (solver @ residual.ravel()).astype(float)
            # Scale, rotation, shift x, shift y (in units of `size`), gain.
            linear = np.array([[1 + step[0], -step[1]], [step[1], 1 + step[0]]])
            delta = np.empty((2, 3))
            delta[:, :2], delta[:, 2] = linear, centre - linear @ centre + step[2:4] * size
            affine = compose(affine, invert(delta))
            angle, scale = rotation_of(affine)
            if abs(angle - first_angle) > TURNED or not 0.85 < scale / first_scale < 1.18:
                break
        return compose(self._to_full, compose(best, self._from_full)), best_score
