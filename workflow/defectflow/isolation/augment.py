"""Stage augment: weakly varied copies of isolated pictures.

Good images get ``augmented`` copies, which are only used for training: ``copy_of`` names the source, whose split they
follow. Labelled images get ``perturbed`` copies, which are only scored, as a robustness test: one
for each kind of perturbation and each strength, named ``{image_id}~{kind}~{strength}``. Good images get ``synthetic``
copies with a drawn defect, which are only scored too, named ``{image_id}~{kind}~{number}``.
"""

import argparse
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_seed
from defectflow.core.files import atomic_dir, sha256_of, stage
from defectflow.core.tables import CONTENT, ISOLATED, read_table, write_table
from defectflow.images.read_write import read_mask, read_rgb, write_png
from defectflow.isolation.drawn_defects import KINDS, drawn
from defectflow.isolation.settings import AugmentationSettings

PERTURBATIONS = ("brightness", "contrast", "blur", "rotate", "translate")  # photometric ones, then geometric ones

Transform = Callable[..., dict[str, np.ndarray]]  # of albumentations: from image and mask to both


def build_transform(
    rotate: float, translate: float, brightness: float, contrast: float, blur: int, seed: int
) -> Transform:
    """An albumentations pipeline that imitates a small change of fixture, lamp or focus.

    Args:
        rotate: largest rotation in degrees.
        translate: largest shift as a share of the side.
        brightness: largest change as a share of full scale.
        contrast: largest change as a share.
        blur: largest side of the Gaussian kernel in pixels, 0 for none.
        seed: of this pipeline; the same seed gives the same copies.

    Returns:
        A callable that takes ``image`` (uint8 RGB) and ``mask`` (uint8) and returns a dict of both.
    """
    import albumentations as A

    steps = [
        A.Affine(
            rotate=(-rotate, rotate),
            translate_percent=(-translate, translate),
            border_mode=cv2.BORDER_REPLICATE,
            p=1.0,
        ),
        A.RandomBrightnessContrast(brightness_limit=brightness, contrast_limit=contrast, p=1.0),
    ]
    if blur:
        steps.append(A.GaussianBlur(blur_limit=(3, max(3, blur)), p=0.5))
    transform: Transform = A.Compose(steps, seed=seed)
    return transform


def build_perturbation(kind: str, amount: float, strength: float, seed: int) -> Transform:
    """An albumentations pipeline that changes one property by ``strength`` times ``amount``, up or down.

    Args:
        kind: name in PERTURBATIONS.
        amount: as of :func:`build_transform`; for blur the side of the kernel whose standard deviation is meant.
        strength: above 0.
        seed: decides the direction.

    Returns:
        As :func:`build_transform`.
    """
    import albumentations as A

    rng = np.random.default_rng(seed)
    way, angle = rng.choice([-1.0, 1.0]), rng.uniform(0, 2 * np.pi)
    size = strength * amount
    if kind == "blur":
        sigma = strength * (0.3 * ((amount - 1) / 2 - 1) + 0.8)  # of a kernel of that side in OpenCV
        step = A.GaussianBlur(blur_limit=0, sigma_limit=(sigma, sigma), p=1.0)
    elif kind in ("brightness", "contrast"):
        limits = {f"{name}_limit": (way * size * (name == kind),) * 2 for name in ("brightness", "contrast")}
        step = A.RandomBrightnessContrast(**limits, p=1.0)
    else:
        x, y = size * np.cos(angle), size * np.sin(angle)
        moved = {"rotate": (way * size,) * 2} if kind == "rotate" else {"translate_percent": {"x": (x, x), "y": (y, y)}}
        step = A.Affine(**moved, border_mode=cv2.BORDER_REPLICATE, p=1.0)
    transform: Transform = A.Compose([step], seed=seed)
    return transform


def build_defect(kind: str, seed: int) -> Transform:
    """What draws a defect of one of `drawn_defects.KINDS`, in the form of :func:`build_transform`."""
    return lambda image, mask: {"image": drawn(kind, image, mask > 0, np.random.default_rng(seed)), "mask": mask}


