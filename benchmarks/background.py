"""How often the border of photographs is said to differ where the background stays, and where it does not.

python benchmarks/background.py [--seeds N] [--first S] [--photographs FOLDER] [--sets FOLDER ...]

Sets of sound parts are rendered as those of the demo, with other parts, places and light for each seed:

- fixed camera: one place, nobody in it, the light a little other in each photograph;
- fixed camera, other exposure: the same, with another gain, white balance, vignette and glow for each;
- by hand: one place, the camera moves a little, people pass;
- a few places: four, three photographs each;
- each elsewhere: a place for each photograph.

With --photographs, photographs of that folder are places too: one for all of a set, or another one for each. --sets
are folders of real photographs, each judged as one set.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.demo import moulded_part, render_demo, shop_floor
from defectflow.evaluation.background_check import MOST, Border, compare, small_copy
from defectflow.images.read_write import read_rgb
from defectflow.listing.image_names import is_image

EACH, SIZE = 12, 192  # photographs of a set, pixels


def still(
    sound: moulded_part.Part, burst: render_demo.Burst, camera: shop_floor.Camera, rng: np.random.Generator
) -> np.ndarray:
    """The part before a scene that does not move, in a light of its own."""
    frame = shop_floor.backdrop(burst.scene, [], (0, 0), SIZE, [0])
    pose = replace(burst.pose, shift=tuple(np.add(burst.pose.shift, rng.uniform(-0.01, 0.01, 2))))
    place = shop_floor.placement(pose, SIZE)
    light = replace(burst.light, azimuth=burst.light.azimuth + rng.normal(0, 0.05))
    frame = shop_floor.lay_over(frame, moulded_part.shade(sound, light), moulded_part.coverage(sound), place)
    return shop_floor.expose(frame, replace(camera, gain=camera.gain * float(np.exp(rng.normal(0, 0.12)))), rng)


def rendered(seed: int, places: list[Path]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Kind and photographs of the sets of a seed; ``places``: photographs to stand before."""
    sound = moulded_part.mould(SIZE, seed)
    bursts = [render_demo.burst_of(index, SIZE, seed) for index in range(EACH)]
    view = render_demo.View("", 0, "", 0.0, "0", False)

    def taken(burst: render_demo.Burst, k: int) -> np.ndarray:
        return render_demo.photograph(sound, view, burst, SIZE, np.random.default_rng([seed, 3, k]))[0]

    rng = np.random.default_rng([seed, 9])
    cameras = [burst.camera for burst in bursts]
    yield "fixed camera", [still(sound, bursts[0], cameras[0], rng) for _ in range(EACH)]
    yield "fixed camera, other exposure", [still(sound, bursts[0], camera, rng) for camera in cameras]
    yield "by hand", [taken(bursts[0], k) for k in range(EACH)]
    yield "a few places", [taken(bursts[k // 3], k) for k in range(EACH)]
    yield "each elsewhere", [taken(bursts[k], k) for k in range(EACH)]
    if places:
        scenes = [_scene(places[k]) for k in rng.choice(len(places), EACH, replace=False)]
        lit = [replace(burst, scene=scene) for burst, scene in zip(bursts, scenes, strict=True)]
        one, many = "other exposure, a photograph behind", "each elsewhere, photographs behind"
        yield one, [still(sound, lit[0], camera, rng) for camera in cameras]
        yield many, [still(sound, burst, cameras[0], rng) for burst in lit]


def _scene(path: Path) -> np.ndarray:
    photo, side = read_rgb(path), round(SIZE * shop_floor.MARGIN)
    least = min(photo.shape[:2])
    return cv2.resize(photo[:least, :least], (side, side), interpolation=cv2.INTER_AREA)


def border(photographs: list[np.ndarray]) -> Border:
    """What the check finds in them."""
    return compare(np.stack([small_copy(photo) for photo in photographs]))


def main(args: argparse.Namespace) -> None:
    """Print a line for each kind, and for each set."""
    places = sorted(path for path in args.photographs.rglob("*") if is_image(path.name)) if args.photographs else []
    found: dict[str, list[Border]] = {}
    for seed in range(args.first, args.first + args.seeds):
        for kind, photographs in rendered(seed, places):
            found.setdefault(kind, []).append(border(photographs))
    for kind, borders in found.items():
        spans = [np.quantile([getattr(one, field) for one in borders], (0, 0.5, 1)) for field in Border._fields]
        text = "; ".join(f"{n} {a:.2f}, {b:.2f}, {c:.2f}" for n, (a, b, c) in zip(Border._fields, spans, strict=True))
        print(f"{kind}: differs in {sum(one.differs for one in borders)} of {len(borders)} ({text})")
    for folder in args.sets:
        paths = sorted(path for path in folder.rglob("*") if is_image(path.name))
        chosen = [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST)).astype(int))]
        one = border([read_rgb(path) for path in chosen])
        print(f"{folder}: {len(chosen)} photographs, differs: {one.differs} ({one})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1000, help="of the seeds")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="places to stand before")
    parser.add_argument("--sets", type=Path, nargs="*", default=[], metavar="FOLDER")
    main(parser.parse_args())
