"""The common shape of the masks of a part, whatever its position and rotation, and what a single mask lacks of it.

A part found without an outline may be found without its damage, if that looks like background. The masks of all
photographs together show the shape of the part, and what one mask lacks of it belongs to the part.

Masks are aligned by affine maps that are nearly similarities: by their moments in all rotations, then by the number of
outline points near the outline of the shape, which is not affected by a missing piece (H. Barrow et al., Parametric
correspondence and chamfer matching, 1977). The shape is the mean of the half of the masks that agree
best, as in least trimmed squares (P. Rousseeuw, 1984): damaged parts each differ in their own way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from defectflow.parts.registration_frame import fit_size, iou

FRAME = 160  # pixels, side of the frame of the shape
EXTENT = 0.22  # radius of gyration of the shape, as a share of the frame: a disc fills 0.62 of it, a rod 0.76
LOOKED_AT = 512  # pixels, longest side of masks when aligned and completed
POINTS, ROTATIONS = 160, 36  # of an outline; of the search
NEAR = (0.04, 0.015)  # shares of the frame within which outlines count as near: in the search, in its refinement
SQUEEZED = 0.15  # at most, see `Pose`: a disc may appear as an ellipse of three quarters of its width
UNLIKELY = 0.5  # penalty per unit of squeeze, as a share of the outline
STARTS, STEPS = 3, 40  # number of refined poses, and of steps at most
ALIKE = 0.85  # median IoU of aligned masks with the shape from which it counts as common
FEWEST = 4  # masks needed for a shape
INSIDE, ENOUGH = 0.8, 0.5  # needed to complete a mask: share of it inside the shape, and of the shape inside it
THIN = 0.03  # of the shape's diameter: half the width of a border that may be missing, since parts vary
DENT = 0.01  # the same inside the convex hull of a mask, where there are only dents
LARGE = 0.01  # share of the shape from which a notch counts as damage
TRIED = 5  # masks tried as the first shape
TAUGHT = 60  # masks used for the shape, at most
# A mask is unlike the others from so many robust deviations (of at least LEAST in IoU) below the best half.
UNLIKE, LEAST = 4.0, 0.01


@dataclass(frozen=True)
class Completed:
    """A mask completed by the common shape.

    Attributes:
        mask: bool (height, width), the mask and what was added.
        fit: IoU of the completed mask with the aligned shape.
        added: share of the shape that was missing and was added.
    """

    mask: np.ndarray
    fit: float
    added: float


@dataclass(frozen=True)
class CommonShape:
    """The mean of aligned masks.

    Attributes:
        mean: uint8 (FRAME, FRAME), share of the masks that have a pixel, 255 for all.
        agreement: median IoU of all aligned masks with the shape, in [0, 1].
        usual: IoU with the shape below which a mask differs from the half that agrees best.
    """

    mean: np.ndarray
    agreement: float = 0.0
    usual: float = 0.0

    @classmethod
    def fit(cls, masks: Sequence[np.ndarray]) -> "CommonShape | None":
        """The shape of bool masks (height, width) of any sizes; None if there are too few, or none can be aligned."""
        small = [reduced(mask) for mask in masks[:: max(1, -(-len(masks) // TAUGHT))] if mask.any()]
        usable = [mask for mask in small if len(outline_points(mask))]
        if len(usable) < FEWEST:
            return None
        areas = np.array([mask.mean() for mask in usable])
        order = np.argsort(np.abs(np.log(areas / np.median(areas))), kind="stable")[:TRIED]
        tried = [cls(_alone(usable[k]))._laid(usable) for k in order]
        laid, own = max(tried, key=lambda pair: _upper(pair[1]).mean())
        for _ in range(3):
            shape = cls(np.rint(255 * laid[own >= np.median(own)].mean(axis=0)).astype(np.uint8))
            laid, own = shape._laid(usable)
        most = _upper(own)
        spread = max(LEAST, 1.4826 * float(np.median(np.abs(most - np.median(most)))))
        return cls(shape.mean, float(np.median(own)), float(np.median(most)) - UNLIKE * spread)

    @property
    def alike(self) -> bool:
        """Whether the masks share a shape."""
        return self.agreement >= ALIKE

    @cached_property
    def inside(self) -> np.ndarray:
        """The shape, bool (FRAME, FRAME)."""
        return self.mean >= 128

    @cached_property
    def _near(self) -> list[np.ndarray]:
        """Nearness of each pixel to the outline of the shape, in [0, 1], for each of NEAR."""
        line = cv2.morphologyEx(self.inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        distance = cv2.distanceTransform(1 - line, cv2.DIST_L2, 3)
        return [np.exp(-((distance / (share * FRAME)) ** 2) / 2).astype(np.float32) for share in NEAR]

    def align(self, mask: np.ndarray) -> "Pose":
        """Pose of a bool mask (height, width), not empty, on the shape."""
        x, y, radius = _moments(mask)
        middle, centre = complex(x, y), (FRAME - 1) / 2 * (1 + 1j)
        line = outline_points(mask) - middle
        turns = EXTENT * FRAME / radius * np.exp(2j * np.pi * np.arange(ROTATIONS) / ROTATIONS)
        poses = np.stack([turns, np.zeros_like(turns), np.full_like(turns, centre)], axis=1)
        if not len(line):  # all of it is on the border of the picture
            return Pose.of(poses[0], middle)

        def near(poses: np.ndarray, level: int = 1) -> np.ndarray:
            lies = _looked_up(self._near[level], line, poses).mean(axis=1)
            result: np.ndarray = lies - UNLIKELY * np.abs(poses[:, 1])
            return result

        order = np.argsort(-near(poses, 0), kind="stable")[:STARTS]
        found = [_climb(near, _climb(near, poses[k], SIMILAR)[1], MOVES) for k in order]
        return Pose.of(max(found, key=lambda pair: pair[0])[1], middle)

    def complete(self, mask: np.ndarray) -> Completed:
        """Fill in what a bool mask (height, width) lacks of the shape: deep notches, slits, holes and missing pieces.

        Parts vary a little: if a mask then fits the shape as well as most do, only places inside its convex hull are
        filled. A mask that extends far outside the shape, or covers only a small part of it, is not changed: it shows
        something else.
        """
        small = reduced(mask)
        if not small.any():
            return Completed(mask, 0.0, 0.0)
        shape = self._seen(self.align(small), small.shape)
        notches = missing_pieces(small, shape & _hull(small), _thin(shape, DENT))
        # The hull cuts across the mouth of a notch; there, the shape is filled in too.
        mouths = cv2.dilate(_large(notches, LARGE * np.count_nonzero(shape)), _disc(2 * _thin(shape))).view(bool)
        lacks = notches | missing_pieces(small | notches, shape & mouths, _thin(shape, DENT))
        if iou(small | lacks, shape) < self.usual:
            lacks |= missing_pieces(small, shape, _thin(shape))
        common, area = np.count_nonzero(small & shape), np.count_nonzero(shape)
        if common < INSIDE * np.count_nonzero(small) or common < ENOUGH * area:
            return Completed(mask, iou(small, shape), 0.0)
        fit = iou(small | lacks, shape)
        if not lacks.any():
            return Completed(mask, fit, 0.0)
        added = cv2.resize(lacks.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
        both = mask | added
        if seam := round(max(mask.shape) / max(small.shape)) // 2:  # narrower than a pixel of the small picture
            both = cv2.morphologyEx(both.view(np.uint8), cv2.MORPH_CLOSE, _disc(seam)).view(bool)
        return Completed(both, fit, np.count_nonzero(lacks) / area)

    def _seen(self, pose: "Pose", size: tuple[int, int]) -> np.ndarray:
        """The shape in a picture of ``size`` (height, width), bool."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self.mean, pose.to_frame(), size[::-1], flags=flags) >= 128

    def _laid(self, masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Masks aligned in the frame, float32 (n, FRAME, FRAME), and IoU of each with the shape, (n,)."""
        laid = []
        for mask in masks:
            to_picture = cv2.invertAffineTransform(self.align(mask).to_frame())
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            laid.append(cv2.warpAffine(mask.astype(np.float32), to_picture, (FRAME, FRAME), flags=flags))
        return np.stack(laid), np.array([iou(one >= 0.5, self.inside) for one in laid])


@dataclass(frozen=True)
class Pose:
    """Pose of a mask on a shape.

    A point z = x + iy of the picture is at turn * (w + squeeze * conj(w)) + place in the frame, with w = z - middle:
    a similarity with a small perspective distortion.
    """

    turn: complex
    squeeze: complex
    place: complex
    middle: complex

    @classmethod
    def of(cls, pose: np.ndarray, middle: complex) -> "Pose":
        """From an array of turn, squeeze and place."""
        return cls(complex(pose[0]), complex(pose[1]), complex(pose[2]), middle)

    def to_frame(self) -> np.ndarray:
        """2x3 affine from the picture to the frame."""
        a, b = self.turn, self.turn * self.squeeze
        linear = np.array([[a.real + b.real, b.imag - a.imag], [a.imag + b.imag, a.real - b.real]])
        move = np.array([self.place.real, self.place.imag]) - linear @ [self.middle.real, self.middle.imag]
        return np.hstack([linear, move[:, None]])


# Steps of `_climb` in scale, rotation, squeeze and place.
MOVES = np.concatenate([np.eye(6), -np.eye(6)]) * [0.08, np.radians(6), 0.04, 0.04, 0.03 * FRAME, 0.03 * FRAME]


SIMILAR = MOVES[[0, 1, 4, 5, 6, 7, 10, 11]]  # those without squeeze


def _climb(score: Callable[[np.ndarray], np.ndarray], pose: np.ndarray, moves: np.ndarray) -> tuple[float, np.ndarray]:
    """Hill climbing from a pose (turn, squeeze, place): best pose and its score; `score` takes (n, 3)."""
    step, taken = 1.0, 0
    best = float(score(pose[None])[0])
    while step > 0.05 and taken < STEPS:
        change = moves * step
        poses = np.stack([
            pose[0] * np.exp(change[:, 0] + 1j * change[:, 1]),
            pose[1] + change[:, 2] + 1j * change[:, 3],
            pose[2] + change[:, 4] + 1j * change[:, 5],
        ], axis=1)  # fmt: skip
        scores = np.where(np.abs(poses[:, 1]) <= SQUEEZED, score(poses), -1)
        k, taken = int(scores.argmax()), taken + 1
        if scores[k] > best + 1e-6:
            best, pose = float(scores[k]), poses[k]
        else:
            step /= 2
    return best, pose


def _looked_up(values: np.ndarray, points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Values of the frame at complex points (k,), from the middle of a mask, in poses (n, 3), 0 outside: (n, k)."""
    moved = poses[:, :1] * (points + poses[:, 1:2] * points.conj()) + poses[:, 2:]
    x, y = np.rint(moved.real).astype(int), np.rint(moved.imag).astype(int)
    seen = (x >= 0) & (y >= 0) & (x < FRAME) & (y < FRAME)
    found: np.ndarray = values[y.clip(0, FRAME - 1), x.clip(0, FRAME - 1)] * seen
    return found


def _upper(values: np.ndarray) -> np.ndarray:
    """The larger half of values."""
    larger: np.ndarray = values[values >= np.median(values)]
    return larger


def _hull(mask: np.ndarray) -> np.ndarray:
    """Convex hull of a bool mask that is not empty, bool of its size."""
    lines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(lines))
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), [hull], -1, 1, cv2.FILLED).view(bool)


