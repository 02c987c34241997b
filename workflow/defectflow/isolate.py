"""Stage isolate: photographs and part masks in, pictures of the part alone out, in constant geometry and light."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.files import UserError, atomic_dir, stage
from defectflow.images import read_mask, read_rgb, write_png
from defectflow.tables import ISOLATED, MANIFEST, MASKS, PAIRS, read_table, write_table

BACKGROUNDS = ("keep", "zero", "mean")
NORMALISATIONS = ("none", "brightness", "gray_world", "contrast", "clahe")
# Mean grey level of the part after `brightness`: mid-grey leaves head-room for highlights on both kinds of backbone.
BRIGHTNESS_TARGET = 110.0
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of R, G and B (ITU-R BT.601)


def normalise_light(image: np.ndarray, inside: np.ndarray, how: str) -> np.ndarray:
    """Take the exposure out of a photograph.

    Args:
        image: uint8 (height, width, 3), RGB.
        inside: bool (height, width), the part; statistics come from here, or from everywhere if it is empty.
        how: "none"; "brightness" scales to a fixed mean of the part (gain within 1/8 to 8); "gray_world" scales each
            channel so that the part is grey on average, its mean kept; "contrast" stretches all channels alike so that
            the grey levels of the part, but for 1 % at each end, fill the range from 0 to 255; "clahe" equalises L of
            CIE Lab locally (clip limit 2, 8x8 tiles).

    Returns:
        uint8 (height, width, 3).
    """
    if how == "none":
        return image
    if how == "clahe":
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[..., 0])
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    pixels = image[inside] if inside.any() else image.reshape(-1, 3)
    if how == "contrast":
        dark, bright = np.percentile(pixels @ GREY, (1, 99))
        return np.clip((image - dark) * (255 / max(bright - dark, 8.0)) + 0.5, 0, 255).astype(np.uint8)
    means = np.maximum(pixels.mean(axis=0, dtype=np.float64), 1.0)
    target = BRIGHTNESS_TARGET if how == "brightness" else means.mean()
    gain = np.clip(target / (means.mean() if how == "brightness" else means), 1 / 8, 8)
    return np.clip(image * gain + 0.5, 0, 255).astype(np.uint8)


def fill_background(image: np.ndarray, inside: np.ndarray, how: str) -> np.ndarray:
    """Replace what lies outside the part: "keep" it, "zero" it, or take the part's "mean" colour.

    Args:
        image: uint8 (height, width, 3).
        inside: bool (height, width); where it is empty the image comes back unchanged (an absent part is never zeroed).
        how: one of BACKGROUNDS.

    Returns:
        uint8 (height, width, 3).
    """
    if how == "keep" or not inside.any():
        return image
    fill = np.zeros(3) if how == "zero" else image[inside].mean(axis=0)
    return np.where(inside[..., None], image, np.round(fill).astype(np.uint8))


def crop_size(boxes: np.ndarray, margin: float) -> tuple[int, int]:
    """Width and height in pixels of one window that holds every part.

    Args:
        boxes: float (n, 4), x, y, width, height of the annotated parts.
        margin: share of the size added on each side, >= 0.
    """
    width, height = boxes[:, 2:].max(axis=0) * (1 + 2 * margin)
    return int(np.ceil(width)), int(np.ceil(height))


def crop_window(inside: np.ndarray, size: tuple[int, int], fallback: tuple[float, float]) -> tuple[int, int, int, int]:
    """Window of constant ``size`` (width, height) around the part: x0, y0, x1, y1 in pixels, may exceed the frame.

    The centre is that of the part's bounding box, or ``fallback`` (x, y) where the part is absent.
    """
    if inside.any():
        x, y, width, height = cv2.boundingRect(inside.astype(np.uint8))
        fallback = (x + width / 2, y + height / 2)
    x0, y0 = (int(np.floor(c - side / 2 + 0.5)) for c, side in zip(fallback, size, strict=True))
    return x0, y0, x0 + size[0], y0 + size[1]


def cut(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Cut ``window`` (x0, y0, x1, y1) out of an image or mask; beyond the frame it is filled with zeros."""
    x0, y0, x1, y1 = window
    result = np.zeros((y1 - y0, x1 - x0, *image.shape[2:]), image.dtype)
    top, left, bottom, right = max(0, y0), max(0, x0), min(y1, image.shape[0]), min(x1, image.shape[1])
    if top < bottom and left < right:
        result[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return result


def isolate(image: np.ndarray, mask: np.ndarray, background: str, normalise: list[str], dilate: int) -> np.ndarray:
    """One photograph (uint8 RGB) and its part mask (bool, same size) to the isolated part; ``dilate`` in pixels."""
    for how in normalise:
        image = normalise_light(image, mask, how)
    return fill_background(image, grow(mask, dilate), background)


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a bool mask by a disc of ``pixels`` radius."""
    if pixels == 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


def main(args: argparse.Namespace) -> None:
    """Isolate the parts of one shard; write pictures, masks and a table (tables.ISOLATED)."""
    rows = read_table(args.manifest, MANIFEST)
    masks = read_table(args.masks, MASKS).set_index("image_id")["mask"] if args.masks else {}
    size = centre = None
    if args.crop:
        if not args.masks or not args.pairs:
            raise UserError("isolation with crop: true needs masks (choose a segmenter other than none)")
        pairs = read_table(args.pairs, PAIRS)
        boxes = pairs.loc[pairs["pair"] != "", ["bbox_x", "bbox_y", "bbox_width", "bbox_height"]].to_numpy(float)
        size = crop_size(boxes, args.margin)
        centre = tuple((boxes[:, :2] + boxes[:, 2:] / 2).mean(axis=0))

    out_dir = Path(args.out_dir)
    unchanged = args.background == "keep" and args.normalise == ["none"] and not args.crop
    cv2.setNumThreads(1)

    with atomic_dir(out_dir) as temporary:

        def one(row) -> dict:
            image_id = row.image_id
            if unchanged:
                window, image_path, mask_path = (
                    (0, 0, int(row.width), int(row.height)),
                    row.path,
                    masks.get(image_id, ""),
                )
            else:
                image = read_rgb(row.path)
                whole = np.zeros(image.shape[:2], bool)
                mask = read_mask(masks[image_id]) if args.masks else whole
                image = isolate(image, mask, args.background, args.normalise, args.dilate)
                mask = grow(mask, args.dilate)
                window = (0, 0, image.shape[1], image.shape[0])
                if args.crop:
                    window = crop_window(mask, size, centre)
                    image, mask = cut(image, window), cut(mask, window)
                image_path, mask_path = str(out_dir / f"{image_id}.png"), ""
                write_png(temporary / f"{image_id}.png", image)
                if args.masks:
                    mask_path = str(out_dir / f"{image_id}.mask.png")
                    write_png(temporary / f"{image_id}.mask.png", mask)
            record = dict(zip(("x0", "y0", "x1", "y1"), window, strict=True))
            record |= {"image_id": image_id, "image": image_path, "mask": mask_path, "copy_of": "", "kind": ""}
            return record | {"width": int(row.width), "height": int(row.height)}

        with ThreadPoolExecutor(args.threads) as pool:
            records = list(tqdm(pool.map(one, rows.itertuples()), total=len(rows), desc="isolate", unit="image"))
    write_table(args.table, pd.DataFrame(records, columns=ISOLATED), ISOLATED)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.isolate", description=__doc__)
    parser.add_argument("--manifest", required=True, help="table of the images (manifest.csv, or that of one shard)")
    parser.add_argument("--masks", help="table of their masks; without it the whole picture counts as part")
    parser.add_argument("--pairs", help="pairs.csv, needed by --crop for the size of the window")
    parser.add_argument("--background", choices=BACKGROUNDS, default="zero")
    parser.add_argument(
        "--normalise", choices=NORMALISATIONS, nargs="+", default=["none"], help="applied in this order"
    )
    parser.add_argument("--crop", action="store_true", help="cut a window of constant size around the part")
    parser.add_argument("--margin", type=float, default=0.03, help="share of the window added on each side")
    parser.add_argument("--dilate", type=int, default=0, help="pixels by which the mask grows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out-dir", required=True)
    parser.add_argument("--table", required=True)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