def copy_seed(seed: int, name: str) -> int:
    """Seed of one copy, from ``seed`` and its name only, so that a new image changes no other copy."""
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:8], 16)


def main(args: argparse.Namespace) -> None:
    """Write the copies of one shard's isolated pictures, and their table (tables.ISOLATED)."""
    settings = read_settings(args.settings, AugmentationSettings, "augment")
    isolated = read_table(args.isolated, ISOLATED)
    columns = ["image_id", "label", "split"]
    manifest = read_table(args.manifest, columns, lambda part: part["label"].notna()).set_index("image_id")
    labels, sides = manifest["label"], manifest["split"]
    amounts = {kind: getattr(settings, kind) for kind in PERTURBATIONS}
    wanted = []
    for row in isolated[isolated["image_id"].isin(manifest.index)].itertuples():
        label, side = labels[row.image_id], sides[row.image_id]
        if label == 0 and side != "test":
            for number in range(1, settings.copies + 1):
                name = f"{row.image_id}~aug{number}"
                wanted.append((row, "augmented", name, partial(build_transform, **amounts)))
        if label in (0, 1) and side != "train":
            for kind, amount in amounts.items():
                for strength in settings.robustness if amount else ():
                    name = f"{row.image_id}~{kind}~{strength:g}"
                    wanted.append((row, "perturbed", name, partial(build_perturbation, kind, amount, strength)))
        if label == 0 and side != "train":
            for kind in KINDS if row.mask else [kind for kind in KINDS if kind != "missing"]:
                for number in range(1, settings.synthetic + 1):
                    wanted.append((row, "synthetic", f"{row.image_id}~{kind}~{number}", partial(build_defect, kind)))
    out_dir, records = Path(args.out_dir), []
    with atomic_dir(out_dir) as temporary:
        for row, kind, name, build in tqdm(wanted, desc="augment", unit="copy"):
            image = read_rgb(row.image)
            mask = read_mask(row.mask) if row.mask else np.ones(image.shape[:2], bool)
            if kind == "synthetic" and not mask.any():
                continue
            transform = build(seed=copy_seed(args.seed, name))
            varied = transform(image=image, mask=mask.astype(np.uint8))
            if row.mask and mask.any() and not args.keep_background:  # a picture without the part is kept whole
                # Brightness changes a zeroed background too; pixels outside the part must keep the value set by
                # isolation. Beyond the frame, where a window may begin, they are black whatever it is.
                outside = np.median(image[~mask], axis=0) if (~mask).any() else np.zeros(3)
                varied["image"] = np.where(varied["mask"][..., None] > 0, varied["image"], outside.astype(np.uint8))
            write_png(temporary / f"{name}.png", varied["image"])
            digests = [sha256_of(temporary / f"{name}.png")]
            if row.mask:
                write_png(temporary / f"{name}.mask.png", varied["mask"] > 0)
                digests.append(sha256_of(temporary / f"{name}.mask.png"))
            record = {column: getattr(row, column) for column in ISOLATED}
            record |= {"image_id": name, "copy_of": row.image_id, "kind": kind, "image": str(out_dir / f"{name}.png")}
            record[CONTENT] = "".join(digest[:16] for digest in digests)
            records.append(record | {"mask": str(out_dir / f"{name}.mask.png") if row.mask else ""})
    columns = [*ISOLATED, CONTENT]
    write_table(args.table, pd.DataFrame(records, columns=columns), columns)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.isolation.augment", description=__doc__)
    parser.add_argument("--isolated", required=True, help="table of isolated pictures of one shard")
    parser.add_argument("--manifest", required=True, help="manifest.csv: labels, and a fixed split if there is one")
    add_settings(parser, AugmentationSettings, "augment")
    parser.add_argument("--keep-background", action="store_true", help="the isolation kept the background")
    add_seed(parser)
    parser.add_argument("--out-dir", required=True)
    parser.add_argument("--table", required=True)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
