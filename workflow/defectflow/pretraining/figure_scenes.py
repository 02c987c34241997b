"""Pictures for `pretrain_part` with their figures: photographs, pasted objects, rendered parts, surfaces.

Every function uses the given random generator, so seed and step determine the pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from defectflow.core.files import atomic
from defectflow.finding.salient_network import U2Net
from defectflow.images.read_write import write_png
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph, series_of
from defectflow.pretraining.photograph_scenes import jpeg
from defectflow.pretraining.rendered_scenes import light_up, photographed, surface
from defectflow.pretraining.silhouettes import placed
from defectflow.pretraining.training_images import crop, even_surface, noise, scratch

FOLDS = 5  # of series and of the pool; each head learns from all but one, a different one each
KINDS = {"photograph": 0.4, "pasted": 0.22, "rendered": 0.1, "taught": 0.12, "surface": 0.16}  # shares of pictures
SOURCES = {"tools": 0.6, "clothing": 0.25}  # shares of photographs; other sources share the rest
COVER = (0.004, 0.8)  # allowed share of a picture covered by its figure
KEPT = 0.6  # share of the figure that a window must show
AROUND = 0.4  # share of composed pictures with other objects near the border, which are not the figure
BEFORE = 0.2  # share of pasted objects in front of another annotated photograph, including people


@dataclass(frozen=True)
class FigurePicture:
    """A picture and its figure.

    Attributes:
        image: uint8 RGB (size, size, 3).
        figure: float32 (size, size) in [0, 1] up to rounding, share of each pixel that belongs to the object; zeros for
            a surface.
        known: float32 (size, size) in {0, 1}; 0 for undecided pixels.
        surface: Whether it shows no object.
        fold: Which of FOLDS its photograph belongs to.
    """

    image: np.ndarray
    figure: np.ndarray
    known: np.ndarray
    surface: bool
    fold: int


@dataclass(frozen=True)
class Material:
    """What pictures are made of.

    Attributes:
        photos: uint8 RGB photographs of a pool.
        taught: float32 (side, side) in [0, 1] by the index of a photograph of the pool: a teacher's figure, where it
            is a clear one.
        photographs: Annotated photographs by source.
        folds: Fold of each annotated photograph by name; those of a series share one.
    """

    photos: Sequence[np.ndarray]
    taught: dict[int, np.ndarray] = field(default_factory=dict)
    photographs: dict[str, list[Photograph]] = field(default_factory=dict)
    folds: dict[str, int] = field(default_factory=dict)


def material(
    photos: Sequence[np.ndarray], photographs: Sequence[Photograph] = (), taught: dict[int, np.ndarray] | None = None
) -> Material:
    """Sort annotated photographs by source and assign a fold to each series."""
    by_source: dict[str, list[Photograph]] = {}
    for one in photographs:
        by_source.setdefault(one.source, []).append(one)
    folds = {}
    for one, first in zip(photographs, series_of(photographs) if photographs else [], strict=True):
        folds[one.name] = int(hashlib.sha256(photographs[first].name.encode()).hexdigest()[-4:], 16) % FOLDS
    return Material(photos, taught or {}, by_source, folds)


def teach(photos: Sequence[np.ndarray], teacher: Path, folder: Path) -> dict[int, np.ndarray]:
    """Figures that U2-Net sees in photographs (X. Qin et al., U2-Net, 2020), where they are clear ones.

    Args:
        photos: uint8 RGB.
        teacher: ONNX file of U2-Net or U2NetP.
        folder: Masks are cached here as PNG, named by the photograph's pixels, for interrupted runs.

    Returns:
        float32 (side, side) in [0, 1] by index, see `U2Net`.
    """
    network = U2Net(teacher)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for index, photo in enumerate(tqdm(photos, desc="teacher", unit="image")):
        path = folder / f"{hashlib.sha256(photo.tobytes()).hexdigest()[:24]}.png"
        if not path.is_file():
            with atomic(path) as temporary:
                write_png(temporary, np.rint(255 * network(photo)).astype(np.uint8))
        written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert written is not None, path
        soft = written.astype(np.float32) / 255
        sure = float((soft > 0.5).mean())
        if 0.03 < sure < 0.6 and float(np.minimum(soft, 1 - soft).mean()) < 0.25 * sure:
            found[index] = soft
    return found


def ground(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """A background: a surface, a scene, or a scene out of focus; float32 (size, size, 3)."""
    photo = photos[int(rng.integers(len(photos)))]
    kind = rng.random()
    if kind < 0.45:
        return even_surface(rng, photo, size).astype(np.float32)
    image = crop(rng, photo, size).astype(np.float32)
    if kind < 0.7:
        soft = cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.01, 0.08))
        return soft + np.float32(rng.uniform(0, 0.3)) * (image - soft)
    return image


def put(rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray, thing: np.ndarray) -> None:
    """Draw an object into ``image``, float32, in place, in half of the cases with a shadow."""
    size = len(image)
    if rng.random() < 0.5:
        dx, dy = rng.normal(0, 0.02 * size, 2)
        shadow = cv2.warpAffine(alpha, np.array([[1, 0, dx], [0, 1, dy]], np.float32), (size, size))
        shadow = cv2.GaussianBlur(shadow, (0, 0), size * rng.uniform(0.004, 0.03))
        image *= (1 - rng.uniform(0.2, 0.7) * shadow)[..., None]
    image += alpha[..., None] * (thing - image)


def clutter(rng: np.random.Generator, image: np.ndarray, photos: Sequence[np.ndarray]) -> None:
    """Draw one to four objects that are cut off by the border into ``image``, float32, in place."""
    size = len(image)
    for _ in range(rng.integers(1, 5)):
        alpha = placed(rng, size, (0.1, 0.5))
        y, x = (float(np.average(np.arange(size), weights=alpha.sum(axis) + 1e-6)) for axis in (1, 0))
        goal = [rng.uniform(0, size), rng.choice([-0.02, 1.02]) * size]
        to_y, to_x = goal if rng.random() < 0.5 else goal[::-1]
        alpha = cv2.warpAffine(alpha, np.array([[1, 0, to_x - x], [0, 1, to_y - y]], np.float32), (size, size))
        put(rng, image, alpha, surface(rng, photos, size))


def taken(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, grain and compression of another camera, uint8; a quarter is not changed."""
    if rng.random() < 0.75:
        image = photographed(rng, image.astype(np.float32))
    image = np.clip(image, 0, 255).astype(np.uint8)
    return jpeg(rng, image) if rng.random() < 0.3 else image


