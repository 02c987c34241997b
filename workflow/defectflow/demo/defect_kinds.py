"""The renderer's kinds of defect: each takes a part (``moulded_part``) and returns it with the defect and its mask."""

from dataclasses import replace

import cv2
import numpy as np

from defectflow.demo.moulded_part import HALF_HEIGHT, HALF_WIDTH, Part, axes, bore, noise, ramp, strokes

# In this order: a set of n kinds has the first n.
KINDS = ("scratch", "crack", "hole", "stain", "missing_piece", "deformation", "blister", "specks")


def spoil(part: Part, kind: str, severity: float, rng: np.random.Generator) -> Part:
    """A copy of ``part`` with one defect of ``kind``; ``severity`` in [0, 1] from subtle to obvious.

    A defect that would hardly touch the part (it lies over an opening, or beside the edge) is drawn again.
    """
    make = {
        "scratch": _scratch, "crack": _crack, "hole": _hole, "stain": _stain,
        "missing_piece": _missing_piece, "deformation": _deformation, "blister": _blister, "specks": _specks,
    }[kind]  # fmt: skip
    least = (0.00015 + 0.0005 * severity) * part.scale**2
    for _ in range(20):
        result = make(part, severity, rng)
        if result.defect.sum() >= least:
            break
    return result


def _place(part: Part, rng: np.random.Generator, margin: float, border: bool = False) -> tuple[float, float]:
    """A random point at least ``margin`` inside the part, or on its border."""
    good = np.abs(part.outline) < 0.002 if border else (part.outline < -margin) & (bore(part) > margin)
    rows, columns = np.nonzero(good[::4, ::4])
    pick = int(rng.integers(len(rows)))
    return (columns[pick] * 4 + 0.5) / part.scale - HALF_WIDTH, (rows[pick] * 4 + 0.5) / part.scale - HALF_HEIGHT


def _walk(
    rng: np.random.Generator, start: tuple[float, ...], heading: float, length: float, step: float, bend: float
) -> np.ndarray:
    """A polyline [n, 2] that wanders: each step turns by a normal angle of deviation ``bend``."""
    turns = np.cumsum(rng.normal(0, bend, max(2, round(length / step)))) + heading
    steps = np.stack([np.cos(turns), np.sin(turns)], 1) * step
    return np.concatenate([[start], np.asarray(start) + np.cumsum(steps, 0)])


def _inside(part: Part) -> np.ndarray:
    return (part.outline < 0) & (bore(part) > 0)


def _scratch(part: Part, severity: float, rng: np.random.Generator) -> Part:
    # Along the part, as a tool or a neighbour in the box drags.
    heading, length = rng.normal(-0.3, 0.7), 0.06 + 0.15 * severity
    lines: list[np.ndarray] = []
    for _ in range(1 + int(rng.integers(0, 2) + severity)):
        start = _place(part, rng, 0.03) if not lines else tuple(lines[0][0] + rng.normal(0, 0.008, 2))
        lines.append(_walk(rng, start, heading + rng.normal(0, 0.06), length * rng.uniform(0.6, 1), 0.01, 0.03))
    width = 0.0018 + 0.0014 * severity
    core = strokes(part.outline.shape, part.scale, lines, width)
    core *= _inside(part)
    lip = cv2.GaussianBlur(core, (0, 0), 0.0014 * part.scale)
    relief = part.relief - (0.0006 + 0.0014 * severity) * core + 0.0008 * lip
    white = cv2.GaussianBlur(core, (0, 0), 0.0006 * part.scale)
    whitened = part.paint * (1 + (0.8 + 1.4 * severity) * white)[..., None]
    defect = strokes(part.outline.shape, part.scale, lines, width + 0.004) > 0.5
    return replace(part, relief=relief, paint=whitened, defect=defect & _inside(part))


