"""Stage demo: render the default data set, a moulded part before a shop floor, sound and with several kinds of defects.

Everything is computed from ``--seed``: no picture is read and nothing is downloaded. It writes ``images/*.jpg`` in
capture order, ``annotations.json`` (COCO, polygons of the part's silhouette on about half of the views; a hole
in the part belongs to the label), ``labels.csv`` and ``ground_truth/*.png`` (pixels of the defect, 0 or 255).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from defectflow.core.arguments import add_seed
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.core.records import CocoAnnotation, CocoImage
from defectflow.core.tables import write_table
from defectflow.demo import defect_kinds, moulded_part, shop_floor
from defectflow.demo.defect_kinds import KINDS
from defectflow.demo.moulded_part import Light, Part
from defectflow.demo.shop_floor import Camera, Person, Pose
from defectflow.images.read_write import write_png

LABELLED, ANNOTATED = 0.7, 0.5  # share of the sound views with a label; share of all views with an annotation
QUALITY = 92


@dataclass(frozen=True)
class View:
    """One photograph to take: ``kind`` is "" for a sound part; ``label`` is "0", "1" or ""; ``burst`` counts from 0."""

    name: str
    burst: int
    kind: str
    severity: float
    label: str
    annotated: bool


def plan(views: int, defects: int, seed: int, n_kinds: int = 6) -> list[View]:
    """The session: ``views`` sound and ``defects`` defective parts in bursts of 3 to 6, in capture order.

    The first ``n_kinds`` of KINDS take turns. About a third of the bursts hold both sound and defective parts.
    """
    rng, kinds = np.random.default_rng([seed, 0]), KINDS[:n_kinds]
    severity = np.linspace(0, 1, max(1, -(-defects // len(kinds))))
    bad = [(kinds[i % len(kinds)], float(severity[i // len(kinds)])) for i in range(defects)]
    bad = [bad[i] for i in rng.permutation(defects)]
    known = np.isin(np.arange(views), rng.permutation(views)[: round(LABELLED * views)])
    good = [("", float(k)) for k in known]
    # Runs of sound and defective parts; bursts do not respect them, so that some hold both.
    runs, order = [], []
    for parts, low, high in ((good, 4, 10), (bad, 2, 5)):
        while parts:
            n = int(rng.integers(low, high))
            runs.append(parts[:n])
            parts = parts[n:]
    for i in rng.permutation(len(runs)):
        order += runs[i]
    bursts: list[int] = []
    while len(bursts) < len(order):
        bursts += [bursts[-1] + 1 if bursts else 0] * int(rng.integers(3, 7))
    total = len(order)
    chosen = _spread(np.array([kind != "" for kind, _ in order]), rng)
    result = []
    for i, (kind, value) in enumerate(order):
        label = "1" if kind else "0" if value else ""
        result.append(View(f"view_{i + 1:0{max(4, len(str(total)))}d}", bursts[i], kind, value, label, bool(chosen[i])))
    return result


def _spread(defective: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which views are annotated: ANNOTATED of all, a quarter of the defective ones among them (bool per view)."""
    chosen = np.zeros(len(defective), bool)
    bad, good = (rng.permutation(np.flatnonzero(defective == value)) for value in (True, False))
    chosen[bad[: len(bad) // 4]] = True
    chosen[good[: max(1, round(ANNOTATED * len(defective)) - len(bad) // 4)]] = True
    return chosen


@dataclass(frozen=True)
class Burst:
    """What the views of one burst share."""

    scene: np.ndarray
    people: list[Person]
    light: Light
    camera: Camera
    pose: Pose


def burst_of(index: int, size: int, seed: int) -> Burst:
    """Place, people, light, exposure and rest position of a burst."""
    rng = np.random.default_rng([seed, 2, index])
    scene = shop_floor.background(rng, size, index)
    people = [shop_floor.person(rng) for _ in range(int(rng.integers(0, 3)))]
    warm = rng.normal(0, 0.08)
    key = np.array([1 + warm, 1, 1 - warm], np.float32) * np.float32(rng.uniform(1.9, 2.3))
    ambient = np.array([1 - warm, 1, 1 + warm], np.float32) * np.float32(rng.uniform(0.75, 1.0))
    light = Light(float(rng.uniform(-2.3, -1.5)), float(rng.uniform(0.72, 0.92)), key, ambient)
    camera = Camera(
        gain=float(np.exp(rng.uniform(np.log(0.35), np.log(2.4)))),
        gamma=float(rng.uniform(0.9, 1.12)),
        balance=np.exp(rng.normal(0, (0.09, 0.02, 0.09))).astype(np.float32),
        vignette=float(rng.uniform(0.1, 0.8)),
        glow=(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.1))),
        blur=float(rng.uniform(0.5, 0.65)) * size / 512,
        noise=float(rng.uniform(0.002, 0.005)),
    )
    pose = Pose(tuple(rng.uniform(-0.02, 0.02, 2)), float(np.deg2rad(rng.uniform(-2.5, 2.5))), 1.0)
    return Burst(scene, people, light, camera, pose)


def photograph(
    sound: Part, view: View, burst: Burst, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take one view.

    Returns:
        The photograph, uint8 RGB (size, size, 3); the part's silhouette with its openings filled, bool (size, size);
        the defect, bool (size, size).
    """
    part = _handled(sound, rng)
    if view.kind:
        part = defect_kinds.spoil(part, view.kind, view.severity, rng)
    jitter = rng.uniform(-1, 1, 4)
    pose = Pose(
        (burst.pose.shift[0] + 0.01 * jitter[0], burst.pose.shift[1] + 0.01 * jitter[1]),
        burst.pose.turn + float(np.deg2rad(1.5 * jitter[2])),
        1 + 0.02 * float(jitter[3]),
    )
    old = burst.light
    light = Light(old.azimuth + rng.normal(0, 0.05), old.elevation + rng.normal(0, 0.03), old.key, old.ambient)
    people = [
        Person(p.x + rng.normal(0, 0.05), p.y + rng.normal(0, 0.01), p.size, p.jacket, p.skin, p.hair, p.reach)
        for p in burst.people
    ]
    offset = tuple(np.clip(rng.normal(0, 0.012, 2), -0.07, 0.07))
    frame = shop_floor.backdrop(burst.scene, people, offset, size, [int(rng.integers(1 << 30))])
    shop_floor.stand(frame)
    matrix = shop_floor.placement(pose, size)
    cover = moulded_part.coverage(part)
    frame = shop_floor.lay_over(frame, moulded_part.shade(part, light), cover, matrix)
    camera = burst.camera
    camera = Camera(
        camera.gain * float(np.exp(rng.normal(0, 0.12))), camera.gamma, camera.balance, camera.vignette, camera.glow,
        camera.blur * float(rng.uniform(0.95, 1.15)), camera.noise,
    )  # fmt: skip
    picture = shop_floor.expose(frame, camera, rng)
    silhouette = _into_frame(np.clip(0.5 - part.outline * part.scale, 0, 1), matrix, size)
    return picture, silhouette, _into_frame(part.defect.astype(np.float32), matrix, size)


def _into_frame(field: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    soft = cv2.GaussianBlur(field.astype(np.float32), (0, 0), 0.33 * moulded_part.DENSITY)
    return cv2.warpAffine(soft, matrix, (size, size)) > 0.5


def _handled(part: Part, rng: np.random.Generator) -> Part:
    """The same part as it comes from the line: dust, slightly uneven colour and gloss. No defect."""
    shape = part.outline.shape
    dust = np.zeros(shape, np.uint8)
    for _ in range(int(rng.integers(8, 30))):
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        radius = max(1, round(rng.uniform(0.0006, 0.0016) * part.scale))
        cv2.circle(dust, centre, radius, int(rng.integers(20, 70)), -1, cv2.LINE_AA)
    tone = 1 + 0.03 * moulded_part.noise(rng, shape, 0.12 * part.scale) + dust.astype(np.float32) / 255
    gloss = part.gloss * (1 + 0.2 * moulded_part.noise(rng, shape, 0.1 * part.scale))
    return Part(part.scale, part.outline, part.opening, part.relief, part.paint * tone[..., None], gloss, part.defect)


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons [x0, y0, x1, y1, ...] of the outer outlines of ``mask`` (bool), as an annotator clicks them."""
    # Contours run through the centres of border pixels: enlarged, they lose an eighth of a pixel, not half of one.
    large: np.ndarray = np.kron(mask.astype(np.uint8), np.ones((4, 4), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    result = []
    for contour in contours:
        outline = (cv2.approxPolyDP(contour, 2.4, True)[:, 0] + 0.5) / 4
        if len(outline) >= 3 and cv2.contourArea(contour) > 320:
            result.append([float(v) for v in outline.ravel()])
    return result


def annotation(index: int, image: int, mask: np.ndarray) -> CocoAnnotation:
    """The COCO annotation of a silhouette."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    return {
        "id": index, "image_id": image, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": box,
        "segmentation": polygons(mask),
    }  # fmt: skip


def render(out: Path, views: int, defects: int, size: int, seed: int, kinds: int = 6) -> None:
    """Render the data set into the folder ``out``, which must exist."""
    for folder in ("images", "ground_truth"):
        (out / folder).mkdir()
    sound = moulded_part.mould(size, seed)
    burst: Burst | None = None
    current = -1
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    rows = []
    for index, view in enumerate(tqdm(plan(views, defects, seed, kinds), desc="demo", unit="view")):
        if burst is None or view.burst != current:
            current, burst = view.burst, burst_of(view.burst, size, seed)
        rng = np.random.default_rng([seed, 3, index])
        picture, silhouette, defect = photograph(sound, view, burst, size, rng)
        name, mask = f"{view.name}.jpg", ""
        Image.fromarray(picture).save(out / "images" / name, quality=QUALITY, subsampling=0)
        if view.kind:
            mask = f"ground_truth/{view.name}.png"
            write_png(out / mask, defect)
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        if view.annotated:
            annotations.append(annotation(len(annotations) + 1, index + 1, silhouette))
        rows.append([name, view.label, view.kind, f"burst_{view.burst + 1:02d}", mask])
    coco = {
        "info": {"description": f"defectflow demo: rendered views of one moulded part, seed {seed}"},
        "licenses": [], "categories": [{"id": 1, "name": "part"}], "images": images, "annotations": annotations,
    }  # fmt: skip
    (out / "annotations.json").write_text(json.dumps(coco) + "\n", encoding="utf-8")
    columns = ["filename", "label", "defect_type", "group", "mask"]
    write_table(out / "labels.csv", pd.DataFrame(rows, columns=columns), columns)


def main(args: argparse.Namespace) -> None:
    """Check the arguments and render."""
    limits = {"views": 1, "defects": 0, "size": 64, "kinds": 1}
    for name, least in limits.items():
        if (value := getattr(args, name)) < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
    if args.kinds > len(KINDS):
        raise UserError(f"--kinds {args.kinds}: there are {len(KINDS)} ({', '.join(KINDS)})")
    with atomic_dir(args.out) as out:
        render(out, args.views, args.defects, args.size, args.seed, args.kinds)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.demo.render_demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write (replaced if it exists)")
    parser.add_argument("--views", type=int, default=57, help="views of good parts, about two thirds with a label")
    parser.add_argument("--defects", type=int, default=24, help="views of defective parts")
    parser.add_argument(
        "--kinds", type=int, default=6, help=f"kinds of defects: the first so many of {', '.join(KINDS)}"
    )
    parser.add_argument("--size", type=int, default=512, help="width and height of a photograph in pixels")
    add_seed(parser)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