def missing_pieces(mask: np.ndarray, shape: np.ndarray, radius: int) -> np.ndarray:
    """What a bool mask lacks of a bool shape of its size, except a border up to twice `radius` pixels wide: bool."""
    lacks = shape & ~mask
    deep = cv2.morphologyEx(lacks.view(np.uint8), cv2.MORPH_OPEN, _disc(radius))
    wide = cv2.dilate(deep, _disc(radius)).view(bool)
    closed = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_CLOSE, _disc(radius)).view(bool)
    # A place enclosed by the rest of the mask is a hole, however thin, unless the shape has one there.
    lines, _ = cv2.findContours(closed.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), lines, -1, 1, cv2.FILLED).view(bool)
    count, hole = cv2.connectedComponents((filled & ~closed).view(np.uint8))
    within = np.bincount(hole.ravel(), shape.ravel(), count) / np.maximum(np.bincount(hole.ravel(), None, count), 1)
    within[0] = 0
    missing: np.ndarray = lacks & (wide | closed | (within >= 0.5)[hole])
    return missing


def _thin(shape: np.ndarray, share: float = THIN) -> int:
    """A share of the diameter of a bool shape, in pixels, at least 1."""
    return max(1, round(share * float(np.sqrt(4 / np.pi * np.count_nonzero(shape)))))


