"""The demo's moulded part: a height field with texture, lit from any side.

All lengths are in units of the frame's width; x points right, y down, z to the camera. The part lives on a canvas of
``DENSITY`` pixels per frame pixel around its centre, and is laid into the frame by an affine warp (``shop_floor``).
"""

from dataclasses import dataclass

import cv2
import numpy as np

DENSITY = 2  # canvas pixels per frame pixel, along each axis
HALF_WIDTH, HALF_HEIGHT = 0.43, 0.31  # canvas
HUB, BORE = (-0.20, 0.03), 0.068
ARM = ((-0.12, 0.04), (0.24, -0.05))
HEAD, HEAD_TURN = (0.27, -0.065), 0.14
LUGS = ((-0.335, -0.125, 0.050), (-0.275, 0.205, 0.046), (0.055, 0.098, 0.042), (0.335, 0.085, 0.044))
THICKNESS = 0.034
ALBEDO = np.array([0.150, 0.178, 0.190], np.float32)  # linear RGB: blue-grey ABS

# Strokes of the embossed characters on a 2 x 4 grid: our own font is the same in every OpenCV version.
STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "D": [[(0, 0), (0, 4), (1.3, 4), (2, 3), (2, 1), (1.3, 0), (0, 0)]],
    "F": [[(2, 0), (0, 0), (0, 4)], [(0, 2), (1.6, 2)]],
    "5": [[(2, 0), (0, 0), (0, 1.8), (1.5, 1.8), (2, 2.3), (2, 3.4), (1.5, 4), (0, 4)]],
    "7": [[(0, 0), (2, 0), (0.7, 4)]],
    "R": [[(0, 4), (0, 0), (1.5, 0), (2, 0.5), (2, 1.5), (1.5, 2), (0, 2)], [(1, 2), (2, 4)]],
    "-": [[(0.3, 2), (1.7, 2)]],
}


@dataclass(frozen=True)
class Part:
    """One part on its canvas; arrays are float32 of one shape (h, w).

    Attributes:
        scale: canvas pixels per frame width.
        outline: signed distance to the silhouette (negative inside), frame widths. The bore is no opening: the stand's
            steel arbor fills it and moves with the part, as the annotators' outline has it.
        opening: signed distance to the holes of a defect, which can be seen through (negative inside the hole).
        relief: height of ribs, bosses, lettering and grain on the front face.
        paint: albedo as a factor on ``ALBEDO`` (h, w, 3).
        gloss: strength of the specular reflection, 1 = as moulded.
        defect: bool, pixels that a defect changed.
    """

    scale: float
    outline: np.ndarray
    opening: np.ndarray
    relief: np.ndarray
    paint: np.ndarray
    gloss: np.ndarray
    defect: np.ndarray


@dataclass(frozen=True)
class Light:
    """Key light direction (azimuth and elevation in radians), its colour, and the ambient's (linear RGB)."""

    azimuth: float
    elevation: float
    key: np.ndarray
    ambient: np.ndarray


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x, y) of the canvas' pixel centres, float32 (h, w), for a frame of ``size`` pixels."""
    scale = size * DENSITY
    width, height = round(2 * HALF_WIDTH * scale), round(2 * HALF_HEIGHT * scale)
    x = (np.arange(width, dtype=np.float32) + 0.5) / scale - HALF_WIDTH
    y = (np.arange(height, dtype=np.float32) + 0.5) / scale - HALF_HEIGHT
    return np.meshgrid(x, y)


def to_canvas(points: np.ndarray, scale: float, bits: int = 4) -> np.ndarray:
    """Frame-width coordinates [n, 2] as int32 canvas pixels with ``bits`` fractional bits, for cv2's drawing."""
    pixels = (np.asarray(points, np.float64) + np.array([HALF_WIDTH, HALF_HEIGHT])) * scale - 0.5
    rounded: np.ndarray = np.round(pixels * (1 << bits)).astype(np.int32)
    return rounded