def _crack(part: Part, severity: float, rng: np.random.Generator) -> Part:
    start = _place(part, rng, 0.0, border=True)
    centre = _place(part, rng, 0.05)
    heading = np.arctan2(centre[1] - start[1], centre[0] - start[0])
    trunk = _walk(rng, start, heading, 0.05 + 0.13 * severity, 0.006, 0.3)
    lines = [trunk]
    for _ in range(int(1 + 2 * severity)):
        at = trunk[int(rng.integers(len(trunk) // 3, len(trunk)))]
        lines.append(_walk(rng, tuple(at), heading + rng.choice([-1, 1]) * 0.8, 0.02 + 0.03 * severity, 0.005, 0.4))
    width = 0.0020 + 0.0020 * severity
    core = strokes(part.outline.shape, part.scale, lines, width)
    core *= _inside(part)
    relief = part.relief - (0.002 + 0.004 * severity) * core
    paint = part.paint * (1 - (0.55 + 0.35 * severity) * core)[..., None]
    defect = strokes(part.outline.shape, part.scale, lines, width + 0.004) > 0.5
    return replace(part, relief=relief, paint=paint, gloss=part.gloss * (1 - core), defect=defect & _inside(part))


def _blob(part: Part, rng: np.random.Generator, centre: tuple[float, float], radius: float, rough: float) -> np.ndarray:
    """Signed distance, roughly, to an irregular blob."""
    x, y = axes(part)
    angle = np.arctan2(y - centre[1], x - centre[0])
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.65, 0.95)
    u = np.cos(turn) * (x - centre[0]) + np.sin(turn) * (y - centre[1])
    v = (np.cos(turn) * (y - centre[1]) - np.sin(turn) * (x - centre[0])) / squeeze
    wobble = sum(np.sin(k * angle + rng.uniform(0, 6.3)) * rng.normal(0, rough) / k for k in (2, 3, 5, 8))
    distance: np.ndarray = (np.hypot(u, v) - radius * (1 + wobble)).astype(np.float32)
    return distance


def _hole(part: Part, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.009 + 0.014 * severity
    blob = _blob(part, rng, _place(part, rng, radius + 0.02), radius, 0.25)
    return replace(part, opening=np.minimum(part.opening, blob), defect=(blob < 0.0015) & _inside(part))


def _stain(part: Part, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.022 + 0.035 * severity
    blob = _blob(part, rng, _place(part, rng, 0.025), radius, 0.3)
    blob = blob + 0.12 * radius * noise(rng, part.outline.shape, 0.02 * part.scale)
    amount = ramp(-blob, -0.15 * radius, 0.5 * radius) * _inside(part)
    tints = np.array([[0.28, 0.25, 0.20], [1.25, 0.72, 0.38], [2.1, 2.1, 2.0]], np.float32)  # oil, rust, residue
    tint = tints[int(rng.integers(3))] ** np.float32(0.45 + 0.55 * severity)
    paint = part.paint * (1 + amount[..., None] * (tint - 1))
    return replace(part, paint=paint, gloss=part.gloss * (1 - 0.4 * amount), defect=(amount > 0.35) & _inside(part))


def _missing_piece(part: Part, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.020 + 0.034 * severity
    blob = _blob(part, rng, _place(part, rng, 0.0, border=True), radius, 0.35)
    blob = blob + 0.06 * radius * noise(rng, part.outline.shape, 0.006 * part.scale)
    fracture = ramp(-np.abs(blob), -0.008, -0.002)  # torn face: pale and rough
    rough = noise(rng, part.outline.shape, 0.004 * part.scale)
    return replace(
        part,
        outline=np.maximum(part.outline, -blob),
        relief=part.relief + fracture * (0.0012 * rough + 0.004),
        paint=part.paint * (1 + 0.5 * fracture)[..., None],
        defect=(blob < 0.001) & _inside(part),
    )


def _deformation(part: Part, severity: float, rng: np.random.Generator) -> Part:
    radius, push = 0.040 + 0.03 * severity, 0.011 + 0.016 * severity
    cx, cy = _place(part, rng, 0.0, border=True)
    x, y = axes(part)
    heading = rng.uniform(0, 2 * np.pi)
    bell = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2 / 4)).astype(np.float32)
    rows, columns = np.indices(bell.shape, np.float32)
    map_x = columns - np.float32(np.cos(heading) * push * part.scale) * bell
    map_y = rows - np.float32(np.sin(heading) * push * part.scale) * bell

    def warp(field: np.ndarray) -> np.ndarray:
        return cv2.remap(field, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    outline, opening = warp(part.outline), warp(part.opening)
    relief = warp(part.relief) + rng.choice([-1, 1]) * np.float32(0.3 * push) * bell
    changed = (bell * push > 0.0025) & (np.minimum(outline, part.outline) < 0)
    return replace(part, outline=outline, opening=opening, relief=relief, paint=warp(part.paint), defect=changed)


def _blister(part: Part, severity: float, rng: np.random.Generator) -> Part:
    # Trapped gas that lifts the skin: smooth domes, seen by their shading alone.
    cx, cy = _place(part, rng, 0.035)
    x, y = axes(part)
    relief, defect = part.relief.copy(), np.zeros(part.outline.shape, bool)
    for _ in range(1 + int(rng.integers(0, 2) + 1.5 * severity)):
        bx, by = rng.normal((cx, cy), 0.012)
        radius = (0.010 + 0.010 * severity) * rng.uniform(0.7, 1.1)
        inside = np.clip(1 - ((x - bx) ** 2 + (y - by) ** 2) / radius**2, 0, 1)
        relief += ((0.35 + 0.2 * severity) * radius * np.sqrt(inside)).astype(np.float32)
        defect |= inside > 0
    return replace(part, relief=relief, defect=defect & _inside(part))


def _specks(part: Part, severity: float, rng: np.random.Generator) -> Part:
    # Dirt in the granulate: dark grains, close to each other.
    cx, cy = _place(part, rng, 0.03)
    spread = 0.020 + 0.025 * severity
    grains = np.zeros(part.outline.shape, np.uint8)
    for centre in rng.normal((cx, cy), spread, (int(12 + 22 * severity), 2)):
        row, column = (centre[1] + HALF_HEIGHT) * part.scale, (centre[0] + HALF_WIDTH) * part.scale
        radius = max(1, round(rng.uniform(0.0018, 0.0040) * part.scale))
        cv2.circle(grains, (round(column), round(row)), radius, 255, -1, cv2.LINE_AA)
    core = grains.astype(np.float32) / 255 * _inside(part)
    paint = part.paint * (1 - (0.6 + 0.3 * severity) * core)[..., None]
    return replace(part, paint=paint, gloss=part.gloss * (1 - 0.5 * core), defect=core > 0.5)