def _large(pieces: np.ndarray, least: float) -> np.ndarray:
    """The connected pieces of a bool picture with at least ``least`` pixels, uint8."""
    _, label, stats, _ = cv2.connectedComponentsWithStats(pieces.view(np.uint8))
    kept = stats[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    pieces = kept[label].astype(np.uint8)
    return pieces


def reduced(mask: np.ndarray) -> np.ndarray:
    """A bool mask at LOOKED_AT pixels or less."""
    size = fit_size(mask.shape, LOOKED_AT)
    if size == mask.shape:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def outline_points(mask: np.ndarray) -> np.ndarray:
    """About POINTS points x + iy of the outlines of a bool mask, except on the border of the picture, complex."""
    lines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([line[:, 0] for line in lines]) if lines else np.zeros((0, 2), int)
    height, width = mask.shape
    x, y = points.T
    points = points[(x > 1) & (y > 1) & (x < width - 2) & (y < height - 2)]
    drawn: np.ndarray = points[:: max(1, len(points) // POINTS)] @ np.array([1, 1j])
    return drawn


def _moments(mask: np.ndarray) -> tuple[float, float, float]:
    """Centre x, y and radius of gyration of a bool mask that is not empty, in pixels."""
    m = cv2.moments(mask.view(np.uint8), binaryImage=True)
    return m["m10"] / m["m00"], m["m01"] / m["m00"], max(1.0, float(np.sqrt((m["mu20"] + m["mu02"]) / m["m00"])))


def _alone(mask: np.ndarray) -> np.ndarray:
    """A mask as a shape: uint8 (FRAME, FRAME), its centre in the middle, at EXTENT."""
    x, y, radius = _moments(mask)
    scale, half = radius / (EXTENT * FRAME), (FRAME - 1) / 2
    affine = np.array([[scale, 0, x - scale * half], [0, scale, y - scale * half]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask.astype(np.uint8) * 255, affine, (FRAME, FRAME), flags=flags)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