def strokes(shape: tuple[int, int], scale: float, lines: list[np.ndarray], width: float) -> np.ndarray:
    """Antialiased polylines of ``width`` frame widths on an empty canvas, float32 in [0, 1]."""
    canvas = np.zeros(shape, np.uint8)
    pixels = max(1, round(width * scale))
    for line in lines:
        cv2.polylines(canvas, [to_canvas(line, scale)], False, 255, pixels, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise with features of about ``cell`` pixels, mean 0 and deviation 1, float32 ``shape``."""
    rows, columns = max(2, round(shape[0] / cell) + 2), max(2, round(shape[1] / cell) + 2)
    field: np.ndarray = cv2.resize(
        rng.standard_normal((rows, columns), np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    even: np.ndarray = (field - field.mean()) / max(float(field.std()), 1e-6)
    return even


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _circle(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    return np.hypot(x - cx, y - cy) - radius


def _box(
    x: np.ndarray,
    y: np.ndarray,
    centre: tuple[float, float],
    half: tuple[float, float],
    turn: float = 0.0,
    radius: float = 0.0,
) -> np.ndarray:
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = x - centre[0], y - centre[1]
    u, v = np.abs(cos * u + sin * v) - half[0] + radius, np.abs(cos * v - sin * u) - half[1] + radius
    outside: np.ndarray = np.hypot(np.maximum(u, 0), np.maximum(v, 0))
    distance: np.ndarray = outside + np.minimum(np.maximum(u, v), 0) - radius
    return distance


def _along_arm(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (ax, ay), (bx, by) = ARM
    length = float(np.hypot(bx - ax, by - ay))
    ux, uy = (bx - ax) / length, (by - ay) / length
    return (x - ax) * ux + (y - ay) * uy, (y - ay) * ux - (x - ax) * uy


def _join(a: np.ndarray, b: np.ndarray, fillet: float) -> np.ndarray:
    """Smooth union of two signed distances."""
    h = np.maximum(fillet - np.abs(a - b), 0) / fillet
    joined: np.ndarray = np.minimum(a, b) - h * h * fillet / 4
    return joined


def _lettering(
    shape: tuple[int, int], scale: float, text: str, at: tuple[float, float], height: float, turn: float
) -> np.ndarray:
    unit, lines, pen = height / 4, [], 0.0
    cos, sin = np.cos(turn), np.sin(turn)
    for character in text:
        for stroke in STROKES[character]:
            u, v = (np.array(stroke, np.float64) * unit + (pen, 0)).T
            lines.append(np.stack([at[0] + cos * u - sin * v, at[1] + sin * u + cos * v], 1))
        pen += 3.1 * unit
    return strokes(shape, scale, lines, height / 6.5)


def mould(size: int, seed: int) -> Part:
    """The sound part for frames of ``size`` pixels; ``seed`` fixes the grain of the mould."""
    x, y = grid(size)
    scale, shape = float(size * DENSITY), x.shape
    along, across = _along_arm(x, y)
    length = float(np.hypot(ARM[1][0] - ARM[0][0], ARM[1][1] - ARM[0][1]))

    arm = np.abs(across + 0.012 * np.sin(9 * along)) - (0.098 - 0.05 * along)
    arm = np.maximum(arm, np.maximum(-along - 0.05, along - length))
    outline = _join(_circle(x, y, *HUB, 0.165), arm, 0.07)
    outline = _join(outline, _box(x, y, HEAD, (0.082, 0.125), HEAD_TURN, 0.035), 0.05)
    for cx, cy, radius in LUGS:
        outline = _join(outline, _circle(x, y, cx, cy, radius), 0.035)
    outline = np.maximum(outline, -_box(x, y, (0.362, -0.06), (0.030, 0.018), HEAD_TURN, 0.006))  # snap slot
    outline = np.maximum(outline, -_circle(x, y, 0.005, -0.125, 0.042))  # cable cut-out

    relief = np.zeros(shape, np.float32)
    soft = 0.0035
    relief += 0.004 * ramp(-np.abs(outline + 0.014), -0.0075, -0.0045)  # bead along the rim
    hub = _circle(x, y, *HUB, 0.0)
    relief += 0.014 * ramp(-np.abs(hub - 0.086), -0.0145, -0.0115)  # collar of the bore
    relief -= 0.009 * ramp(-np.abs(hub - 0.121), -0.019, -0.019 + soft) * ramp(-outline, 0.02, 0.024)  # annular pocket
    arbor = ramp(-hub, -BORE - 0.001, -BORE + 0.001)
    gap = ramp(-np.abs(hub - BORE + 0.003), -0.004, -0.0025)
    relief -= 0.010 * arbor + 0.018 * gap + 0.012 * ramp(-hub, -0.012, 0.0)  # turned face with a centre hole
    relief += 0.00012 * arbor * np.sin(2 * np.pi * hub / 0.0065)
    angle = np.arctan2(y - HUB[1], x - HUB[0])
    spoke = np.abs(np.mod(angle * 12 / (2 * np.pi) + 0.5, 1) - 0.5) * 2 * np.pi / 12 * hub
    relief += 0.008 * ramp(-spoke, -0.0045, -0.0025) * ramp(-np.abs(hub - 0.120), -0.021, -0.019)
    pocket = np.abs(across + 0.012 * np.sin(9 * along)) - (0.066 - 0.05 * along)
    pocket = np.maximum(pocket, np.abs(along - 0.19) - 0.095)
    floor = ramp(-pocket, 0.0, soft * 1.5)
    relief -= 0.013 * floor
    for slope, offset in ((1, 0.0), (-1, 0.0)):  # crossed ribs on the pocket's floor
        period = 0.075
        distance = np.abs(np.mod((along + slope * across + offset) / period + 0.5, 1) - 0.5) * period / np.sqrt(2)
        relief += 0.009 * floor * ramp(-distance, -0.0042, -0.0022) * (1 - 0.35 * (slope < 0))
    for cx, cy, radius in LUGS:  # screw bosses, countersunk
        r = _circle(x, y, cx, cy, 0.0)
        relief += 0.007 * ramp(-np.abs(r - 0.63 * radius), -0.2 * radius, -0.13 * radius)
        relief -= 0.030 * ramp(-r, -0.44 * radius, -0.34 * radius)
    cos, sin = np.cos(HEAD_TURN), np.sin(HEAD_TURN)
    u, v = cos * (x - HEAD[0]) + sin * (y - HEAD[1]), cos * (y - HEAD[1]) - sin * (x - HEAD[0])
    grip = ramp(0.045 - np.abs(u), 0, 0.008) * ramp(0.038 - np.abs(v - 0.058), 0, 0.008)
    relief += 0.0028 * grip * np.sin(2 * np.pi * (v + 0.5 * u * u / 0.05) / 0.0135)
    plate = np.maximum(np.abs(u + 0.004) - 0.056, np.abs(v + 0.068) - 0.030)
    relief -= 0.004 * ramp(-plate, 0, soft)
    start = (HEAD[0] - 0.053 * cos + 0.080 * sin, HEAD[1] - 0.053 * sin - 0.080 * cos)
    letters = _lettering(shape, scale, "DF-57", start, 0.026, HEAD_TURN)
    relief += 0.0042 * cv2.GaussianBlur(letters, (0, 0), 0.0008 * scale)
    clock = _circle(x, y, 0.195, 0.035, 0.0)  # date stamp of the mould
    relief += 0.0022 * ramp(-np.abs(clock - 0.015), -0.0028, -0.0014)

    rng = np.random.default_rng([seed, 1])
    grain = noise(rng, shape, 0.0028 * scale) + 0.7 * noise(rng, shape, 0.0018 * scale)
    smooth = np.maximum(ramp(-hub, -0.102, -0.098), ramp(-plate, -0.001, 0.002))  # polished faces
    relief += 0.00016 * grain * (1 - 0.8 * smooth)
    paint = np.repeat((1 + 0.05 * noise(rng, shape, 0.05 * scale))[..., None], 3, 2).astype(np.float32)
    steel = (arbor * (1 - gap))[..., None] * np.array([1.30, 1.12, 1.02], np.float32)
    paint = paint * (1 - arbor[..., None]) + steel + 0.2 * (arbor * gap)[..., None]
    opening = np.ones(shape, np.float32)
    return Part(
        scale, outline.astype(np.float32), opening, relief.astype(np.float32), paint.astype(np.float32),
        np.ones(shape, np.float32), np.zeros(shape, bool),
    )  # fmt: skip


def height_of(part: Part) -> np.ndarray:
    """Height of the front surface, float32 (h, w), 0 outside the part: rounded edges plus relief."""
    edge = np.clip(-part.outline / 0.016, 0, 1)
    lip = np.clip(part.opening / 0.008, 0, 1)
    body = THICKNESS * np.sqrt(1 - (1 - edge) ** 2) * (0.35 + 0.65 * np.sqrt(1 - (1 - lip) ** 2))
    return np.where(part.outline < 0, body + part.relief * np.minimum(edge * 2, 1), 0).astype(np.float32)


def coverage(part: Part) -> np.ndarray:
    """Share of each canvas pixel that the part covers, float32 (h, w) in [0, 1]."""
    return np.clip(0.5 - part.outline * part.scale, 0, 1) * np.clip(0.5 + part.opening * part.scale, 0, 1)


def shade(part: Part, light: Light) -> np.ndarray:
    """Linear RGB radiance of the front, float32 (h, w, 3): diffuse, satin reflection, cast shadows, occlusion."""
    height = height_of(part) * part.scale
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
    elevation, azimuth = light.elevation, light.azimuth
    lx, ly, lz = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
    lx, ly, lz = np.float32(lx), np.float32(ly), np.float32(lz)
    diffuse = np.maximum((lz - gx * lx - gy * ly) * norm, 0)
    half = np.float32(1 / np.sqrt(2 + 2 * lz))
    mirror = np.maximum((lz + 1 - gx * lx - gy * ly) * norm * half, 0)
    specular = cv2.pow(mirror, 18) * 0.10 + cv2.pow(mirror, 80) * 0.10

    low = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    unit = part.scale / 2
    shadow, occlusion = np.zeros_like(low), np.zeros_like(low)
    for step in (0.004, 0.008, 0.013, 0.020, 0.029):
        move = np.array([[1, 0, -lx * step * unit], [0, 1, -ly * step * unit]], np.float32)
        shifted = cv2.warpAffine(low, move, low.shape[::-1])
        np.maximum(shadow, (shifted - low) / 2 - step * unit * lz / np.sqrt(1 - lz * lz), out=shadow)
    for sigma in (0.005, 0.016):
        occlusion += np.maximum(cv2.GaussianBlur(low, (0, 0), sigma * unit) - low, 0)
    shadow = cv2.GaussianBlur(np.minimum(shadow / (0.004 * unit), 1), (0, 0), 0.0015 * unit)
    both = cv2.merge([1 - 0.75 * shadow, np.exp(-occlusion / (0.011 * unit))])
    both = cv2.resize(both, height.shape[::-1], interpolation=cv2.INTER_LINEAR)
    lit, open_ = both[..., 0], both[..., 1]

    sky = 0.75 + 0.35 * gy * norm  # the ceiling gives more than the floor
    irradiance = (diffuse * lit * (0.4 + 0.6 * open_))[..., None] * light.key + (sky * open_)[..., None] * light.ambient
    mirrored: np.ndarray = (specular * lit * open_ * part.gloss)[..., None] * light.key
    radiance: np.ndarray = irradiance * (part.paint * ALBEDO) + mirrored
    return radiance


def axes(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x (1, w) and y (h, 1) of the canvas' pixel centres, float32."""
    rows, columns = part.outline.shape
    x = (np.arange(columns, dtype=np.float32) + 0.5) / part.scale - HALF_WIDTH
    y = (np.arange(rows, dtype=np.float32) + 0.5) / part.scale - HALF_HEIGHT
    return x[None], y[:, None]


def bore(part: Part) -> np.ndarray:
    """Signed distance to the bore, which is the arbor's and has no defects."""
    x, y = axes(part)
    return np.hypot(x - HUB[0], y - HUB[1]) - BORE
