"""Stage candidates: what may be the part in some photographs of a shard: small pictures, patches, figure and ground."""

import argparse
import hashlib

import cv2
import numpy as np
import torch
from tqdm import tqdm

from defectflow.backbones.patch_nano import PATCH_NANO_WEIGHTS
from defectflow.core.arguments import add_threads
from defectflow.core.files import sha256_of, stage
from defectflow.core.tables import MANIFEST, read_table
from defectflow.finding.candidate_files import Candidates, write
from defectflow.finding.salient_network import U2Net
from defectflow.images.bit_depth import add_option
from defectflow.images.read_write import read_rgb
from defectflow.parts.figure_ground import FigureGround
from defectflow.parts.patch_finder import GRID, SIDE, embedder, patches
from defectflow.parts.training_cases import to_square


def rank(image_id: str) -> bytes:
    """Order in which photographs are chosen: as good as random, and the same whatever other photographs there are."""
    return hashlib.sha256(image_id.encode()).digest()


def main(args: argparse.Namespace) -> None:
    """Look at the first photographs of the shard by `rank`."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    rows = read_table(args.manifest, MANIFEST)
    order = sorted(range(len(rows)), key=lambda k: rank(rows["image_id"].iat[k]))
    rows = rows.iloc[sorted(order[: args.most])]
    embed, ground, networks = embedder(), FigureGround.load(), [U2Net(file) for file in args.onnx]
    squares, features, sizes, figures, doubts, surfaces, others = [], [], [], [], [], [], []
    for path in tqdm(rows["path"].tolist(), desc="candidates", unit="image"):
        image = read_rgb(path, args.depth)
        sizes.append(image.shape[:2])
        squares.append(to_square(image, SIDE))
        features.append(patches(squares[-1], embed))
        (told,) = ground.predict([squares[-1]])
        figures.append(cv2.resize(told.probability, (GRID, GRID), interpolation=cv2.INTER_AREA))
        doubts.append(float((told.doubt * told.probability).sum() / (told.probability.sum() + 1e-6)))
        surfaces.append(float(told.surface))
        if networks:
            seen = [cv2.resize(one(image), (GRID, GRID), interpolation=cv2.INTER_AREA) for one in networks]
            others.append(np.stack(seen))
    ids, paths = rows["image_id"].tolist(), rows["path"].tolist()
    candidates = Candidates(
        ids, paths, sizes, squares, features, figures, doubts, surfaces, sha256_of(PATCH_NANO_WEIGHTS), others
    )
    write(args.out, candidates, np.random.default_rng(args.seed))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.finding.candidates", description=__doc__)
    parser.add_argument("--manifest", required=True, help="table of the photographs of one shard")
    parser.add_argument("--most", type=int, required=True, help="photographs of the shard that are looked at, at most")
    parser.add_argument(
        "--onnx", nargs="*", default=[], help="networks of the user (U2-Net, U2NetP), to be asked as well"
    )
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    add_threads(parser, 1)
    parser.add_argument("--out", required=True, help="candidates to write (safetensors)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
