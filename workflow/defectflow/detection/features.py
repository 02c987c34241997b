"""Patch features of the isolated images of one shard.

An output that exists already is brought up to date: only pictures that are not in it run through the network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from defectflow.backbones.backbone_names import OUTLINE, PIXELS, WITHOUT_NETWORK
from defectflow.backbones.network_input import Loaded, Scale, fit_picture, scales_of, sizes_of
from defectflow.backbones.network_settings import NetworkSettings
from defectflow.backbones.part_outline import fit_outline
from defectflow.backbones.patch_embedding import PatchEmbedder, in_one_list
from defectflow.backbones.tiles import STRIDE, embed, large_size
from defectflow.config.code_hash import code_hash
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.anomaly_maps import SIGMA
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.batch_sizes import batch_size
from defectflow.core.device import pick_device
from defectflow.core.files import UserError, read_json, sha256_of, stage, write_json
from defectflow.core.parallel import in_threads
from defectflow.detection.feature_files import PatchFile, write_patches
from defectflow.images.read_write import read_checked, read_mask

MOST = 64  # pictures at a time on a GPU: more gain nothing
DILATION = 4  # pixels of its input that the part's mask is grown by before patches off it are left out


def load_item(
    row: Any,
    size: tuple[int, int],
    crop: tuple[int, int],
    scales: Sequence[Scale],
    foreground_only: bool,
    dilation: int,
    rim: int | None = None,
    outline: bool = False,
) -> Loaded:
    """Read an isolated image, a row of an ISOLATED table; the other arguments are those of `fit_picture`.

    ``outline``: the picture is the part, white on black, its outline at the edges near that of the mask.

    Raises:
        UserError: a file is not readable, the mask has another size than its image, or there is none to take.
    """
    image = read_checked(row.image)
    mask = read_mask(row.mask) if foreground_only and row.mask else None
    if mask is not None and mask.shape != image.shape[:2]:
        raise UserError(f"{row.mask}: the mask is {mask.shape[::-1]} pixels, its image {image.shape[1::-1]}")
    where = (row.x0, row.y0, row.x1, row.y1), size, scales, dilation, crop, row.turn, rim
    if not outline:
        return fit_picture(image, mask, *where)
    if mask is None:
        raise UserError(
            f"{row.image}: photographs are taken whole, because the masks are not trusted, and profile measures parts "
            "(outline some photographs and choose sam2.1-nano, or choose another detector)"
        )
    return fit_outline(image, mask, *where)


def read_isolated(paths: Sequence[str]) -> pd.DataFrame:
    """Read ISOLATED tables of one shard into one, sorted by image_id.

    Raises:
        UserError: an image_id is listed twice.
    """
    table = pd.concat([tables.read_table(path, tables.ISOLATED) for path in paths]).sort_values("image_id")
    twice = table["image_id"][table["image_id"].duplicated()]
    if len(twice):
        raise UserError(f"{paths[0]}: image_id {twice.iloc[0]!r} is listed twice (give the tables of one shard)")
    return table.reset_index(drop=True)


class Kept:
    """Patches of an earlier patch file, found by a hash of all that they were made from.

    That is: the picture as the network sees it, the cells, the tiles, this code, the file of weights, and what the
    network makes of a picture of noise, which tells other packaged weights, layers, precision, libraries or
    processors. So what is found is, on a CPU to the last bit, what would be computed. On a GPU, where rounding depends
    on what else is in the batch, it is equal within that rounding.

    Args:
        path: the earlier file; need not exist or be of any use.
        weights: file of weights, None for packaged ones or none.
        noise: float32, patches of the picture of noise.
        tiles: how pictures are divided, see `tiles.Tiles`; None: they are not.
    """

    def __init__(
        self, path: str | Path, weights: str | None, noise: torch.Tensor, tiles: Mapping[str, int] | None = None
    ) -> None:
        try:
            self._file = PatchFile(path)
            self._items = {key: i for i, key in enumerate(self._file.keys)}
        except UserError:
            self._items = {}
        weights = sha256_of(weights) if weights else ""
        self._maker = hashlib.sha256(f"{code_hash('detection.features')} {weights} {tuple(noise.shape)}".encode())
        self._maker.update(noise.cpu().contiguous().numpy().data)
        if tiles:  # neighbours fade into each other as far as they overlap, which no single tile of noise tells
            self._maker.update(json.dumps(tiles, sort_keys=True).encode())

    def key(self, item: Loaded) -> bytes:
        """Hash of all that the patches of a picture are made from, 32 bytes."""
        digest = self._maker.copy()
        digest.update(_picture(item).tobytes())
        digest.update(item.cells.tobytes())
        return digest.digest()

    def __contains__(self, key: bytes) -> bool:
        return key in self._items

    def patches(self, key: bytes) -> torch.Tensor:
        """Patches with this key, float32 (n, d)."""
        return self._file.patches(self._items[key])


def _picture(item: Loaded) -> np.ndarray:
    assert item.picture is not None, "taken out only once it is embedded"
    return item.picture


def embed_all(
    rows: Sequence[Any],
    device: torch.device,
    run: Callable[[np.ndarray], torch.Tensor],
    load: Callable[[Any], Loaded],
    kept: Kept,
    batch_size: int,
) -> Iterator[tuple[torch.Tensor, Loaded, bytes]]:
    """Yield the patches (n, d) of each row, kept ones or new, what was loaded for it, and their key, in order.

    On a CPU each thread takes an image from its file to its patches; on a GPU, threads decode while it computes.
    ``run`` makes the patches (n, cells of all scales, d) of pictures, uint8 RGB (n, height, width, 3).
    """

    def embed(loaded: Sequence[Loaded]) -> list[tuple[torch.Tensor, Loaded, bytes]]:
        keys = [kept.key(item) for item in loaded]
        patches = {i: kept.patches(key) for i, key in enumerate(keys) if key in kept}
        new = [i for i in range(len(keys)) if i not in patches]
        if new:
            embeddings = run(np.stack([_picture(loaded[i]) for i in new]))
            for i, embedding in zip(new, embeddings, strict=True):
                cells = torch.from_numpy(loaded[i].cells).to(embedding.device)
                patches[i] = embedding[cells] if len(cells) < len(embedding) else embedding
        return [(patches[i], item._replace(picture=None), keys[i]) for i, item in enumerate(loaded)]

    if device.type == "cpu":
        for (result,) in in_threads(lambda row: embed([load(row)]), rows):
            yield result
        return
    loaded = in_threads(load, rows, ahead=batch_size)
    while batch := list(islice(loaded, batch_size)):
        yield from embed(batch)


def network_of(
    settings: NetworkSettings, embedder: PatchEmbedder, found: Sequence[torch.Tensor], shape: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What later stages and inspectors have to know of the input: its size, the grids, rims and tiles.

    Args:
        settings: of the network.
        embedder: the network.
        found: its patches of a picture, or of a tile, at each scale.
        shape: see `sizes_of`.

    Raises:
        UserError: the grid of the network is not one that tiles fit on.
    """
    grids = [list(of_scale.shape[1:3]) for of_scale in found]
    tiles = settings.tiling
    if tiles is None:
        size, crop, rim = sizes_of(settings, shape)
        reductions = [settings.sizes[0] // side for side in settings.sizes]
        known: dict[str, Any] = {"rim": rim} if rim is not None else {}
    else:
        if not shape or not shape["height"]:
            raise UserError("tiles: the size of the pictures is not known (give --shape)")
        cell = tiles.size // grids[0][0]
        if STRIDE % cell:
            raise UserError(f"tiles: {settings.backbone} has a patch every {cell} pixels (tiles take 4, 8 or 16)")
        size, reductions = large_size((shape["height"], shape["width"]), settings.sizes[0])
        grids = [[side // k // cell for side in size] for k in reductions]
        crop, sigma = size, SIGMA * settings.sizes[0] / 256
        known = {"rim": 0, "tiles": {"size": tiles.size, "overlap": tiles.overlap}, "sigma": sigma}
    coarser = [{"reduction": k, "grid": grid} for k, grid in zip(reductions[1:], grids[1:], strict=True)]
    return {
        "backbone": settings.backbone,
        "trained": embedder.trained,
        "layers": settings.layers,
        "precision": settings.precision,
        "fitted_size": list(size),
        "input_size": list(crop),
        "grid": grids[0],
        "foreground_only": settings.foreground_only and settings.backbone != PIXELS,
        "dilation": DILATION,
        **({"coarser": coarser} if coarser else {}),
        **known,
    }


def patches_by(embedder: PatchEmbedder, config: Mapping[str, Any]) -> Callable[[np.ndarray], torch.Tensor]:
    """Function from pictures, uint8 RGB (n, height, width, 3), to their patches (n, cells of all scales, d)."""
    if "tiles" not in config:
        return lambda pictures: in_one_list(embedder.scales(pictures))

    def tile(picture: np.ndarray) -> np.ndarray:
        patches: np.ndarray = embedder(picture[None])[0].cpu().numpy()
        return patches

    return lambda pictures: torch.stack([torch.from_numpy(embed(picture, config, tile)) for picture in pictures])


def main(args: argparse.Namespace) -> None:
    """Write the patch file of a shard."""
    settings = read_settings(args.settings, NetworkSettings, "features")
    table = read_isolated(args.tables)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    shape = read_json(args.shape) if args.shape else None
    told = {}
    if settings.image_size == "auto":
        if not (shape and "auto" in shape):
            raise UserError("image_size: auto: the size of the part is not known (give --shape, made with --auto-size)")
        settings, told = settings.of_set(shape["auto"]["image_size"]), {"size_reason": shape["auto"]["reason"]}
    tiles = settings.tiling
    seen = (tiles.size, tiles.size) if tiles else sizes_of(settings, shape)[1]
    embedder = PatchEmbedder(
        settings.backbone,
        settings.layers,
        args.weights,
        allow_download=args.allow_downloads,
        seed=args.seed,
        device=pick_device(args.device),
        precision=settings.precision,
        reductions=[settings.sizes[0] // side for side in settings.sizes],
    )
    if not (embedder.trained or settings.backbone in WITHOUT_NETWORK):
        print(
            f"WARNING: {settings.backbone} has random weights: name a file under weights or set allow_downloads=true",
            file=sys.stderr,
        )
    # One picture of noise (of tiles, one tile) tells the grid, the dimensions, whether the network takes this size at
    # all, and (see `Kept`) whether it is the network of an earlier run. In a thread as the pictures are, since rounding
    # depends on that.
    noise = np.random.default_rng(0).integers(0, 256, (1, *seen, 3), dtype=np.uint8)
    on_gpu = embedder.device.type == "cuda"
    before = torch.cuda.memory_allocated(embedder.device) if on_gpu else 0
    try:
        (found,) = in_threads(embedder.scales, [noise])
    except AssertionError as error:  # timm's word for a size that is no multiple of a transformer's patch
        raise UserError(f"{seen[0]} x {seen[1]} pixels: {settings.backbone} does not take them: {error}") from None
    one = torch.cuda.max_memory_allocated(embedder.device) - before if on_gpu else 0
    batch = batch_size(settings.batch_size, embedder.device, one, MOST)
    noise = in_one_list(found)
    config = {
        **network_of(settings, embedder, found, shape),
        **told,
        "items": [
            {
                "image_id": row.image_id,
                "copy_of": row.copy_of,
                "kind": row.kind,
                "doubtful": bool(row.doubtful),
                "window": [int(row.x0), int(row.y0), int(row.x1), int(row.y1)],
                "frame": [int(row.height), int(row.width)],
            }
            for row in table.itertuples()
        ],
    }

    scales = scales_of(config)
    size, crop = ((config[key][0], config[key][1]) for key in ("fitted_size", "input_size"))

    def load(row: Any) -> Loaded:
        outline = settings.backbone == OUTLINE
        return load_item(row, size, crop, scales, config["foreground_only"], DILATION, config.get("rim"), outline)

    kept = Kept(args.out, args.weights, noise, config.get("tiles"))
    rows = list(table.itertuples())
    new = patches_written = 0
    made_from = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with write_patches(args.out, config, noise.shape[-1]) as writer:
        embedded = embed_all(rows, embedder.device, patches_by(embedder, config), load, kept, batch)
        for patches, item, key in tqdm(embedded, total=len(rows), desc="features", unit="image"):
            writer.add(patches, item.cells, item.affine, item.present, key)
            made_from.update(key + bytes([item.present]))
            patches_written += len(patches)
            new += key not in kept
    if args.report:
        what = {"images": len(rows), "patches": patches_written, "dimensions": int(noise.shape[-1])}
        written = Path(args.out).stat().st_size
        asked = {"made_with": args.made_with, "tables": [sha256_of(path) for path in args.tables]}
        write_json(args.report, {**what, "bytes": written, "made_from": made_from.hexdigest(), **asked})
    print(f"features: {new} of {len(rows)} pictures were new and ran through the network", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.features", description=__doc__)
    parser.add_argument("--tables", nargs="+", required=True, help="ISOLATED tables of one shard: originals and copies")
    parser.add_argument("--shape", metavar="JSON", help="picture_shape.json of the set (default: nothing is long)")
    parser.add_argument("--weights", help="local .safetensors or .pth file (default: the included weights, if any)")
    add_settings(parser, NetworkSettings, "features")
    add_threads(parser)
    add_device(parser)
    parser.add_argument("--allow-downloads", action="store_true", help="allow timm to download the weights of the tag")
    add_seed(parser, "seed for the weights of an untrained network")
    parser.add_argument("--made-with", default="", help="hash of settings and code, for the report")
    parser.add_argument("--out", required=True, help="patch file (.safetensors), brought up to date")
    parser.add_argument(
        "--report",
        help="JSON to write: numbers of pictures and patches, bytes, a hash of what the patches are made from",
    )
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