def window(rng: np.random.Generator, figure: np.ndarray) -> tuple[slice, slice]:
    """A slightly squeezed window of a picture that shows most of the figure and some background."""
    height, width = figure.shape
    whole = (slice(0, height), slice(0, width))
    total = float(figure.sum())
    for _ in range(8 if rng.random() < 0.65 else 0):
        share = np.exp(rng.uniform(np.log(0.4), 0)) * np.exp(rng.normal(0, 0.12, 2))
        h, w = (int(np.clip(n * s, min(n, 32), n)) for n, s in zip((height, width), share, strict=True))
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        place = (slice(top, top + h), slice(left, left + w))
        shown = float(figure[place].sum())
        if shown > KEPT * total and COVER[0] < shown / (h * w) < COVER[1]:
            return place
    return whole


def turned(rng: np.random.Generator, maps: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Pictures and masks of one view resized to squares, with the same mirroring and rotation."""
    flip, quarter = rng.random() < 0.5, int(rng.integers(1, 4)) if rng.random() < 0.2 else 0
    angle = rng.normal(0, 8) if rng.random() < 0.3 else 0.0
    affine = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), angle, 1 + abs(angle) / 60)
    found = []
    for one in maps:
        one = np.ascontiguousarray(np.rot90(one[:, ::-1] if flip else one, quarter))
        one = to_square(one, size)
        if angle:
            one = cv2.warpAffine(one, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        found.append(one)
    return found


def photograph_picture(rng: np.random.Generator, one: Photograph, fold: int, size: int) -> FigurePicture:
    """A window of an annotated photograph with its figure."""
    figure = ((one.labels > 0) & (one.labels != UNKNOWN)).astype(np.float32)
    known = (one.labels != UNKNOWN).astype(np.float32)
    place = window(rng, figure)
    image, figure, known = turned(rng, [one.image[place], figure[place], known[place]], size)
    return FigurePicture(taken(rng, image), figure, (known > 0.99).astype(np.float32), False, fold)


def taught_picture(
    rng: np.random.Generator, photo: np.ndarray, soft: np.ndarray, fold: int, size: int
) -> FigurePicture:
    """A window of a photograph of the pool with the figure predicted by a teacher."""
    soft = cv2.resize(soft, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    place = window(rng, soft)
    image, figure = turned(rng, [photo[place], soft[place]], size)
    return FigurePicture(taken(rng, image), figure, np.ones_like(figure), False, fold)


def behind(rng: np.random.Generator, made_of: Material, fold: int) -> np.ndarray:
    """An annotated photograph of a fold, uint8 RGB."""
    sources = [[one for one in those if made_of.folds[one.name] == fold] for those in made_of.photographs.values()]
    sources = [those for those in sources if those]
    those = sources[rng.integers(len(sources))]
    return those[rng.integers(len(those))].image


def pasted_picture(
    rng: np.random.Generator, one: Photograph, fold: int, made_of: Material, size: int
) -> FigurePicture | None:
    """An object of a photograph, or all of them if they are one figure, in front of something else; None: too small."""
    inside = (one.labels > 0) & (one.labels != UNKNOWN)
    if not one.figure or rng.random() < 0.3:
        numbers = np.unique(one.labels[inside])
        inside = one.labels == numbers[rng.integers(len(numbers))]
    x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
    if inside.sum() < 900:
        return None
    before = rng.random() < BEFORE
    scale = size * np.exp(rng.uniform(np.log(0.4 if before else 0.12), np.log(1.1))) / max(w, h)
    scale = min(scale, 2.5)
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.2)
    c, s = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.normal(0, 0.12))
    linear = scale * np.array([[c, -s], [s, c]]) @ np.diag([stretch * rng.choice([-1, 1]), 1 / stretch])
    centre = size * (0.5 + np.clip(rng.normal(0, 0.12, 2), -0.3, 0.3))
    affine = np.hstack([linear, (centre - linear @ np.array([x + w / 2, y + h / 2]))[:, None]])
    source, soft = one.image, inside.astype(np.float32)
    if scale < 0.7:  # warpAffine does not average
        source, soft = (cv2.GaussianBlur(m, (0, 0), 0.4 / scale) for m in (source, soft))
    alpha = cv2.warpAffine(soft, affine, (size, size))
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.5, 1.5))
    thing = cv2.warpAffine(source, affine, (size, size), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    if before:
        image = crop(rng, behind(rng, made_of, fold), size).astype(np.float32)
    else:
        image = ground(rng, made_of.photos, size)
        if rng.random() < AROUND:
            clutter(rng, image, made_of.photos)
    put(rng, image, alpha, thing)
    if not COVER[0] < float(alpha.mean()) < COVER[1]:
        return None
    return FigurePicture(taken(rng, image), alpha, np.ones_like(alpha), False, fold)


def rendered_picture(rng: np.random.Generator, photos: Sequence[np.ndarray], size: int) -> FigurePicture | None:
    """A rendered part of one or two materials in front of a surface or a scene, sometimes among other objects."""
    image = ground(rng, photos, size)
    if rng.random() < AROUND:
        clutter(rng, image, photos)
    part = placed(rng, size, (0.3, 1.3))
    put(rng, image, part, light_up(rng, surface(rng, photos, size), part, size))
    if rng.random() < 0.4:
        second = placed(rng, size, (0.1, 0.6)) * part
        put(rng, image, second, light_up(rng, surface(rng, photos, size), second, size))
    if not COVER[0] < float(part.mean()) < COVER[1]:
        return None
    return FigurePicture(taken(rng, image), part, np.ones_like(part), False, int(rng.integers(FOLDS)))


def surface_picture(rng: np.random.Generator, photo: np.ndarray, fold: int, size: int) -> FigurePicture:
    """A surface, in half of the cases with small damage, under some light."""
    image = even_surface(rng, photo, size)
    if rng.random() < 0.5:
        scratch(rng, image)
    if rng.random() < 0.3:
        image = (image * (0.5 + 0.5 * noise(rng, size, (2, 2)))[..., None]).astype(np.uint8)
    nothing = np.zeros((size, size), np.float32)
    return FigurePicture(taken(rng, image), nothing, np.ones_like(nothing), True, fold)


def picture(rng: np.random.Generator, made_of: Material, size: int) -> FigurePicture:
    """One picture of a kind of KINDS; a kind without material is replaced by a rendered part."""
    photos = made_of.photos
    while True:
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        found = None
        if kind == "surface":
            index = int(rng.integers(len(photos)))
            found = surface_picture(rng, photos[index], index % FOLDS, size)
        elif kind == "taught" and made_of.taught:
            index = list(made_of.taught)[rng.integers(len(made_of.taught))]
            found = taught_picture(rng, photos[index], made_of.taught[index], index % FOLDS, size)
        elif kind in ("photograph", "pasted") and made_of.photographs:
            sources = list(made_of.photographs)
            rest = (1 - sum(SOURCES.values())) / max(1, len(set(sources) - set(SOURCES)))
            shares = np.array([SOURCES.get(source, rest) for source in sources])
            those = made_of.photographs[sources[rng.choice(len(sources), p=shares / shares.sum())]]
            one = those[rng.integers(len(those))]
            if kind == "pasted":
                found = pasted_picture(rng, one, made_of.folds[one.name], made_of, size)
            elif one.figure:
                found = photograph_picture(rng, one, made_of.folds[one.name], size)
        else:
            found = rendered_picture(rng, photos, size)
        if found is not None:
            return found


def figure_batch(seed: int, step: int, made_of: Material, count: int, size: int) -> list[FigurePicture]:
    """The pictures of one step; the same for the same arguments."""
    rng = np.random.default_rng([seed, step, 3])
    return [picture(rng, made_of, size) for _ in range(count)]


def contact_sheet(made_of: Material, seed: int, size: int = 192) -> np.ndarray:
    """A sheet of sixty-four training pictures, the figure in green; a red frame marks a surface. uint8 RGB."""
    tiles = []
    for one in figure_batch(seed, 0, made_of, 64, size):
        tile = one.image.copy()
        tile[one.figure >= 0.5] = tile[one.figure >= 0.5] // 2 + np.array([0, 127, 0], np.uint8)
        if one.surface:
            cv2.rectangle(tile, (0, 0), (size - 1, size - 1), (255, 0, 0), 4)
        tiles.append(tile)
    return np.vstack([np.hstack(tiles[k : k + 8]) for k in range(0, len(tiles), 8)])
