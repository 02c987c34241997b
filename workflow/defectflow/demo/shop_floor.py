"""The demo's shop floor, the stand that holds the part, and the camera: backgrounds, exposure, noise.

Scenes are drawn in sRGB with cv2, blurred as out of focus, and turned to linear light before the part is laid over.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from defectflow.demo.moulded_part import DENSITY, HALF_HEIGHT, HALF_WIDTH, noise

MARGIN = 1.16  # a scene is larger than the frame, so that it can move between two views
CARTONS = ((186, 150, 108), (164, 128, 88), (200, 168, 128))
BINS = ((40, 86, 150), (178, 52, 44), (60, 62, 66), (206, 168, 40), (70, 120, 84), (150, 152, 150))
STEEL = ((58, 88, 136), (204, 104, 40), (96, 100, 104), (44, 50, 56))
CLOTHES = ((40, 44, 54), (66, 80, 104), (150, 154, 158), (204, 92, 34), (86, 34, 40), (54, 84, 62), (196, 186, 60))
SKIN = ((214, 170, 140), (150, 106, 78), (98, 68, 52), (228, 190, 164))
CABLES = ((24, 24, 26), (190, 44, 36), (40, 74, 160), (216, 180, 40), (210, 210, 206))


Colour = tuple[int, int, int]  # RGB, 0 to 255


@dataclass(frozen=True)
class Pose:
    """Where the part lies in the frame: shift in frame widths, turn in radians, scale factor."""

    shift: tuple[float, float]
    turn: float
    scale: float


@dataclass(frozen=True)
class Camera:
    """Exposure of one view: linear gain, display gamma, white balance (RGB), vignette, blur and noise."""

    gain: float
    gamma: float
    balance: np.ndarray
    vignette: float
    glow: tuple[float, float]
    blur: float
    noise: float


def _shades(rng: np.random.Generator, colour: Colour, spread: float = 0.16) -> Colour:
    red, green, blue = np.clip(np.array(colour) * rng.uniform(1 - spread, 1 + spread), 0, 255)
    return int(red), int(green), int(blue)


def _points(values: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return np.round(np.asarray(values, np.float64)).astype(np.int32)


def _point(x: float, y: float) -> tuple[int, int]:
    return round(float(x)), round(float(y))


def _rectangle(
    canvas: np.ndarray, x: float, y: float, w: float, h: float, colour: tuple[int, ...], bevel: int = 0
) -> None:
    """A filled rectangle, with lighter top and left and darker bottom and right edges of ``bevel`` pixels."""
    a, b = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
    cv2.rectangle(canvas, a, b, colour, -1)
    if bevel:
        light, dark = (tuple(int(min(255, v * f)) for v in colour) for f in (1.25, 0.6))
        cv2.line(canvas, a, (b[0], a[1]), light, bevel)
        cv2.line(canvas, a, (a[0], b[1]), light, bevel)
        cv2.line(canvas, (a[0], b[1]), b, dark, bevel)
        cv2.line(canvas, (b[0], a[1]), b, dark, bevel)


def _wall(rng: np.random.Generator, n: int) -> np.ndarray:
    top, bottom = (_shades(rng, c, 0.3) for c in ((128, 132, 136), (92, 90, 86)))
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None, None]
    canvas = np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t
    stains = 1 + 0.07 * noise(rng, (n, n), n / 6) + 0.04 * noise(rng, (n, n), n / 30)
    return np.ascontiguousarray((canvas * stains[..., None]).clip(0, 255).astype(np.uint8))


def _carton(canvas: np.ndarray, rng: np.random.Generator, x: float, y: float, w: float, h: float) -> None:
    n, bevel = canvas.shape[0], max(1, canvas.shape[0] // 220)
    if rng.random() < 0.55:
        colour = _shades(rng, CARTONS[int(rng.integers(len(CARTONS)))])
        _rectangle(canvas, x, y, w, h, colour, bevel)
        _rectangle(canvas, x, y + 0.42 * h, w, max(2, 0.07 * h), _shades(rng, (206, 190, 160)))  # tape
        if rng.random() < 0.6:
            _rectangle(canvas, x + 0.55 * w, y + 0.55 * h, 0.32 * w, 0.28 * h, (232, 230, 224))
            for k in range(3):
                _rectangle(canvas, x + 0.59 * w, y + (0.6 + 0.07 * k) * h, 0.24 * w, max(1, 0.03 * h), (60, 60, 60))
    else:
        colour = _shades(rng, BINS[int(rng.integers(len(BINS)))])
        _rectangle(canvas, x, y, w, h, colour, bevel)
        _rectangle(canvas, x + 0.1 * w, y + 0.12 * h, 0.8 * w, 0.26 * h, tuple(int(v * 0.4) for v in colour))
        for k in range(int(rng.integers(2, 6))):  # what lies in the bin
            at = (round(x + (0.15 + 0.14 * k) * w), round(y + 0.22 * h))
            cv2.circle(canvas, at, max(2, round(0.07 * w)), _shades(rng, (150, 150, 150), 0.5), -1, cv2.LINE_AA)
    cv2.line(canvas, (round(x), round(y + h)), (round(x + w), round(y + h)), (20, 20, 20), max(1, n // 256))


def _rack(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Shelves with cartons and bins."""
    n = canvas.shape[0]
    steel, beam = _shades(rng, STEEL[int(rng.integers(2))]), _shades(rng, STEEL[int(rng.integers(1, 3))])
    y, dark = rng.uniform(-0.06, 0.06) * n, (34, 34, 36)
    while y < n:
        pitch = rng.uniform(0.17, 0.27) * n
        _rectangle(canvas, 0, y, n, pitch, tuple(int(v * rng.uniform(0.9, 1.5)) for v in dark))
        x = rng.uniform(-0.1, 0) * n
        while x < n:
            w = rng.uniform(0.07, 0.2) * n
            for level in range(int(rng.integers(1, 3))):
                h = rng.uniform(0.32, 0.46) * pitch
                _carton(canvas, rng, x, y + pitch - (level + 1) * h, w, h)
            x += w + rng.uniform(0, 0.05) * n
        _rectangle(canvas, 0, y + pitch, n, 0.026 * n, beam, 2)
        y += pitch + 0.026 * n
    for x in (rng.uniform(0, 0.2), rng.uniform(0.45, 0.6), rng.uniform(0.85, 0.98)):
        _rectangle(canvas, x * n, 0, 0.03 * n, n, steel, 2)
        for k in range(24):
            cv2.circle(canvas, (round((x + 0.015) * n), round((k + 0.5) * n / 24)), max(1, n // 170), (18, 18, 18), -1)


def _bench(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """A pegboard with tools over a work bench."""
    n, edge = canvas.shape[0], rng.uniform(0.62, 0.76)
    _rectangle(canvas, 0.03 * n, 0.02 * n, 0.94 * n, (edge - 0.05) * n, _shades(rng, (176, 172, 160), 0.25), 3)
    step = max(6, n // 34)
    ys, xs = np.mgrid[round(0.05 * n) : round((edge - 0.05) * n) : step, round(0.06 * n) : round(0.95 * n) : step]
    for x, y in zip(xs.ravel(), ys.ravel(), strict=True):
        cv2.circle(canvas, (int(x), int(y)), max(1, n // 300), (60, 58, 54), -1)
    for _ in range(16):
        _tool(canvas, rng, rng.uniform(0.08, 0.92) * n, rng.uniform(0.05, edge - 0.25) * n, rng.uniform(0.1, 0.2) * n)
    _rectangle(canvas, 0, edge * n, n, 0.035 * n, _shades(rng, (156, 116, 76)), 3)
    _rectangle(canvas, 0, (edge + 0.035) * n, n, n, _shades(rng, (62, 66, 70)))
    for k in range(5):
        _rectangle(canvas, (0.02 + 0.2 * k) * n, (edge + 0.06) * n, 0.18 * n, 0.11 * n, _shades(rng, (148, 40, 36)), 2)
        _rectangle(canvas, (0.07 + 0.2 * k) * n, (edge + 0.10) * n, 0.08 * n, 0.014 * n, (190, 190, 190), 1)
    for _ in range(7):
        w, h = rng.uniform(0.05, 0.15) * n, rng.uniform(0.04, 0.13) * n
        _carton(canvas, rng, rng.uniform(0, 0.9) * n, edge * n - h, w, h)


def _tool(canvas: np.ndarray, rng: np.random.Generator, x: float, y: float, length: float) -> None:
    """A screwdriver, wrench or hammer hung on the wall, with its shadow."""
    grip = _shades(rng, BINS[int(rng.integers(4))])
    steel = _shades(rng, (170, 172, 176))
    kind, off = int(rng.integers(3)), max(2, round(0.04 * length))
    for dx, dy, a, b in ((off, off, (70, 68, 64), (70, 68, 64)), (0, 0, grip, steel)):
        top, mid, low = (_point(x + dx, y + dy + f * length) for f in (0, 0.45, 1))
        wide, thin = max(3, round(0.16 * length)), max(2, round(0.07 * length))
        if kind == 0:
            cv2.line(canvas, top, mid, a, wide, cv2.LINE_AA)
            cv2.line(canvas, mid, low, b, thin, cv2.LINE_AA)
        elif kind == 1:
            cv2.line(canvas, top, low, b, thin + 1, cv2.LINE_AA)
            for end in (top, low):
                cv2.circle(canvas, end, wide // 2 + 2, b, thin, cv2.LINE_AA)
        else:
            cv2.line(canvas, top, low, a, thin + 2, cv2.LINE_AA)
            cv2.line(canvas, (top[0] - wide, top[1]), (top[0] + wide, top[1]), b, wide, cv2.LINE_AA)


def _hall(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Windows, machines, pallets and a marked floor."""
    n, horizon = canvas.shape[0], rng.uniform(0.55, 0.68)
    for k in range(3):
        x, w = (rng.uniform(0.02, 0.08) + 0.33 * k) * n, rng.uniform(0.16, 0.24) * n
        _rectangle(canvas, x, 0.04 * n, w, 0.2 * n, _shades(rng, (226, 234, 240), 0.06), 3)
        for bar in (1, 2):
            _rectangle(canvas, x + bar * w / 3, 0.04 * n, 0.008 * n, 0.2 * n, (80, 84, 88))
    floor = _shades(rng, (104, 106, 104))
    _rectangle(canvas, 0, horizon * n, n, n, floor)
    shine = cv2.GaussianBlur(noise(rng, (n, n), n / 9), (0, 0), n / 40)[round(horizon * n) :, :, None]
    part = canvas[round(horizon * n) :]
    part[:] = (part * (1 + 0.14 * shine)).clip(0, 255).astype(np.uint8)
    lane = _points([(0.1 * n, n), (0.22 * n, n), (0.46 * n, horizon * n), (0.44 * n, horizon * n)])
    cv2.fillPoly(canvas, [lane + _points([rng.uniform(-0.3, 0.5) * n, 0])], (208, 172, 44), cv2.LINE_AA)
    for _ in range(4):
        w, h = rng.uniform(0.16, 0.34) * n, rng.uniform(0.2, 0.46) * n
        x, y = rng.uniform(-0.1, 0.9) * n, horizon * n + rng.uniform(0, 0.06) * n - h
        colour = _shades(rng, (STEEL + BINS)[int(rng.integers(len(STEEL + BINS)))])
        _rectangle(canvas, x, y, w, h, colour, 3)
        _rectangle(canvas, x + 0.12 * w, y + 0.1 * h, 0.5 * w, 0.34 * h, (26, 30, 36), 2)
        _rectangle(canvas, x + 0.72 * w, y + 0.12 * h, 0.18 * w, 0.24 * h, (196, 198, 192), 1)
        for k, lamp in enumerate(((210, 40, 30), (230, 190, 40), (40, 170, 80))):
            cv2.circle(canvas, _point(x + (0.75 + 0.06 * k) * w, y + 0.45 * h), max(2, n // 140), lamp, -1)
        for k in range(6):
            _rectangle(canvas, x + 0.1 * w, y + (0.6 + 0.05 * k) * h, 0.8 * w, max(1, 0.015 * h), (34, 36, 40))
    for _ in range(5):
        w, h = rng.uniform(0.12, 0.22) * n, rng.uniform(0.08, 0.16) * n
        _carton(canvas, rng, rng.uniform(-0.05, 0.95) * n, rng.uniform(horizon, 0.95) * n - h, w, h)


def _cables(canvas: np.ndarray, rng: np.random.Generator, count: int) -> None:
    n, t = canvas.shape[0], np.linspace(0, 1, 40)[:, None]
    for _ in range(count):
        a, d = (np.array([rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.0)]) * n for _ in range(2))
        sag = np.array([0, rng.uniform(0.1, 0.6) * n])
        b, c = a + (d - a) * 0.3 + sag, a + (d - a) * 0.7 + sag
        line = _points((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t * t * c + t**3 * d)
        colour, width = CABLES[int(rng.integers(len(CABLES)))], max(2, round(rng.uniform(0.006, 0.018) * n))
        cv2.polylines(canvas, [line], False, colour, width, cv2.LINE_AA)
        light = tuple(int(min(255, 40 + v * 1.3)) for v in colour)
        cv2.polylines(canvas, [line - (0, width // 4)], False, light, max(1, width // 4), cv2.LINE_AA)


def background(rng: np.random.Generator, size: int, place: int) -> np.ndarray:
    """The place of one burst, uint8 sRGB (m, m, 3) with m = MARGIN * size: rack, bench or hall, with cables.

    ``place`` counts the bursts: the three kinds of place follow each other.
    """
    canvas = _wall(rng, round(size * MARGIN))
    (_rack, _bench, _hall)[place % 3](canvas, rng)
    _cables(canvas, rng, int(rng.integers(2, 6)))
    return canvas


@dataclass(frozen=True)
class Person:
    """A passer-by: place of the shoulders' middle in scene widths, size, colours and posture."""

    x: float
    y: float
    size: float
    jacket: Colour
    skin: Colour
    hair: Colour
    reach: float


def person(rng: np.random.Generator) -> Person:
    """A random person at the edge of the scene, or right behind the part."""
    return Person(
        float(rng.uniform(0.0, 1.0)), float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.26, 0.46)),
        _shades(rng, CLOTHES[int(rng.integers(len(CLOTHES)))]), _shades(rng, SKIN[int(rng.integers(len(SKIN)))]),
        _shades(rng, (52, 40, 32), 0.6), float(rng.uniform(-1, 1)),
    )  # fmt: skip


def _draw_person(canvas: np.ndarray, who: Person, rng: np.random.Generator) -> None:
    n, s = canvas.shape[0], who.size * canvas.shape[0]
    x, y = who.x * n, who.y * n
    body = [(-0.5, 0.12), (-0.34, 0), (-0.12, -0.07), (0.12, -0.07), (0.34, 0), (0.5, 0.12), (0.44, 1.5), (-0.44, 1.5)]
    dark = tuple(int(v * 0.62) for v in who.jacket)
    arm = max(4, round(0.2 * s))
    cv2.line(canvas, _point(x, y - 0.1 * s), _point(x, y - 0.3 * s), who.skin, arm, cv2.LINE_AA)
    layer: np.ndarray = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(layer, [_points([(x + a * s, y + b * s) for a, b in body])], 255, cv2.LINE_AA)
    hands = []
    for side in (-1, 1):
        elbow = (x + side * (0.56 + 0.06 * who.reach) * s, y + 0.62 * s)
        hand = (x + side * (0.44 - 0.5 * max(0, who.reach * side)) * s, y + (1.1 - 0.3 * who.reach * side) * s)
        cv2.polylines(
            layer, [_points([(x + side * 0.41 * s, y + 0.16 * s), elbow, hand])], False, 255, arm, cv2.LINE_AA
        )
        hands.append(hand)
    folds = np.array(who.jacket, np.float32) * (1 + 0.09 * noise(rng, layer.shape, max(4.0, 0.16 * s)))[..., None]
    share = (layer.astype(np.float32) / 255)[..., None]
    canvas[:] = (canvas * (1 - share) + folds.clip(0, 255) * share).astype(np.uint8)
    cv2.line(canvas, _point(x, y), _point(x, y + 1.5 * s), dark, max(1, round(0.02 * s)), cv2.LINE_AA)
    for hand in hands:
        cv2.circle(canvas, _point(*hand), max(3, round(0.11 * s)), who.skin, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, _point(x, y - 0.4 * s), _point(0.17 * s, 0.23 * s), 0, 0, 360, who.skin, -1, cv2.LINE_AA)
    cap = _point(x, y - 0.47 * s)
    cv2.ellipse(canvas, cap, _point(0.19 * s, 0.2 * s), 0, 180, 360, who.hair, -1, cv2.LINE_AA)


def backdrop(
    scene: np.ndarray, people: list[Person], offset: tuple[float, float], size: int, seed: list[int]
) -> np.ndarray:
    """One view's background in linear light, float32 (size, size, 3): people added, shifted, out of focus.

    ``offset`` (x, y) is in frame widths, less than (MARGIN - 1) / 2 either way; ``seed`` fixes the folds of clothes.
    """
    canvas = scene.copy()
    for index, who in enumerate(people):
        _draw_person(canvas, who, np.random.default_rng([*seed, index]))
    x0, y0 = (round((canvas.shape[0] - size) / 2 + o * size) for o in offset)
    view = cv2.GaussianBlur(canvas[y0 : y0 + size, x0 : x0 + size], (0, 0), 0.0045 * size)
    return cv2.pow(view.astype(np.float32) / 255, 2.2) * np.float32(0.8)


@lru_cache(maxsize=1)
def _stand(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cover (size, size, 1) and radiance (size, size, 3) of the stand: two grooved aluminium posts and a cross bar."""
    layer, cover = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    t = np.linspace(-1, 1, 101)
    for x, y, w, h, grooves in ((0.262, 0.5, 0.085, 0.5, 2), (0.605, 0.5, 0.04, 0.5, 1), (0.30, 0.80, 0.32, 0.04, 0)):
        _rectangle(cover, x * size, y * size, w * size, h * size, (255,))
        rows, columns = round((y + h) * size) - round(y * size), round((x + w) * size) - round(x * size)
        profile = 118 + 46 * np.sin(2.2 * t + 0.6) - 64 * (np.cos(np.pi * grooves * t) > 0.86) * (grooves > 0)
        across = np.interp(np.linspace(-1, 1, columns if grooves else rows), t, profile).clip(0, 255).astype(np.uint8)
        top, left = round(y * size), round(x * size)
        layer[top : top + rows, left : left + columns] = across[None] if grooves else across[:, None]
    share, metal = (
        cv2.GaussianBlur(c, (0, 0), 0.0016 * size).astype(np.float32)[..., None] / 255 for c in (cover, layer)
    )
    return share, share * metal**2.2 * np.array([0.9, 0.95, 1.0], np.float32)


def stand(view: np.ndarray) -> None:
    """Lay the stand that carries the part over a linear view, in place."""
    share, metal = _stand(view.shape[0])
    view *= 1 - share
    view += metal


def placement(pose: Pose, size: int) -> np.ndarray:
    """2x3 float64 matrix from canvas pixel centres (moulded_part) to frame pixel centres."""
    k = pose.scale / DENSITY
    cos, sin = np.cos(pose.turn) * k, np.sin(pose.turn) * k
    centre = (np.array([HALF_WIDTH, HALF_HEIGHT]) * size * DENSITY).round() - 0.5
    target = (np.array([0.5, 0.5]) + pose.shift) * size - 0.5
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([linear, (target - linear @ centre)[:, None]])


def lay_over(view: np.ndarray, colour: np.ndarray, cover: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``colour`` (canvas, linear RGB) with opacity ``cover`` over ``view``, both float32; returns a new view."""
    layer = np.dstack([colour * cover[..., None], cover])
    layer = cv2.warpAffine(cv2.GaussianBlur(layer, (0, 0), 0.33 * DENSITY), matrix, view.shape[1::-1])
    return view * (1 - layer[..., 3:]) + layer[..., :3]


def expose(view: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Photograph a linear view: uint8 RGB with lens fall-off, blur, shot and read noise, clipping and gamma."""
    size = view.shape[0]
    x = (np.arange(size, dtype=np.float32) + 0.5) / size
    distance = (x[None] - 0.5 - camera.glow[0]) ** 2 + (x[:, None] - 0.5 - camera.glow[1]) ** 2
    light = camera.gain / (1 + np.float32(camera.vignette) * distance)
    view = cv2.GaussianBlur(view, (0, 0), camera.blur) * light[..., None] * camera.balance
    deviation = np.sqrt(np.maximum(view, 0) * np.float32(camera.noise * 0.02) + np.float32(camera.noise) ** 2)
    view = view + deviation * rng.standard_normal(view.shape, np.float32)
    shown: np.ndarray = np.round(255 * np.clip(view, 0, 1) ** np.float32(1 / (2.2 * camera.gamma))).astype(np.uint8)
    return shown
