"""What an autoencoder draws of each photograph, beside the picture that it was given; by the bank that judged it."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from defectflow.backbones.patch_embedding import picture_of
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.arguments import add_threads
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.detection.feature_files import PatchFile
from defectflow.images.read_write import write_png
from defectflow.methods.method_settings import METHODS
from defectflow.methods.picture_detector import PictureDetector
from defectflow.methods.registry import detector_class

HEIGHT = 256  # pixels at least, so that people see something


def main(args: argparse.Namespace) -> None:
    """Write a PNG for each photograph: the picture at the left, what is drawn of it at the right."""
    settings = read_settings(args.settings, METHODS, "score")
    method = detector_class(settings.name)
    if not issubclass(method, PictureDetector) or method.reconstruction is PictureDetector.reconstruction:
        raise UserError(f"reconstructions: method {settings.name} draws no pictures (vae does)")
    torch.set_num_threads(args.threads)
    detectors: dict[str, PictureDetector] = {}
    with atomic_dir(args.out) as folder:
        for features, scores in zip(args.features, args.scores, strict=True):
            file, table = PatchFile(features), tables.read_table(scores, tables.SCORES)
            bank_of = table[table["copy_of"] == ""].set_index("image_id")["bank"]
            grid = tuple(file.config["grid"])
            for item, about in enumerate(tqdm(file.items, desc="draw", unit="image")):
                if about["image_id"] not in bank_of.index:
                    continue
                name = bank_of[about["image_id"]]
                if name not in detectors:
                    banks = BankFile(args.banks, "pt")
                    banks = banks if name == "all" else BankFile(args.fold_banks, "pt", banks)
                    detectors[name] = method(banks.tensors(name), banks.settings, settings)
                picture = picture_of(file.patches(item), file.position(item), grid)
                with torch.inference_mode():
                    both = torch.cat([picture, detectors[name].reconstruction(picture)], dim=2)
                pixels = (both * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                write_png(Path(folder, f"{about['image_id']}.png"), _enlarged(pixels))


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    factor = -(-HEIGHT // pixels.shape[0])
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.reconstructions", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--scores", nargs="+", required=True, help="their SCORES tables")
    parser.add_argument("--banks", required=True, help="banks of the fit stage")
    parser.add_argument("--fold-banks", required=True, help="its file with the banks of the folds")
    add_settings(parser, METHODS, "score")
    add_threads(parser)
    parser.add_argument("--out", required=True, help="folder to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
